"""The checkpoints that come with the project, as a user gets them: unpacked, served, asked."""

import json
import socket
import subprocess
import sys
import time

import pytest
import trained_checkpoints

from tests.examples.conftest import ROOT
from tests.hub_cards.pages import client_of

MOST_BYTES = 12_000_000


@pytest.mark.parametrize("role", trained_checkpoints.ROLES)
def test_an_adapter_is_small_and_its_card_states_its_scores(role):
    folder = trained_checkpoints.CHECKPOINTS / f"mint-{role}-adapter"
    assert (folder / "adapter_model.safetensors").stat().st_size <= MOST_BYTES
    run = json.loads((trained_checkpoints.CHECKPOINTS / "run.json").read_text(encoding="utf-8"))
    own = [row for row in run["evaluation"]["rows"] if row["system"] == role and row["subset"] == "all"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert len(own) == 1 and f"| {own[0]['r_precision']:.3f} |" in card


@pytest.mark.slow
def test_the_checkpoints_are_served_over_all_articles(tmp_path, environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples" / "serve.py"), f"--server_port={port}"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 300
        while (is_down := is_closed(port)) and time.monotonic() < deadline and server.poll() is None:
            time.sleep(0.5)
        assert not is_down, log.read_text()[-3000:]
        client = client_of(f"http://127.0.0.1:{port}")
        reply = client.predict("Which river flows through Cairo?", api_name="/ask")
        assert {"Cairo", "Nile"} & {document["title"] for document in reply["documents"][:2]}
        assert "10,033 documents" in reply["status"] and reply["answer"]
    finally:
        server.terminate()
        server.wait(timeout=30)
    folder = tmp_path / "outputs" / "checkpoints"
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert trained_checkpoints.unpack_checkpoints(folder) == folder
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def is_closed(port):
    """Whether nothing listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
