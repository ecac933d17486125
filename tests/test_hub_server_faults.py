"""What the real client makes of errors and cut connections, and what is on the Hub afterwards."""

import hashlib
import http.client
import json
import time
from functools import partial

import pytest

from tests.hub_server import API, HubServer, run_fresh, start_fresh

PREPARE = f"""{API}
def add(repo_id, path, content):
    api.upload_file(repo_id=repo_id, path_in_repo=path, path_or_fileobj=content)

"""
PUSH = f"""{API}
api.create_repo("org/m", exist_ok=True)
print(json.dumps(api.upload_folder(repo_id="org/m", folder_path=sys.argv[1]).oid))
"""
LARGE = bytes(range(256)) * 45_000

# Repository -> a request (method, part of its path) that is to fail once, and the call in which the client makes it.
CALLS = {
    "create": ("POST", "/api/repos/create", "api.create_repo('org/new')"),
    "whoami": ("GET", "/api/whoami-v2", "api.whoami()"),
    "info": ("GET", "/org/info/revision/", "api.model_info('org/info', revision='main')"),
    "tree": ("GET", "/org/tree/tree/", "api.list_repo_files('org/tree')"),
    "paths": ("POST", "/org/paths/paths-info/", "api.get_paths_info('org/paths', 'a')"),
    "branch": ("POST", "/org/branch/branch/", "api.create_branch('org/branch', branch='b')"),
    "preupload": ("POST", "/org/preupload/preupload/", "add('org/preupload', 'b', b'1')"),
    "commit": ("POST", "/org/commit/commit/", "add('org/commit', 'b', b'1')"),
    "batch": ("POST", "/org/batch.git/", "add('org/batch', 'b.bin', b'1')"),
    "store": ("PUT", hashlib.sha256(b"2").hexdigest(), "add('org/store', 'b.bin', b'2')"),
    "verify": ("POST", "/storage/verify", "add('org/verify', 'b.bin', b'3')"),
    "head": ("HEAD", "/org/head/resolve/", "hf_hub_download('org/head', 'a')"),
    "get": ("GET", "/org/get/resolve/", "hf_hub_download('org/get', 'a')"),
    "large": ("GET", "/storage/", "hf_hub_download('org/large', 'a.bin')"),
}
NEVER_RETRIED = {"create", "whoami", "info", "paths", "branch", "commit"}


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def fresh(hub, tmp_path):
    return partial(run_fresh, hub, tmp_path)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(LARGE)
    return folder


@pytest.fixture
def start(hub, tmp_path):
    return partial(start_fresh, hub, tmp_path)


def count(hub, method, path_contains):
    return sum(request.method == method and path_contains in request.path for request in hub.requests)


@pytest.mark.parametrize("status, not_retried", [(429, NEVER_RETRIED), (503, NEVER_RETRIED | {"get", "large"})])
def test_client_tries_again_after_an_error_in_these_calls_only(hub, fresh, status, not_retried):
    fresh(API + "for name in sys.argv[1:]: api.create_repo(f'org/{name}')", *CALLS)
    for name in CALLS:
        hub.put_file(f"org/{name}", "a", b"small")
    hub.put_file("org/large", "a.bin", b"large")
    for method, path, _ in CALLS.values():
        hub.fail(status, headers={"Retry-After": "0"}, method=method, path_contains=path)
    code = """
from concurrent.futures import ThreadPoolExecutor

def status_of(call):
    try:
        eval(call)
    except HfHubHTTPError as error:
        return error.response.status_code

calls = json.loads(sys.argv[1])
print(json.dumps(dict(zip(calls, ThreadPoolExecutor(len(calls)).map(status_of, calls.values())))))
"""
    calls = json.dumps({name: call for name, (_, _, call) in CALLS.items()})
    assert fresh(PREPARE + code, calls) == {name: status if name in not_retried else None for name in CALLS}
    assert [request.status for request in hub.requests].count(status) == len(CALLS)


def test_push_that_is_killed_leaves_the_old_revision_and_a_second_one_finishes_it(hub, fresh, start, folder):
    fresh(API + "api.create_repo('org/m')")
    old = hub.put_file("org/m", "config.json", b"old")
    hub.delay(60, method="PUT")
    process = start(PUSH, folder)
    deadline = time.monotonic() + 60
    while not count(hub, "PUT", "/storage/") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert count(hub, "PUT", "/storage/") == 1
    assert hub.repo("org/m").commit_at("main") == old

    sha = fresh(PUSH, folder)
    commit = hub.repo("org/m").commit_at("main")
    assert (commit.sha, commit.parent) == (sha, old.sha)
    assert hub.read("org/m", "model.safetensors") == LARGE
    assert hub.read("org/m", "config.json") == b"{}"


def test_commit_that_is_cut_changes_nothing_and_the_second_push_sends_no_large_file_again(hub, fresh, start, folder):
    hub.cut("request", after=100, method="POST", path_contains="/commit/")
    process = start(PUSH, folder)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Error" in errors.splitlines()[-1]
    assert hub.paths("org/m") == set()

    fresh(PUSH, folder)
    assert hub.paths("org/m") == {"config.json", "model.safetensors"}
    assert count(hub, "PUT", "/storage/") == 1


def test_commit_whose_answer_is_lost_is_there_and_is_not_made_twice(hub, fresh, start, folder):
    hub.cut("response", after=10, method="POST", path_contains="/commit/")
    process = start(PUSH, folder)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "RemoteProtocolError" in errors.splitlines()[-1]
    made = hub.repo("org/m").commit_at("main").sha
    assert hub.paths("org/m") == {"config.json", "model.safetensors"}
    assert fresh(PUSH, folder) == made
    assert len(hub.repo("org/m").commits) == 2


def test_large_file_that_is_cut_on_the_way_is_sent_again(hub, fresh, folder):
    hub.cut("request", after=5_000_000, method="PUT")
    fresh(PUSH, folder)
    assert [request.status for request in hub.requests if request.method == "PUT"] == [None, 200]
    assert hub.read("org/m", "model.safetensors") == LARGE


def test_download_that_is_cut_goes_on_where_it_was(hub, fresh, folder):
    fresh(PUSH, folder)
    hub.cut("response", after=11_000_000, method="GET", path_contains="/storage/")
    code = (
        "print(json.dumps(hf_hub_download('org/m', 'model.safetensors')))"  # it keeps what it has in steps of 10 MiB
    )
    with open(fresh(API + code), "rb") as file:
        assert file.read() == LARGE
    downloads = [request.status for request in hub.requests if request.method == "GET" and "/storage/" in request.path]
    assert downloads == [200, 206]


def test_a_fault_strikes_the_requests_that_it_was_asked_for(hub):
    hub.fail(503, nth=2, times=2, method="GET", path_contains="/api/")
    hub.fail(429, headers={"Retry-After": "7"}, path_contains="/api/", nth=5)
    hub.delay(0.2, path_contains="/slow")

    def ask(path, method="GET"):
        connection = http.client.HTTPConnection(*hub.server_address)
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response

    statuses = [ask(path, method).status for path, method in [("/api/x", "GET"), ("/x", "GET"), ("/api/x", "POST")]]
    assert statuses == [404, 404, 404]
    assert [ask("/api/x").status for _ in range(2)] == [503, 503]
    limited = ask("/api/x")
    assert (limited.status, limited.headers["Retry-After"]) == (429, "7")
    assert ask("/api/x").status == 404
    start = time.monotonic()
    ask("/slow")
    assert time.monotonic() - start >= 0.2
    assert [request.status for request in hub.requests] == [404, 404, 404, 503, 503, 429, 404, 404]
