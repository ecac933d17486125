"""Cards state the facts of the run, all of them, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard

from hub_cards.cards import adapter_card, collection_card, model_card, pseudo_card, render_cards, write_cards


def leaf_paths(facts, path=()):
    """Paths of all dict entries of a report, outer ones too."""
    for name, value in facts.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from leaf_paths(value, (*path, name))


def metadata(card):
    """The YAML block as any reader of the file gets it."""
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", str(card), re.DOTALL).group(1))


def test_model_card_states_the_facts_of_the_run(run):
    text = model_card(run, "rag").text
    for fact in ("160", "make demo", "0.5123", "learning_rate | 0.0002", "4321", "Seed", "10.1145/3726302.3729907"):
        assert fact.lower() in text.lower()
    assert "| co_training | rag | title_not_in_query | 0.500 | 0.750 | 0.200 | 0.200 | 0.200 | 0.200 |" in text
    assert "| baseline | bm25 | all | 0.500 | 0.750 | – | – | – | – |" in text


def test_model_card_metadata_survives_a_round_trip(run):
    card = model_card(run, "gar", org="my-org")
    found = metadata(card)
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found["datasets"] == ["my-org/mint-pseudo", "my-org/mint-collection"]
    assert {"mint", "generative-retrieval", "gar"} <= set(found["tags"])
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_model_index_holds_the_stage_that_the_weights_come_from_where_co_training_did_not_help(run):
    run["evaluation"]["published_stage"] = "warm_up"
    card = model_card(run, "gar")
    results = ModelCard(str(card)).data.eval_results
    assert {result.metric_value for result in results if result.metric_type == "em"} == {0.125}
    assert "**warm_up**" in card.text


def test_model_index_holds_the_published_stage_of_the_role_and_of_the_joint_strategies(run):
    results = ModelCard(str(model_card(run, "rag"))).data.eval_results
    exact = {
        (result.metric_args["strategy"], result.metric_args["subset"]): result.metric_value
        for result in results
        if result.metric_type == "em"
    }
    assert exact == {("rag", "all"): 0.25, ("rag", "title_not_in_query"): 0.2, ("ensemble", "all"): 0.5}
    assert {result.task_type for result in results} == {"text-retrieval", "question-answering"}


def test_code_block_names_what_was_pushed(run):
    (code,) = re.findall(r"```python\n(.*?)```", model_card(run, "rag", org="my-org").text, re.DOTALL)
    compile(code, "model card", "exec")
    assert 'model="my-org/mint-rag"' in code and 'gar_model="my-org/mint-gar"' in code


def test_dataset_cards_carry_licence_and_size(run):
    for card in (collection_card(run), pseudo_card(run)):
        found = metadata(card)
        assert found["license"] == "cc-by-sa-4.0"
        assert found["size_categories"] == ["n<1K"]
        assert "contributors of Wikipedia" in card.text


def test_every_missing_fact_is_refused(run):
    """Whatever the cards state cannot be taken away: what can be was never on a card."""
    unstated = {("llm", "license"), ("data", "basic", "validation")}
    free = {("training", "arguments"), ("training", "losses"), ("memory",), ("versions",), ("data", "co_training")}
    for path in leaf_paths(run):
        if path in unstated or any(path[:-1][: len(prefix)] == prefix for prefix in free):
            continue
        lacking = json.loads(json.dumps(run))
        parent = lacking
        for name in path[:-1]:
            parent = parent[name]
        del parent[path[-1]]
        with pytest.raises(ValueError, match=r"_card\.md, line \d+ .* run\.json does not hold"):
            for render in (lambda run: model_card(run, "rag"), collection_card, pseudo_card):
                render(lacking)


def test_a_null_is_refused(run):
    run["collection"]["license"] = None
    with pytest.raises(ValueError, match="it is null there"):
        collection_card(run)


def test_a_missing_metric_is_refused(run):
    del run["evaluation"]["rows"][0]["kilt_f1"]
    with pytest.raises(ValueError, match="kilt_f1"):
        model_card(run, "rag")


def test_a_model_that_was_not_evaluated_is_refused(run):
    run["evaluation"]["rows"] = [row for row in run["evaluation"]["rows"] if row["system"] != "gar"]
    with pytest.raises(ValueError, match="'gar'"):
        model_card(run, "gar")


def test_written_cards_keep_the_configs_that_load_the_data(run_folder, tmp_path):
    before = DatasetCard.load(run_folder / "mint-pseudo" / "README.md").data.configs
    write_cards(run_folder)
    write_cards(run_folder)
    card = DatasetCard.load(run_folder / "mint-pseudo" / "README.md")
    assert card.data.configs == before
    assert card.data.license == "cc-by-sa-4.0"
    auxiliary = load_dataset(str(run_folder / "mint-pseudo"), "auxiliary", split="train", cache_dir=str(tmp_path))
    assert auxiliary["query"] == ["What?"]
    assert not list(run_folder.rglob("*.tmp"))


def test_cards_need_a_finished_run(run_folder):
    (run_folder / "run.json").write_text('{"seed": 1,\n')
    with pytest.raises(ValueError, match=r"run\.json, line 2: not JSON"):
        write_cards(run_folder)
    (run_folder / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="finish the run first"):
        write_cards(run_folder)


def test_adapter_card_names_its_base_and_carries_its_results(run):
    card = adapter_card(run, "gar", org="my-org")
    found = metadata(card)
    assert (found["library_name"], found["base_model_relation"]) == ("peft", "adapter")
    assert found["base_model"] == "my-org/mint-base"
    assert 'adapters={"rag": "my-org/mint-rag-adapter", "gar": "my-org/mint-gar-adapter"}' in card.text
    assert card.data.eval_results == model_card(run, "gar", org="my-org").data.eval_results
    with pytest.raises(ValueError, match="'reader'"):
        adapter_card(run, "reader")


def test_cards_of_base_and_adapters_are_written_where_the_run_has_them(run_folder):
    write_cards(run_folder)
    assert len(list(run_folder.glob("*/README.md"))) == 4
    for folder in ("mint-base", "mint-rag-adapter", "mint-gar-adapter"):
        (run_folder / folder).mkdir()
    write_cards(run_folder)
    assert "has not been trained" in (run_folder / "mint-base" / "README.md").read_text()
    for card in run_folder.glob("*/README.md"):
        fences = re.findall(r"^.*```.*$", card.read_text(), re.MULTILINE)
        assert fences and all(fence.startswith("```") for fence in fences), card
    assert "# mint-rag-adapter" in (run_folder / "mint-rag-adapter" / "README.md").read_text()


def test_run_without_merged_models_has_cards_of_its_adapters_only(run_folder):
    for folder in ("mint-base", "mint-rag-adapter", "mint-gar-adapter"):
        (run_folder / folder).mkdir()
    for role in ("rag", "gar"):
        shutil.rmtree(run_folder / f"mint-{role}")
    expected = {"mint-base", "mint-rag-adapter", "mint-gar-adapter", "mint-collection", "mint-pseudo"}
    assert set(render_cards(run_folder)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mint-base", "mint-rag-adapter"])
def test_code_block_of_an_adapters_card_runs_as_it_stands(adapter_run_folder, tmp_path, folder):
    run_code_block(adapter_run_folder, tmp_path, folder)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mint-rag", "mint-gar", "mint-collection", "mint-pseudo"])
def test_code_block_of_a_card_runs_as_it_stands(real_run_folder, tmp_path, folder):
    run_code_block(real_run_folder, tmp_path, folder)


def run_code_block(run_folder, tmp_path, folder):
    """Runs the code of a card in the run's folder, in a process of its own."""
    write_cards(run_folder)
    (code,) = re.findall(r"```python\n(.*?)```", (run_folder / folder / "README.md").read_text(), re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=run_folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
