"""A push puts every artefact where it belongs, by the real client against a Hub on this machine."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from hub_server import TOKEN, HubServer

from hub_cards.push import plan_push, push_run


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


def push(run_folder, endpoint, *options, token=TOKEN):
    """Runs the push in a process of its own: the client reads its endpoint and token at import."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(run_folder / ".hf"), "HF_HUB_DISABLE_XET": "1"}
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "hub_cards.push", "--org", "my-org", "--run", str(run_folder), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".hf" not in path.parts}


def test_push_puts_every_artefact_on_the_hub_and_leaves_the_run_alone(run_folder, hub):
    before = contents(run_folder)
    process = push(run_folder, hub.endpoint)
    assert process.returncode == 0, process.stderr
    assert contents(run_folder) == before
    assert set(hub.repos) == {
        ("dataset", "my-org/mint-collection"),
        ("dataset", "my-org/mint-pseudo"),
        ("model", "my-org/mint-rag"),
        ("model", "my-org/mint-gar"),
        ("space", "my-org/mint-demo"),
    }

    model = hub.repos["model", "my-org/mint-rag"]["main"]
    assert set(model) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_mint.py",
        "processor_config.json",
        "title_trie.safetensors",
    }
    assert model["model.safetensors"] == (run_folder / "mint-rag" / "model.safetensors").read_bytes()
    assert json.loads(model["processor_config.json"]) == {"role": "rag", "collection": "my-org/mint-collection"}
    assert b'model="my-org/mint-rag"' in model["README.md"]

    pseudo = hub.repos["dataset", "my-org/mint-pseudo"]["main"]
    card = yaml.safe_load(pseudo["README.md"].split(b"---")[1])
    assert [config["config_name"] for config in card["configs"]] == ["basic", "auxiliary", "co_training"]
    assert card["source_datasets"] == ["my-org/mint-collection"]

    space = hub.repos["space", "my-org/mint-demo"]["main"]
    assert set(space) == {"README.md", "app.py", "config.json", "requirements.txt"}
    assert json.loads(space["config.json"]) == {
        "rag_model": "my-org/mint-rag",
        "gar_model": "my-org/mint-gar",
        "collection_size": 3,
        "examples": ["Who designed the Eiffel Tower?", "Which river?"],
    }
    assert yaml.safe_load(space["README.md"].split(b"---")[1])["models"] == ["my-org/mint-rag", "my-org/mint-gar"]


def test_revision_is_a_branch_of_its_own(run_folder, hub):
    process = push(run_folder, hub.endpoint, "--revision", "v2", "--commit_message", "Second run")
    assert process.returncode == 0, process.stderr
    repo = hub.repos["model", "my-org/mint-gar"]
    assert "config.json" in repo["v2"] and repo["main"] == {}


def test_pull_request_leaves_the_main_branch_as_it_was(run_folder, hub):
    process = push(run_folder, hub.endpoint, "--create_pr")
    assert process.returncode == 0, process.stderr
    assert "discussions/1" in process.stderr
    repo = hub.repos["model", "my-org/mint-rag"]
    assert repo["main"] == {} and "config.json" in repo["pr/1"]


def test_no_token_is_told_before_anything_is_sent(run_folder, hub):
    process = push(run_folder, hub.endpoint, token=None)
    assert process.returncode != 0
    assert "No Hugging Face token" in process.stderr
    assert hub.requests == []


def test_wrong_token_uploads_nothing(run_folder, hub):
    process = push(run_folder, hub.endpoint, token="hf_wrong")
    assert process.returncode != 0
    assert "401" in process.stderr
    assert hub.repos == {}


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
