"""Pages of Spaces, each served by a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio_client import Client


def client_of(url: str) -> Client:
    """A client (`gradio_client.Client`) of a page, patient enough for a machine that is busy otherwise."""
    return Client(url, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 60})


@contextmanager
def served(folder: Path, environment: dict[str, str]) -> Iterator[Client]:
    """
    Runs `app.py` of a folder as a Space does, until the context is left.

    Args:
        folder (`Path`):
            Folder of the Space's files.
        environment (`dict[str, str]`):
            Variables of the process.

    Yields:
        `gradio_client.Client`: a client of the page, once it is up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with open(folder / "log", "wb") as log:
        page = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment | own, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while page.poll() is None and not _answers(port) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert page.poll() is None and _answers(port), (folder / "log").read_text()
        yield client_of(f"http://127.0.0.1:{port}")
    finally:
        page.terminate()
        page.wait(timeout=30)


def offline_environment(home: Path) -> dict[str, str]:
    """Variables for a page that needs no Hub, with caches of its own and the project's packages out of its path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
