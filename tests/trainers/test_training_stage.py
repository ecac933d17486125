import json
import subprocess
import sys
import time

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from modeling_mint import MintForConditionalGeneration, MintProcessor
from trainers.training_stage import TRAINING_LOG_NAME, train_stage

LORA = LoraConfig(r=4, target_modules=r".*\.(q_proj|v_proj|q|v)")

STAGE = """
import json, sys, torch
from datasets import load_from_disk
from modeling_mint import MintForConditionalGeneration, MintProcessor
from trainers.training_stage import train_stage

source, target, arguments = sys.argv[1:]
processor = MintProcessor.from_pretrained(source, collection=load_from_disk(source + "/collection"))
model = MintForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
examples = load_from_disk(source + "/examples")
train_stage(model, examples, processor, target, json.loads(arguments), save_dtype=torch.float32)
"""


@pytest.fixture
def stage_arguments(training_arguments):
    return {name: value for name, value in training_arguments.items() if name != "output_dir"} | {"max_steps": 6}


class FullDisk(MintProcessor):
    """A processor that cannot be saved."""

    def save_pretrained(self, save_directory, **kwargs):
        raise OSError("No space left on device")


def test_the_stage_writes_one_whole_folder_and_leaves_nothing_else(
    make_model, processor, examples, stage_arguments, tmp_path
):
    target = tmp_path / "mint-rag"
    arguments = stage_arguments | {"save_strategy": "steps", "save_steps": 2}
    history = train_stage(make_model("rag"), examples, processor, target, arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["mint-rag"]
    assert json.loads((target / TRAINING_LOG_NAME).read_text()) == history
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    model = MintForConditionalGeneration.from_pretrained(target)
    assert model.config.role == "rag" and model.dtype == torch.bfloat16
    loaded = MintProcessor.from_pretrained(target, collection=processor.collection)
    assert loaded.trie.num_rows == processor.trie.num_rows


def test_a_stage_that_fails_in_training_leaves_no_folder(make_model, processor, examples, stage_arguments, tmp_path):
    beyond = len(processor.tokenizer) + 5
    broken = examples.map(lambda example: {"target_ids": [beyond, processor.tokenizer.eos_token_id]})
    with pytest.raises(IndexError):
        train_stage(make_model(), broken, processor, tmp_path / "mint-rag", stage_arguments)
    assert not (tmp_path / "mint-rag").exists()


def test_a_stage_that_fails_in_writing_leaves_the_older_folder_and_can_be_run_again(
    make_model, processor, examples, stage_arguments, tmp_path
):
    target = tmp_path / "mint-rag"
    target.mkdir()
    (target / "older").touch()
    full_disk = FullDisk(processor.tokenizer, processor.trie, processor.collection)
    with pytest.raises(OSError, match="No space left"):
        train_stage(make_model(), examples, full_disk, target, stage_arguments)
    assert [path.name for path in target.iterdir()] == ["older"]
    train_stage(make_model(), examples, processor, target, stage_arguments)
    assert not (target / "older").exists() and (target / TRAINING_LOG_NAME).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["mint-rag"]


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(
    make_model, processor, examples, stage_arguments, tmp_path
):
    cut_short = tmp_path / ".mint-rag.checkpoints" / "checkpoint-4"
    make_model(seed=1).save_pretrained(cut_short)
    arguments = stage_arguments | {"save_strategy": "steps", "save_steps": 2}
    train_stage(make_model(), examples, processor, tmp_path / "mint-rag", arguments)
    train_stage(make_model(), examples, processor, tmp_path / "reference", arguments)
    assert_same_weights(tmp_path / "mint-rag", tmp_path / "reference")


def test_no_example_is_an_error_that_says_where_to_look(make_model, processor, examples, stage_arguments, tmp_path):
    with pytest.raises(ValueError, match="no training example for .*mint-gar: check the samples and `task_rates`"):
        train_stage(make_model(), examples.select([]), processor, tmp_path / "mint-gar", stage_arguments)
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_merged_into_the_written_model(make_model, processor, examples, stage_arguments, tmp_path):
    arguments = stage_arguments | {"learning_rate": 1e-2}
    target = tmp_path / "mint-gar"
    train_stage(make_model("gar"), examples, processor, target, arguments, LORA, save_dtype=torch.float32)
    trained = MintForConditionalGeneration.from_pretrained(target, dtype=torch.float32).state_dict()
    initial = make_model("gar").state_dict()
    assert trained.keys() == initial.keys()
    changed = {name.split(".")[-2] for name, value in initial.items() if not torch.equal(value, trained[name])}
    assert changed and changed <= {"q_proj", "v_proj", "q", "v"}


def test_full_training_changes_what_an_adapter_leaves_alone(
    make_model, processor, examples, stage_arguments, tmp_path
):
    target = tmp_path / "mint-rag"
    train_stage(make_model(), examples, processor, target, stage_arguments, save_dtype=torch.float32)
    trained = MintForConditionalGeneration.from_pretrained(target).get_input_embeddings().weight
    assert trained.dtype == torch.float32
    assert not torch.equal(trained, make_model().get_input_embeddings().weight)


def assert_same_weights(folder, reference):
    weights, expected = (load_file(path / "model.safetensors") for path in (folder, reference))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_killed_stage_goes_on_and_ends_with_the_weights_of_one_left_alone(
    make_model, processor, examples, stage_arguments, tmp_path
):
    source = tmp_path / "source"
    make_model().save_pretrained(source)
    processor.save_pretrained(source)
    processor.collection.save_to_disk(source / "collection")
    examples.save_to_disk(source / "examples")
    arguments = stage_arguments | {"max_steps": 80, "save_strategy": "steps", "save_steps": 7, "save_total_limit": 2}

    def start(target):
        command = [sys.executable, "-c", STAGE, str(source), str(target), json.dumps(arguments)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    killed = start(tmp_path / "killed")
    while killed.poll() is None and not list(tmp_path.glob(".killed.checkpoints/checkpoint-*/trainer_state.json")):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -9, killed.stderr.read().decode()
    assert not (tmp_path / "killed").exists()

    again = start(tmp_path / "killed")
    assert again.wait() == 0, again.stderr.read().decode()
    assert start(tmp_path / "whole").wait() == 0
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")
