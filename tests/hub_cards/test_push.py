"""A push puts every artefact where it belongs, by the real client against a Hub on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hub_cards.push import plan_push, push_run
from tests.hub_server import HubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with HubServer(organizations=("my-org",)) as server:
        yield server


def push(run_folder, hub, *options, token=HubServer.token):
    """Runs the push in a process of its own: the client reads its endpoint and token at import."""
    environment = hub.environment(run_folder / ".hf", token) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hub_cards.push", "--org", "my-org", "--run", str(run_folder), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".hf" not in path.parts}


def test_push_puts_every_artefact_on_the_hub_and_leaves_the_run_alone(run_folder, hub):
    before = contents(run_folder)
    process = push(run_folder, hub)
    assert process.returncode == 0, process.stderr
    assert contents(run_folder) == before
    assert set(hub.store.repos) == {
        ("dataset", "my-org/mint-collection"),
        ("dataset", "my-org/mint-pseudo"),
        ("model", "my-org/mint-rag"),
        ("model", "my-org/mint-gar"),
        ("space", "my-org/mint-demo"),
    }

    assert hub.paths("my-org/mint-rag") == {
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_mint.py",
        "processor_config.json",
        "title_trie.safetensors",
    }
    weights = (run_folder / "mint-rag" / "model.safetensors").read_bytes()
    assert hub.read("my-org/mint-rag", "model.safetensors") == weights
    settings = json.loads(hub.read("my-org/mint-rag", "processor_config.json"))
    assert settings == {"role": "rag", "collection": "my-org/mint-collection"}
    assert b'model="my-org/mint-rag"' in hub.read("my-org/mint-rag", "README.md")

    card = yaml.safe_load(hub.read("my-org/mint-pseudo", "README.md", "dataset").split(b"---")[1])
    assert [config["config_name"] for config in card["configs"]] == ["basic", "auxiliary", "co_training"]
    assert card["source_datasets"] == ["my-org/mint-collection"]

    assert hub.paths("my-org/mint-demo", "space") == {"README.md", "app.py", "config.json", "requirements.txt"}
    assert json.loads(hub.read("my-org/mint-demo", "config.json", "space")) == {
        "rag_model": "my-org/mint-rag",
        "gar_model": "my-org/mint-gar",
        "collection_size": 3,
        "examples": ["Who designed the Eiffel Tower?", "Which river?"],
    }
    card = yaml.safe_load(hub.read("my-org/mint-demo", "README.md", "space").split(b"---")[1])
    assert card["models"] == ["my-org/mint-rag", "my-org/mint-gar"]


def test_revision_is_a_branch_of_its_own(run_folder, hub):
    process = push(run_folder, hub, "--revision", "v2", "--commit_message", "Second run")
    assert process.returncode == 0, process.stderr
    assert "config.json" in hub.paths("my-org/mint-gar", revision="v2")
    assert hub.paths("my-org/mint-gar") == set()


def test_pull_request_leaves_the_main_branch_as_it_was(run_folder, hub):
    process = push(run_folder, hub, "--create_pr")
    assert process.returncode == 0, process.stderr
    assert "discussions/1" in process.stderr
    assert hub.paths("my-org/mint-rag") == set()
    assert "config.json" in hub.paths("my-org/mint-rag", revision="refs/pr/1")


def test_no_token_is_told_before_anything_is_sent(run_folder, hub):
    process = push(run_folder, hub, token=None)
    assert process.returncode != 0
    assert "No Hugging Face token" in process.stderr
    assert hub.requests == []


def test_wrong_token_uploads_nothing(run_folder, hub):
    process = push(run_folder, hub, token="hf_wrong")
    assert process.returncode != 0
    assert "401" in process.stderr
    assert hub.store.repos == {}


def test_dry_run_lists_every_file(run_folder):
    collection, pseudo, rag, gar, space = push_run(run_folder, "my-org", dry_run=True)
    assert str(collection).startswith("dataset my-org/mint-collection: 2 files, ")
    assert str(gar).startswith("model my-org/mint-gar: 6 files, ")
    weights = (run_folder / "mint-rag" / "model.safetensors").stat().st_size
    assert f"  model.safetensors ({weights:,} bytes)" in str(rag).splitlines()
    assert "__pycache__" not in str(rag)
    assert len(pseudo.files) == 5
    assert space.repo_type == "space"


@pytest.mark.parametrize("lost", ["mint-rag/modeling_mint.py", "mint-gar/model.safetensors", "mint-pseudo/auxiliary"])
def test_incomplete_run_is_refused(run_folder, lost):
    for path in sorted((run_folder / lost).glob("*")) or [run_folder / lost]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="not complete"):
        push_run(run_folder, "my-org")


def test_card_with_a_missing_fact_stops_the_push(run_folder, run):
    del run["collection"]["license"]
    (run_folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="license"):
        plan_push(run_folder, "my-org")


def test_processor_without_a_collection_is_refused(run_folder):
    (run_folder / "mint-rag" / "processor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="names no collection"):
        plan_push(run_folder, "my-org")
