"""Routes that read files: the tree, facts on paths, and the downloads themselves with ranges."""

import hashlib
import re
from urllib.parse import urlencode

from .http_messages import REPO, REVISION, Request, Response, route
from .repos import stamp
from .store import Commit, HubError


@route("GET", rf"{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?")
def tree(request: Request, kind: str, repo_id: str, revision: str, folder: str = "") -> Response:
    """One page of a folder's entries; the `Link` header leads to the next one."""
    commit = request.store.readable(kind, repo_id, request.account).commit_at(revision)
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    entries = {}
    for path in sorted(commit.files):
        if path.startswith(prefix):
            parts = path[len(prefix) :].split("/")
            folders = [prefix + "/".join(parts[:depth]) for depth in range(1, len(parts))]
            inner = [*folders, path]
            for entry in inner if request.flag("recursive") else inner[:1]:
                entries[entry] = entry == path
    if folder and not entries:
        raise HubError(404, f"{folder} does not exist on '{revision}'", "EntryNotFound")
    start = int(request.query.get("cursor", ["0"])[0])
    end = start + request.page_size
    page = [path_facts(path, commit, request.flag("expand")) for path in list(entries)[start:end]]
    headers = {}
    if end < len(entries):
        query = urlencode(request.query | {"cursor": [str(end)]}, doseq=True)
        headers["Link"] = f'<{request.url}{request.path}?{query}>; rel="next"'
    return Response(page, headers=headers)


@route("POST", rf"{REPO}/paths-info/{REVISION}")
def paths_info(request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Facts on those of the paths that exist."""
    commit = request.store.readable(kind, repo_id, request.account).commit_at(revision)
    wish = request.form()
    expand = wish.get("expand", ["false"])[0].lower() == "true"
    paths = [path.rstrip("/") for path in wish.get("paths", [])]
    folders = {path[:end] for path in commit.files for end in _slashes(path)}
    return Response([path_facts(path, commit, expand) for path in paths if path in commit.files or path in folders])


def _slashes(path: str) -> list[int]:
    return [match.start() for match in re.finditer("/", path)]


def path_facts(path: str, commit: Commit, expand: bool) -> dict:
    """What the Hub tells of a file or folder."""
    if path in commit.files:
        file = commit.files[path]
        facts = {"type": "file", "path": path, "size": len(file.content), "oid": file.git_oid}
        if file.large:
            facts["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    else:
        inside = sorted(f"{name} {file.git_oid}" for name, file in commit.files.items() if name.startswith(f"{path}/"))
        facts = {
            "type": "directory",
            "path": path,
            "size": 0,
            "oid": hashlib.sha1("\n".join(inside).encode()).hexdigest(),
        }
    if expand:
        facts["lastCommit"] = {"id": commit.sha, "title": commit.title, "date": stamp(commit.date)}
    return facts


@route("GET", rf"/(?:(?P<kind>dataset|space)s/)?(?P<repo_id>[^/]+/[^/]+)/resolve/{REVISION}/(?P<path>.+)")
def resolve(request: Request, repo_id: str, revision: str, path: str, kind: str = "model") -> Response:
    """A small file comes from here; a large one from the storage, where the answer sends the client."""
    repo = request.store.readable_files(kind, repo_id, request.account)
    commit = repo.commit_at(revision)
    headers = {"X-Repo-Commit": commit.sha}
    if path not in commit.files:
        error = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return Response(b"Entry not found", 404, headers | error)
    file = commit.files[path]
    if not file.large:
        return ranged(request, file.content, headers | {"ETag": f'"{file.oid}"'})
    # Another host name, as on the Hub: the client takes the facts from this answer and keeps its token to itself.
    storage = request.url.replace("127.0.0.1", "localhost")
    facts = {"X-Linked-Size": str(len(file.content)), "X-Linked-Etag": f'"{file.oid}"'}
    return Response(b"", 302, headers | facts | {"Location": f"{storage}/storage/{file.sha256}"})


@route("GET", "/storage/(?P<oid>[0-9a-f]{64})")
def download_large(request: Request, oid: str) -> Response:
    if oid not in request.store.objects:
        raise HubError(404, "No such object")
    return ranged(request, request.store.objects[oid], {"ETag": f'"{oid}"'})


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """The content, or the part of it that a `Range` header asks for."""
    headers = headers | {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if wanted is None or not any(wanted.groups()):
        return Response(content, headers=headers)
    size = len(content)
    first, last = wanted.groups()
    if first:
        start, end = int(first), min(int(last or size), size - 1) + 1
    else:
        start, end = max(size - int(last), 0), size
    if start >= end:
        return Response(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
    return Response(content[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})
