"""Routes that write files: what is to be sent how, large files, and commits."""

import base64
import hashlib
import json

from .http_messages import REPO, REVISION, Request, Response, route
from .store import Commit, File, HubError, Repo, is_large


@route("POST", rf"{REPO}/preupload/{REVISION}")
def preupload(request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Says of each file how to send it, and which content its path has now."""
    commit = request.store.writable(kind, repo_id, request.account).commit_at(revision)
    files = []
    for wish in request.json()["files"]:
        path, present = wish["path"], commit.files.get(wish["path"])
        mode = "lfs" if is_large(path, wish["size"]) else "regular"
        oid = present.oid if present else None
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Response({"files": files})


@route("POST", r"/(?:(?P<kind>dataset|space)s/)?(?P<repo_id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
def large_file_batch(request: Request, repo_id: str, kind: str = "model") -> Response:
    """Where to send large files; those that are here already need not be sent."""
    request.store.writable(kind, repo_id, request.account)
    objects = []
    for wish in request.json()["objects"]:
        place = {"oid": wish["oid"], "size": wish["size"]}
        if wish["oid"] not in request.store.objects:
            upload, verify = f"{request.url}/storage/{wish['oid']}", f"{request.url}/storage/verify"
            place["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        objects.append(place)
    return Response({"transfer": "basic", "objects": objects})


@route("PUT", "/storage/(?P<oid>[0-9a-f]{64})")
def upload_large(request: Request, oid: str) -> Response:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "The content has not the announced SHA-256")
    request.store.objects[oid] = request.body
    return Response()


@route("POST", "/storage/verify")
def verify_large(request: Request) -> Response:
    wish = request.json()
    if len(request.store.objects.get(wish["oid"], b"")) != wish["size"]:
        raise HubError(404, "The object has not arrived whole")
    return Response()


@route("POST", rf"{REPO}/commit/{REVISION}")
def commit(request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Makes one commit of all operations, or none; on a branch, or as a new pull request."""
    repo = request.store.writable(kind, repo_id, request.account)
    parent = repo.commit_at(revision)
    header, *operations = (json.loads(line) for line in request.body.splitlines())
    header = header["value"]
    if header.get("parentCommit", parent.sha) != parent.sha:
        raise HubError(412, f"{revision} is at {parent.sha} by now: fetch it and try again")
    if request.flag("create_pr"):
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        ref = f"refs/pr/{number}"
    else:
        ref = repo.full_ref(revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise HubError(400, f"{revision} is no branch: a commit needs one")
    files = dict(parent.files)
    for operation in operations:
        _apply(files, operation["key"], operation["value"], request)
    author, title = request.account.name, header["summary"]
    made = repo.add_commit(files, parent.sha, title, header.get("description", ""), author)
    repo.refs[ref] = made.sha
    url = request.url + repo.url_path
    facts = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}"}
    if request.flag("create_pr"):
        facts["pullRequestUrl"] = f"{url}/discussions/{number}"
    return Response(facts)


def _apply(files: dict[str, File], key: str, value: dict, request: Request) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]), large=False)
    elif key == "lfsFile":
        if value["oid"] not in request.store.objects:
            raise HubError(400, f"{path}: the large file {value['oid']} was not sent")
        files[path] = File(request.store.objects[value["oid"]], large=True)
    elif key in ("deletedFile", "deletedFolder"):
        folder = f"{path.rstrip('/')}/"
        gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(folder))]
        if not gone:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise HubError(400, f"Unknown operation {key}")


def put_file(repo: Repo, objects: dict[str, bytes], path: str, content: bytes, revision: str) -> Commit:
    """Writes one file past the protocol, as a commit of its own on a branch."""
    parent = repo.commit_at(revision)
    file = File(content, is_large(path, len(content)))
    if file.large:
        objects[file.sha256] = content
    made = repo.add_commit(parent.files | {path: file}, parent.sha, f"Put {path}")
    repo.refs[repo.full_ref(revision)] = made.sha
    return made
