"""Code in processes of their own: empty caches, one Hub, and the project's packages out of reach."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .server import HubServer

PROJECT = ("dataset_builders", "hub_cards", "modeling_mint", "trainers")
# An entry of None makes the import fail, even where the project is installed.
PREAMBLE = f"import json, os, sys\nsys.modules.update(dict.fromkeys({PROJECT}))\n"

# Beginning of scripts that use the client by itself.
API = """
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
api = HfApi()

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except HfHubHTTPError as error:
        return [type(error).__name__, error.response.status_code]
    except Exception as error:
        return [type(error).__name__, str(error)]

"""


def start_fresh(
    hub: HubServer, root: Path, code: str, *arguments: Any, token: str | None = HubServer.token
) -> subprocess.Popen:
    """
    Starts a script against the Hub. `json`, `os` and `sys` are imported already.

    Args:
        hub ([`HubServer`]):
            The only Hub that the process knows.
        root (`Path`):
            Folder to make the process's own folder in: it starts there, and keeps its caches there.
        code (`str`):
            The script.
        *arguments:
            What it finds in `sys.argv[1:]`, as strings.
        token (`str`, *optional*, defaults to the token that may write):
            Token to log in with; `None` for nobody.

    Returns:
        `subprocess.Popen`: the process; its output and errors are text pipes.
    """
    home = Path(tempfile.mkdtemp(dir=root))
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)],
        env=hub.environment(home / "hf", token),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_fresh(hub: HubServer, root: Path, code: str, *arguments: Any, token: str | None = HubServer.token) -> Any:
    """
    Runs a script against the Hub to its end, as [`start_fresh`].

    Returns:
        What the last line of its output says in JSON; `None` if it printed nothing.

    Raises:
        `AssertionError`: the script failed; the message holds its errors.
    """
    process = start_fresh(hub, root, code, *arguments, token=token)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1]) if output else None
