"""Routes of accounts and of repositories as a whole: create, delete, settings, info, branches, tags, history."""

import json

from .cards import card_metadata
from .http_messages import REPO, REVISION, Request, Response, route
from .store import Commit, HubError, Repo, check_rights


@route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Response:
    if request.account is None:
        raise HubError(401, "Invalid username or password.")
    account = request.account
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
    return Response({"type": "user", "name": account.name, "orgs": organizations, "auth": token})


@route("POST", "/api/repos/create")
def create(request: Request) -> Response:
    wish = request.json()
    kind, repo_id = _target(request)
    check_rights(request.account, repo_id.split("/")[0])
    if existing := request.store.repos.get((kind, repo_id)):
        raise HubError(409, f"You already created this {kind} repo", url=request.url + existing.url_path)
    repo = Repo(kind, repo_id, wish.get("visibility") == "private", wish.get("sdk"))
    request.store.repos[kind, repo_id] = repo
    return Response({"url": request.url + repo.url_path, "name": repo_id})


@route("DELETE", "/api/repos/delete")
def delete(request: Request) -> Response:
    kind, repo_id = _target(request)
    request.store.writable(kind, repo_id, request.account)
    del request.store.repos[kind, repo_id]
    return Response()


def _target(request: Request) -> tuple[str, str]:
    """Type and id of the repository to create or delete; one without a namespace is the user's own."""
    if request.account is None:
        raise HubError(401, "Log in first: this needs a token")
    wish = request.json()
    return wish.get("type", "model"), f"{wish['organization'] or request.account.name}/{wish['name']}"


@route("PUT", rf"{REPO}/settings")
def settings(request: Request, kind: str, repo_id: str) -> Response:
    repo = request.store.writable(kind, repo_id, request.account)
    wish = request.json()
    if "visibility" in wish:
        repo.private = wish["visibility"] == "private"
    repo.gated = wish.get("gated", repo.gated)
    return Response({"private": repo.private, "gated": repo.gated})


@route("GET", rf"{REPO}/auth-check")
def auth_check(request: Request, kind: str, repo_id: str) -> Response:
    request.store.readable_files(kind, repo_id, request.account)
    return Response()


@route("GET", r"/api/(?P<kind>model|dataset|space)s")
def list_repos(request: Request, kind: str) -> Response:
    author, search = (request.query.get(name, [""])[0] for name in ("author", "search"))
    found = []
    for (repo_kind, repo_id), repo in request.store.repos.items():
        visible = not repo.private or (request.account and request.account.is_member(repo.namespace))
        if repo_kind == kind and visible and author in ("", repo.namespace) and search.lower() in repo_id.lower():
            found.append(describe(repo, repo.commit_at("main"), request))
    return Response(found)


@route("GET", rf"{REPO}(?:/revision/{REVISION})?")
def info(request: Request, kind: str, repo_id: str, revision: str = "main") -> Response:
    repo = request.store.readable(kind, repo_id, request.account)
    return Response(describe(repo, repo.commit_at(revision), request))


def describe(repo: Repo, commit: Commit, request: Request) -> dict:
    """What the Hub tells of a repository at a commit; with `expand`, only what is asked for."""
    created = next(iter(repo.commits.values())).date
    readme = commit.files.get("README.md")
    card = card_metadata(readme.content) if readme else {}
    facts = {
        "author": repo.namespace,
        "sha": commit.sha,
        "createdAt": stamp(created),
        "lastModified": stamp(commit.date),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card),
        "cardData": card or None,
        "siblings": [_sibling(path, commit, request.flag("blobs")) for path in sorted(commit.files)],
        "usedStorage": sum(len(file.content) for file in commit.files.values()),
    }
    if repo.kind == "model":
        config = commit.files.get("config.json")
        settings = json.loads(config.content) if config else {}
        facts |= {"library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag")}
        facts["config"] = {name: settings[name] for name in ("architectures", "model_type") if name in settings}
    if repo.kind == "space":
        facts["sdk"] = repo.sdk
    wanted = request.query.get("expand", facts)
    return {"id": repo.id} | {name: value for name, value in facts.items() if name in wanted}


def _tags(card: dict) -> list[str]:
    tags = card.get("tags") or []
    named = [f"{name}:{card[name]}" for name in ("license", "base_model") if isinstance(card.get(name), str)]
    return [*([tags] if isinstance(tags, str) else tags), *named]


def _sibling(path: str, commit: Commit, with_blobs: bool) -> dict:
    file = commit.files[path]
    sibling = {"rfilename": path}
    if with_blobs:
        sibling |= {"size": len(file.content), "blobId": file.git_oid}
        if file.large:
            sibling["lfs"] = {"size": len(file.content), "sha256": file.sha256, "pointerSize": len(file.pointer)}
    return sibling


def stamp(date) -> str:
    """A time in the form of the Hub's answers."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@route("GET", rf"{REPO}/refs")
def refs(request: Request, kind: str, repo_id: str) -> Response:
    repo = request.store.readable(kind, repo_id, request.account)
    groups = {"branches": "refs/heads/", "tags": "refs/tags/", "converts": "refs/convert/", "pullRequests": "refs/pr/"}
    return Response(
        {
            group: [
                {"name": ref if group == "pullRequests" else ref.removeprefix(prefix), "ref": ref, "targetCommit": sha}
                for ref, sha in repo.refs.items()
                if ref.startswith(prefix)
            ]
            for group, prefix in groups.items()
        }
    )


@route("GET", rf"{REPO}/commits/{REVISION}")
def history(request: Request, kind: str, repo_id: str, revision: str) -> Response:
    repo = request.store.readable(kind, repo_id, request.account)
    commit, commits = repo.commit_at(revision), []
    while commit is not None:
        commits.append(
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.description,
                "date": stamp(commit.date),
                "authors": [{"user": commit.author}],
            }
        )
        commit = repo.commits.get(commit.parent)
    return Response(commits)


@route("POST", rf"{REPO}/(?P<ref_kind>branch|tag)/(?P<name>[^/]+)")
def create_ref(request: Request, kind: str, repo_id: str, ref_kind: str, name: str) -> Response:
    """A branch is named in the path and a tag in the body; the other place says from where."""
    repo = request.store.writable(kind, repo_id, request.account)
    wish = request.json()
    if ref_kind == "branch":
        ref, start = f"refs/heads/{name}", wish.get("startingPoint", "main")
    else:
        ref, start = f"refs/tags/{wish['tag']}", name
    if ref in repo.refs:
        raise HubError(409, f"Reference already exists: {ref}")
    repo.refs[ref] = repo.commit_at(start).sha
    return Response({"ref": ref})


@route("DELETE", rf"{REPO}/(?P<ref_kind>branch|tag)/(?P<name>[^/]+)")
def delete_ref(request: Request, kind: str, repo_id: str, ref_kind: str, name: str) -> Response:
    repo = request.store.writable(kind, repo_id, request.account)
    ref = f"refs/heads/{name}" if ref_kind == "branch" else f"refs/tags/{name}"
    if ref == "refs/heads/main":
        raise HubError(403, "The branch main cannot be deleted")
    if repo.refs.pop(ref, None) is None:
        raise HubError(404, f"Reference does not exist: {ref}", "RevisionNotFound")
    return Response()
