"""A push puts every artefact where it belongs, by the real client against a Hub on this machine."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from hub_cards.plan import plan_push
from hub_cards.push import push_run
from modeling_mint import MintForConditionalGeneration, MintPipeline, MintProcessor
from tests.hub_server import run_fresh

ROOT = Path(__file__).parents[2]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_push_puts_every_artefact_on_the_hub_and_leaves_the_run_alone(run_folder, hub, push):
    before = contents(run_folder)
    process = push(run_folder)
    assert process.returncode == 0, process.stderr
    assert contents(run_folder) == before
    assert set(hub.store.repos) == {
        ("dataset", "my-org/mint-collection"),
        ("dataset", "my-org/mint-pseudo"),
        ("model", "my-org/mint-rag"),
        ("model", "my-org/mint-gar"),
        ("model", "my-org/mint-docid-search"),
        ("space", "my-org/kilt_retrieval"),
        ("space", "my-org/kilt_downstream"),
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

    page = {path.name for path in (ROOT / "hub_cards" / "space").iterdir() if path.is_file()}
    assert hub.paths("my-org/mint-demo", "space") == page | {"config.json"}
    assert json.loads(hub.read("my-org/mint-demo", "config.json", "space")) == {
        "models": {"model": "my-org/mint-rag", "gar_model": "my-org/mint-gar"},
        "examples": ["Who designed the Eiffel Tower?", "Which river?"],
    }
    card = yaml.safe_load(hub.read("my-org/mint-demo", "README.md", "space").split(b"---")[1])
    assert card["models"] == ["my-org/mint-rag", "my-org/mint-gar"]


@pytest.mark.slow
def test_revision_is_a_branch_of_its_own(run_folder, hub, push):
    process = push(run_folder, "--revision", "v2", "--commit_message", "Second run")
    assert process.returncode == 0, process.stderr
    assert "config.json" in hub.paths("my-org/mint-gar", revision="v2")
    assert hub.paths("my-org/mint-gar") == set()


@pytest.mark.slow
def test_collection_ties_all_artefacts_together_and_is_made_once(run_folder, hub, push):
    for _ in range(2):
        process = push(run_folder)
        assert process.returncode == 0, process.stderr
    ((slug, collection),) = hub.store.collections.items()
    assert slug.startswith("my-org/mint-") and not collection["private"]
    assert {(item["type"], item["id"]) for item in collection["items"]} == set(hub.store.repos)
    assert all(item["note"]["text"] for item in collection["items"])
    assert slug in process.stderr


@pytest.mark.slow
def test_shards_of_an_older_run_are_taken_away_and_other_files_stay(run_folder, hub, push):
    assert push(run_folder).returncode == 0
    for path in ("data/train-00001-of-00002.parquet", "notes.md"):
        hub.put_file("my-org/mint-collection", path, b"old", "dataset")
    process = push(run_folder)
    assert process.returncode == 0, process.stderr
    assert hub.paths("my-org/mint-collection", "dataset") == {
        "README.md",
        "data/train-00000-of-00001.parquet",
        "notes.md",
    }


@pytest.mark.slow
def test_pull_request_leaves_the_main_branch_as_it_was(run_folder, hub, push):
    process = push(run_folder, "--create_pr")
    assert process.returncode == 0, process.stderr
    assert "discussions/1" in process.stderr
    assert hub.paths("my-org/mint-rag") == set()
    assert "config.json" in hub.paths("my-org/mint-rag", revision="refs/pr/1")
    assert hub.store.collections == {}


def test_pull_request_against_a_branch_is_refused(run_folder):
    with pytest.raises(ValueError, match="not both"):
        push_run(run_folder, "my-org", revision="v2", create_pr=True)


def test_no_token_is_told_before_anything_is_sent(run_folder, hub, push):
    process = push(run_folder, token=None)
    assert process.returncode != 0
    assert "No Hugging Face token" in process.stderr
    assert hub.requests == []


@pytest.mark.slow
def test_wrong_token_uploads_nothing(run_folder, hub, push):
    process = push(run_folder, token="hf_wrong")
    assert process.returncode != 0
    assert "401" in process.stderr
    assert hub.store.repos == {}


def test_dry_run_lists_every_file(run_folder):
    collection, pseudo, rag, gar, *modules, space = push_run(run_folder, "my-org", dry_run=True)
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


@pytest.mark.parametrize("stand_in", ["", "TODO", "[More Information Needed]"])
def test_card_with_an_unfilled_fact_stops_the_push(run_folder, run, stand_in):
    run["collection"]["attribution"] = stand_in
    (run_folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="collection.attribution, is not filled in"):
        push_run(run_folder, "my-org", dry_run=True)


def test_processor_without_a_collection_is_refused(run_folder):
    (run_folder / "mint-rag" / "processor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="names no collection"):
        plan_push(run_folder, "my-org")


@pytest.mark.slow
def test_run_without_merged_models_is_pushed_with_a_page_that_takes_its_adapters(adapter_run_folder, hub, push):
    for role in ("rag", "gar"):
        shutil.rmtree(adapter_run_folder / f"mint-{role}")
    process = push(adapter_run_folder)
    assert process.returncode == 0, process.stderr
    models = {"my-org/mint-base", "my-org/mint-rag-adapter", "my-org/mint-gar-adapter"}
    assert {repo_id for kind, repo_id in hub.store.repos if kind == "model"} == models | {"my-org/mint-docid-search"}
    assert json.loads(hub.read("my-org/mint-demo", "config.json", "space"))["models"] == {
        "model": "my-org/mint-base",
        "adapters": {"rag": "my-org/mint-rag-adapter", "gar": "my-org/mint-gar-adapter"},
    }
    card = yaml.safe_load(hub.read("my-org/mint-demo", "README.md", "space").split(b"---")[1])
    assert set(card["models"]) == models


# What a reader of the card does, in a process with an empty cache and without the project's packages.
ASK = """
from transformers import AutoModel, pipeline
adapters = {"rag": "my-org/mint-rag-adapter", "gar": "my-org/mint-gar-adapter"}
ask = pipeline("mint", model="my-org/mint-base", adapters=adapters, trust_remote_code=True)
question = "Who designed the Eiffel Tower?"
replies = {strategy: ask(question, strategy=strategy) for strategy in ("rag", "gar", "ensemble", "cascade")}
alone = AutoModel.from_pretrained("my-org/mint-gar-adapter", trust_remote_code=True)
answer = alone.answer([question], ask.processor).texts[0]
print(json.dumps({"replies": replies, "one": ask.models["rag"] is ask.models["gar"], "role": alone.config.role,
                  "answer": answer}))
