"""The server as the tests use it: start it, point a process at it, break it, look into it."""

import os
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from . import collections, commits, files, repos  # noqa: F401  (their routes register themselves)
from .faults import Fault
from .handler import Handler, LoggedRequest
from .store import Account, Commit, Repo, Store

OWN_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHONPATH")


class HubServer(ThreadingHTTPServer):
    """
    A Hub that listens on the loopback address while the context is open.

    Args:
        organizations (`tuple[str, ...]`, *optional*, defaults to `("org",)`):
            Namespaces that the user may write to, besides the user's own (`"user"`).

    Attributes:
        url (`str`):
            Address for `HF_ENDPOINT`.
        token (`str`):
            Token that may write.
        read_token (`str`):
            Token of the same user that may only read.
        store ([`~hub_server.store.Store`]):
            What the Hub holds. A test may add accounts and change repositories.
        requests (`list[LoggedRequest]`):
            All requests, in order.
        page_size (`int`):
            Entries on one page of a tree.

    Example:

    ```python
    with HubServer() as hub:
        subprocess.run([sys.executable, "push.py"], env=hub.environment(tmp_path / "hf"), check=True)
        assert hub.read("org/model", "config.json") == b"{}"
    ```
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    token = "hf_write"
    read_token = "hf_read"

    def __init__(self, organizations: tuple[str, ...] = ("org",)):
        super().__init__(("127.0.0.1", 0), Handler)
        writer = Account("user", "write", organizations)
        reader = Account("user", "read", organizations)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.store = Store({self.token: writer, self.read_token: reader})
        self.requests: list[LoggedRequest] = []
        self.page_size = 1000
        self.lock = threading.Lock()
        self._faults: list[Fault] = []

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no event; anything else is a mistake in this server, and shows."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def environment(self, home: Path, token: str | None = token) -> dict[str, str]:
        """
        Variables for a fresh process that knows no other Hub than this one.

        Whatever the process asks of another host comes here too, as its proxy, and is refused: see [`strays`].

        Args:
            home (`Path`):
                Folder of the process's caches and settings; an empty one, or one that does not exist yet.
            token (`str`, *optional*, defaults to the token that may write):
                Token to log in with; `None` for nobody.

        Returns:
            `dict[str, str]`: the whole environment.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(OWN_VARIABLES) and not name.lower().endswith("_proxy")
        }
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "DO_NOT_TRACK": "1",
            "http_proxy": self.url,
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1,localhost",
        }
        return kept | own | ({} if token is None else {"HF_TOKEN": token})

    @property
    def strays(self) -> list[str]:
        """
        Addresses of other hosts that clients asked for, in order. They got nothing. The dataset viewer, which
        `datasets` looks for at `datasets-server.` before the Hub's own host name, is no stray.
        """
        own = ("/", "http://datasets-server.")
        return [request.path for request in self.requests if not request.path.startswith(own)]

    def fail(self, status: int = 503, *, headers: dict[str, str] | None = None, **which) -> None:
        """
        Answers a coming request with an error.

        Args:
            status (`int`, *optional*, defaults to 503):
                HTTP status.
            headers (`dict[str, str]`, *optional*):
                Headers of the answer, such as `{"Retry-After": "0"}`.
            **which:
                `nth`, `times`, `method` and `path_contains` of [`~hub_server.faults.Fault`].
        """
        self._faults.append(Fault(status=status, headers=headers or {}, **which))

    def cut(self, where: str, *, after: int = 0, **which) -> None:
        """
        Closes the connection of a coming request: in the middle of the `"request"` or of the `"response"`, after so
        many bytes of its body; `**which` as in [`fail`].
        """
        self._faults.append(Fault(cut=where, after=after, **which))

    def delay(self, seconds: float, **which) -> None:
        """Lets a coming request wait, and then answers it; `**which` as in [`fail`]."""
        self._faults.append(Fault(delay=seconds, **which))

    def fault_for(self, method: str, path: str) -> Fault:
        """What is to happen to a request; every fault that it fits counts it."""
        striking = [fault for fault in self._faults if fault.strikes(method, path)]
        return striking[0] if striking else Fault()

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        """A repository, with its `refs` and `commits`."""
        return self.store.repos[repo_type, repo_id]

    def paths(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> set[str]:
        """Paths of the files of a repository, without the `.gitattributes` that each is born with."""
        return set(self.repo(repo_id, repo_type).commit_at(revision).files) - {".gitattributes"}

    def read(self, repo_id: str, path: str, repo_type: str = "model", revision: str = "main") -> bytes:
        """Content of a file of a repository."""
        return self.repo(repo_id, repo_type).commit_at(revision).files[path].content

    def put_file(
        self, repo_id: str, path: str, content: bytes, repo_type: str = "model", revision: str = "main"
    ) -> Commit:
        """
        Changes a file behind the owner's back, as a commit of its own.

        Args:
            repo_id (`str`):
                Repository, which must exist.
            path (`str`):
                File, new or not.
            content (`bytes`):
                What it is to hold.
            repo_type (`str`, *optional*, defaults to `"model"`):
                `"model"`, `"dataset"` or `"space"`.
            revision (`str`, *optional*, defaults to `"main"`):
                Branch to commit to.

        Returns:
            `Commit`: the new commit.
        """
        with self.lock:
            return commits.put_file(self.repo(repo_id, repo_type), self.store.objects, path, content, revision)
