"""The Hub of the tests against the real `huggingface_hub`: files, commits and revisions.

The scripts run in processes of their own, with empty caches: the clients read `HF_ENDPOINT` when they are imported.
"""

import http.client
from functools import partial

import pytest

from tests.hub_server import API, HubServer, run_fresh

UPLOAD = f"""{API}
api.create_repo("org/m", exist_ok=True)
print(json.dumps(api.upload_folder(repo_id="org/m", folder_path=sys.argv[1]).oid))
"""
CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\ntags:\n- mint\n---\n# A model\n"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def fresh(hub, tmp_path):
    return partial(run_fresh, hub, tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Files of all sorts: small, large, empty, in folders, with odd names."""
    folder = tmp_path / "folder"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"model_type": "mint"}')
    (folder / "empty.txt").write_bytes(b"")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "long.txt").write_bytes(bytes(range(256)) * 45_000)
    (folder / "sub" / "with space, é & 100%.txt").write_text("odd")
    (folder / "sub" / "deep" / "a.txt").write_text("deep")
    return folder


def contents(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".")}


def asked(hub, method, path_contains=""):
    return [request for request in hub.requests if request.method == method and path_contains in request.path]


def test_folder_comes_back_byte_for_byte_and_nobody_else_is_asked(hub, fresh, folder, tmp_path):
    sha = fresh(UPLOAD, folder)
    assert hub.repo("org/m").commit_at("main").sha == sha
    assert {path: hub.read("org/m", path) for path in hub.paths("org/m")} == contents(folder)
    code = """
snapshot_download("org/m", local_dir=sys.argv[1])
info = api.model_info("org/m", files_metadata=True)
sizes = {file.rfilename: file.size for file in info.siblings}
print(json.dumps([info.sha, info.tags, info.card_data.license, info.config, sizes]))
"""
    copy = tmp_path / "copy"
    sizes = {path: len(content) for path, content in contents(folder).items()}
    found = fresh(API + code, copy, token=None)
    sizes[".gitattributes"] = len(hub.read("org/m", ".gitattributes"))
    assert found == [sha, ["mint", "license:apache-2.0"], "apache-2.0", {"model_type": "mint"}, sizes]
    assert contents(copy) == contents(folder)
    assert hub.strays == []


def test_large_files_go_to_the_storage_once_and_come_from_it_without_the_token(hub, fresh, folder):
    fresh(UPLOAD, folder)
    assert len(asked(hub, "PUT", "/storage/")) == 2
    sha = fresh(UPLOAD, folder)  # nothing has changed: no commit and nothing sent
    assert len(asked(hub, "PUT", "/storage/")) == 2
    assert len(asked(hub, "POST", "/commit/")) == 1
    assert hub.repo("org/m").commit_at("main").sha == sha
    fresh(API + "snapshot_download('org/m')")
    downloads = asked(hub, "GET", "/storage/")
    assert len(downloads) == 2 and not any(request.with_token for request in downloads)
    assert all(request.with_token for request in asked(hub, "GET", "/resolve/"))


def test_branches_tags_and_pull_requests_are_revisions(hub, fresh):
    code = """
api.create_repo("org/m")
first = api.upload_file(repo_id="org/m", path_in_repo="a", path_or_fileobj=b"1").oid
api.create_branch("org/m", branch="dev/new")
api.create_branch("org/m", branch="dev/new", exist_ok=True)
api.create_tag("org/m", tag="v1")
api.upload_file(repo_id="org/m", path_in_repo="a", path_or_fileobj=b"2", revision="dev/new")
pull = api.upload_file(repo_id="org/m", path_in_repo="b", path_or_fileobj=b"3", create_pr=True)
last = api.upload_file(repo_id="org/m", path_in_repo="a", path_or_fileobj=b"4").oid
read = lambda path, revision: open(hf_hub_download("org/m", path, revision=revision)).read()
texts = [read("a", "dev/new"), read("a", "v1"), read("a", first), read("b", pull.pr_revision), read("a", "main")]
refs = api.list_repo_refs("org/m", include_pull_requests=True)
names = [[ref.name for ref in group] for group in (refs.branches, refs.tags, refs.pull_requests)]
errors = [
    error_of(api.create_branch, "org/m", branch="dev/new"),
    error_of(hf_hub_download, "org/m", "a", revision="nowhere"),
    error_of(hf_hub_download, "org/m", "b", revision="main"),
    error_of(api.upload_file, repo_id="org/m", path_in_repo="a", path_or_fileobj=b"5", revision="nowhere"),
]
api.delete_branch("org/m", branch="dev/new")
api.delete_tag("org/m", tag="v1")
history = [commit.commit_id for commit in api.list_repo_commits("org/m")]
print(json.dumps([pull.pr_num, texts, names, errors, history[:2] == [last, first], len(history)]))
"""
    number, texts, names, errors, in_order, length = fresh(API + code)
    assert (number, texts) == (1, ["2", "1", "1", "3", "4"])
    assert names == [["main", "dev/new"], ["v1"], ["refs/pr/1"]]
    assert errors == [
        ["HfHubHTTPError", 409],
        ["RevisionNotFoundError", 404],
        ["RemoteEntryNotFoundError", 404],
        ["RevisionNotFoundError", 404],
    ]
    assert in_order and length == 3
    assert set(hub.repo("org/m").refs) == {"refs/heads/main", "refs/pr/1"}


def test_a_commit_adds_copies_and_deletes_at_once_or_not_at_all(hub, fresh, folder):
    fresh(UPLOAD, folder)
    code = """
old = api.model_info("org/m").sha
copies = [CommitOperationCopy(f"{name}", f"copy of {name}") for name in ("config.json", "model.safetensors")]
missing = [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("missing.txt")]
errors = [error_of(api.create_commit, "org/m", missing, commit_message="No")]
after_error = api.model_info("org/m").sha
operations = [*copies, CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("sub/")]
new = api.create_commit("org/m", operations, commit_message="Yes", parent_commit=old).oid
late = [CommitOperationAdd("late.txt", b"")]
errors.append(error_of(api.create_commit, "org/m", late, commit_message="Late", parent_commit=old))
print(json.dumps([old == after_error, api.model_info("org/m").sha == new, errors]))
"""
    assert fresh(API + code) == [True, True, [["RemoteEntryNotFoundError", 404], ["HfHubHTTPError", 412]]]
    files = {path: hub.read("org/m", path) for path in hub.paths("org/m")}
    expected = {path: content for path, content in contents(folder).items() if not path.startswith("sub/")}
    expected |= {f"copy of {name}": expected[name] for name in ("config.json", "model.safetensors")}
    assert files == expected | {"new.txt": b"new"}


def test_tree_comes_in_pages_and_knows_its_folders(hub, fresh, folder):
    fresh(UPLOAD, folder)
    hub.page_size = 2
    code = """
paths = lambda **options: [entry.path for entry in api.list_repo_tree("org/m", **options)]
facts = api.get_paths_info("org/m", ["model.safetensors", "sub", "missing"], expand=True)
print(json.dumps([paths(), paths(recursive=True), paths(path_in_repo="sub/deep"), [fact.path for fact in facts],
                  facts[0].lfs.size, facts[1].last_commit.title, error_of(paths, path_in_repo="不在")]))
"""
    top, everything, deep, known, size, title, error = fresh(API + code)
    assert set(top) == {path.split("/")[0] for path in contents(folder)} | {".gitattributes"}
    assert set(everything) == set(contents(folder)) | {".gitattributes", "sub", "sub/deep"}
    assert len(everything) == len(set(everything))
    assert deep == ["sub/deep/a.txt"]
    assert (known, size) == (["model.safetensors", "sub"], 700)
    assert title == "Upload folder using huggingface_hub"
    assert error == ["RemoteEntryNotFoundError", 404]
    assert len([request for request in hub.requests if "cursor=" in request.query]) >= 6


@pytest.mark.parametrize(
    "wanted, status, part",
    [
        ("bytes=2-4", 206, slice(2, 5)),
        ("bytes=695-", 206, slice(695, 700)),
        ("bytes=-3", 206, slice(697, 700)),
        ("bytes=0-9999", 206, slice(0, 700)),
        ("bytes=700-", 416, slice(0, 0)),
        ("lines=1-2", 200, slice(0, 700)),
    ],
)
def test_ranges_of_a_file(hub, fresh, wanted, status, part):
    fresh(API + "api.create_repo('org/m')")
    content = bytes(range(100)) * 7
    commit = hub.put_file("org/m", "a.txt", content)
    connection = http.client.HTTPConnection(*hub.server_address)
    connection.request("GET", "/org/m/resolve/main/a.txt", headers={"Range": wanted})
    response = connection.getresponse()
    assert (response.status, response.read()) == (status, content[part])
    assert response.headers["X-Repo-Commit"] == commit.sha
    if status != 200:
        bounds = f"{part.start}-{part.stop - 1}" if status == 206 else "*"
        assert response.headers["Content-Range"] == f"bytes {bounds}/700"
    connection.close()


def test_file_system_reads_parts_of_a_large_file(hub, fresh, folder):
    fresh(UPLOAD, folder)
    code = """
from huggingface_hub import HfFileSystem
with HfFileSystem().open("org/m/long.txt", block_size=1024) as file:
    file.seek(256 * 40_000 + 7)
    print(json.dumps([list(file.read(3)), sorted(HfFileSystem().glob("org/m/sub/**"))]))
"""
    assert fresh(API + code) == [
        [7, 8, 9],
        ["org/m/sub", "org/m/sub/deep", "org/m/sub/deep/a.txt", "org/m/sub/with space, é & 100%.txt"],
    ]


def test_a_file_changed_on_the_server_reaches_those_who_follow_the_branch_only(hub, fresh):
    code = """
read = lambda revision: open(hf_hub_download("org/m", "config.json", revision=revision)).read()
print(json.dumps([read("main"), read(sys.argv[1])]))
"""
    fresh(API + "api.create_repo('org/m')")
    honest = hub.put_file("org/m", "config.json", b"honest")
    tampered = hub.put_file("org/m", "config.json", b"tampered")
    assert tampered.parent == honest.sha
    assert fresh(API + code, honest.sha) == ["tampered", "honest"]