"""


@pytest.mark.slow
def test_pushed_adapters_answer_from_the_hub_as_they_do_in_the_run(adapter_run_folder, hub, push, tmp_path):
    before = contents(adapter_run_folder)
    process = push(adapter_run_folder)
    assert process.returncode == 0, process.stderr
    assert contents(adapter_run_folder) == before
    assert hub.paths("my-org/mint-gar-adapter") == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
    }
    settings = json.loads(hub.read("my-org/mint-gar-adapter", "adapter_config.json"))
    assert settings["base_model_name_or_path"] == "my-org/mint-base"
    settings = json.loads(hub.read("my-org/mint-base", "processor_config.json"))
    assert settings["collection"] == "my-org/mint-collection"

    found = run_fresh(hub, tmp_path, ASK)
    assert found["one"] and found["role"] == "gar"
    assert found["answer"] == found["replies"]["gar"]["answer"]
    model = MintForConditionalGeneration.from_pretrained(adapter_run_folder / "mint-base")
    model.load_roles({role: adapter_run_folder / f"mint-{role}-adapter" for role in ("rag", "gar")})
    collection = Dataset.from_parquet(
        str(adapter_run_folder / "mint-collection/data/*.parquet"), cache_dir=str(tmp_path / "cache")
    )
    processor = MintProcessor.from_pretrained(adapter_run_folder / "mint-base", collection=collection)
    ask = MintPipeline(model, processor=processor)
    for strategy, reply in found["replies"].items():
        expected = ask("Who designed the Eiffel Tower?", strategy=strategy)
        assert reply["answer"] == expected["answer"]
        assert [one["row"] for one in reply["documents"]] == [one["row"] for one in expected["documents"]]


def test_run_that_lost_an_adapter_is_refused(adapter_run_folder):
    (adapter_run_folder / "mint-gar-adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="mint-gar-adapter holds no adapter_model.safetensors"):
        plan_push(adapter_run_folder, "my-org")
