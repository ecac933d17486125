"""What the Hub holds: accounts, repositories with their commits and refs, large files, collections."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

LARGE_SUFFIXES = (".arrow", ".bin", ".gguf", ".gz", ".npy", ".parquet", ".png", ".pt", ".safetensors", ".zip")
LARGE_SIZE = 10 * 1024 * 1024
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES).encode()


class HubError(Exception):
    """
    A refusal, sent to the client as it stands.

    Args:
        status (`int`):
            HTTP status.
        message (`str`):
            What is wrong.
        code (`str`, *optional*):
            `X-Error-Code`, by which the client knows the kind: `"RepoNotFound"`, `"RevisionNotFound"`,
            `"EntryNotFound"` or `"GatedRepo"`.
        **facts:
            Other fields of the answer, such as the `url` of the repository that exists already.
    """

    def __init__(self, status: int, message: str, code: str | None = None, **facts):
        super().__init__(message)
        self.status, self.message, self.code, self.facts = status, message, code, facts


@dataclass(frozen=True)
class Account:
    """
    Whom a token belongs to.

    Args:
        name (`str`):
            User name, which is also a namespace of the user's own.
        role (`str`, *optional*, defaults to `"write"`):
            `"write"` or `"read"`: what the token allows.
        organizations (`tuple[str, ...]`, *optional*, defaults to `()`):
            Other namespaces that the user is a member of.
    """

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()

    def is_member(self, namespace: str) -> bool:
        """Whether the user sees what is private in a namespace."""
        return namespace in (self.name, *self.organizations)


@dataclass(frozen=True)
class File:
    """
    Content of a file, and whether the repository holds it as a large file (LFS).

    Args:
        content (`bytes`):
            The bytes that a download gives.
        large (`bool`):
            Whether git holds only a pointer to it.
    """

    content: bytes
    large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of a large file."""
        oid = f"oid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return f"version https://git-lfs.github.com/spec/v1\n{oid}".encode()

    @cached_property
    def git_oid(self) -> str:
        """Id of the blob, as git computes it."""
        blob = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def oid(self) -> str:
        """By which the client knows a file that it need not send or fetch again."""
        return self.sha256 if self.large else self.git_oid


@dataclass(frozen=True)
class Commit:
    """One state of a repository: all its files by path, and where it came from."""

    sha: str
    files: dict[str, File]
    parent: str | None
    title: str
    description: str
    author: str
    date: datetime


def is_large(path: str, size: int) -> bool:
    """Whether the Hub keeps a file as a large one. The client sends empty files in the commit, whatever their name."""
    return size > 0 and (path.endswith(LARGE_SUFFIXES) or size >= LARGE_SIZE)


class Repo:
    """
    A repository of any type, born with one commit as on the Hub.

    Args:
        kind (`str`):
            `"model"`, `"dataset"` or `"space"`.
        repo_id (`str`):
            Namespace and name, such as `"org/mint-rag"`.
        private (`bool`, *optional*, defaults to `False`):
            Whether only members of the namespace see it.
        sdk (`str`, *optional*):
            What a Space runs on, such as `"gradio"`.
    """

    def __init__(self, kind: str, repo_id: str, private: bool = False, sdk: str | None = None):
        self.kind, self.id, self.private, self.sdk = kind, repo_id, private, sdk
        self.namespace = repo_id.split("/")[0]
        self.gated: str | bool = False
        self.commits: dict[str, Commit] = {}
        self.refs: dict[str, str] = {}  # full name, such as "refs/heads/main", to sha
        first = self.add_commit({".gitattributes": File(GIT_ATTRIBUTES, large=False)}, None, "initial commit")
        self.refs["refs/heads/main"] = first.sha

    @property
    def url_path(self) -> str:
        return f"/{self.id}" if self.kind == "model" else f"/{self.kind}s/{self.id}"

    def full_ref(self, revision: str) -> str | None:
        """Full name of a branch, tag or pull request; `None` where there is none of that name."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request (`"refs/pr/1"`) or sha names."""
        sha = self.refs.get(self.full_ref(revision), revision)
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def add_commit(
        self, files: dict[str, File], parent: str | None, title: str, description: str = "", author: str = "hub"
    ) -> Commit:
        """Makes a commit; no ref names it yet."""
        parts = [self.id, str(len(self.commits)), str(parent), title]
        parts += [f"{path}\0{file.git_oid}" for path, file in sorted(files.items())]
        sha = hashlib.sha1("\0".join(parts).encode()).hexdigest()
        self.commits[sha] = Commit(sha, files, parent, title, description, author, datetime.now(UTC))
        return self.commits[sha]


@dataclass
class Store:
    """
    All that the Hub holds.

    Attributes:
        accounts (`dict[str, Account]`):
            Token to whom it belongs to.
        repos (`dict[tuple[str, str], Repo]`):
            Type and id to repository.
        objects (`dict[str, bytes]`):
            SHA-256 to content of the large files that were sent.
        collections (`dict[str, dict]`):
            Slug to collection, in the form in which the client gets it.
    """

    accounts: dict[str, Account]
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    collections: dict[str, dict] = field(default_factory=dict)

    def readable(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """The repository, if the account may know of it. The Hub does not say whether a hidden one exists."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and not (account and account.is_member(repo.namespace))):
            raise HubError(401 if account is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def readable_files(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """The repository, if the account may download from it."""
        repo = self.readable(kind, repo_id, account)
        if repo.gated and not (account and account.is_member(repo.namespace)):
            status = 401 if account is None else 403
            raise HubError(status, f"Access to {kind} {repo_id} is restricted. Ask for it on its page.", "GatedRepo")
        return repo

    def writable(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """The repository, if the account may change it."""
        repo = self.readable(kind, repo_id, account)
        check_rights(account, repo.namespace)
        return repo


def check_rights(account: Account | None, namespace: str) -> None:
    """Refuses whoever may not write to a namespace."""
    if account is None:
        raise HubError(401, "Log in first: this needs a token")
    if account.role != "write":
        raise HubError(403, "This token can only read: use one with the role 'write'")
    if not account.is_member(namespace):
        raise HubError(403, f"You have no right to write to the namespace '{namespace}'")
