import json
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from modeling_mint import MintForConditionalGeneration, MintProcessor
from trainers.training_stage import TRAINING_LOG_NAME, train_stage

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


@pytest.mark.parametrize("state", [None, "", '{"global_step": 4, "log_hist'])
def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(
    state, make_model, processor, examples, stage_arguments, tmp_path
):
    cut_short = tmp_path / ".mint-rag.checkpoints" / "checkpoint-4"
    make_model(seed=1).save_pretrained(cut_short)
    if state is not None:
        (cut_short / "trainer_state.json").write_text(state)
    arguments = stage_arguments | {"save_strategy": "steps", "save_steps": 2}
    train_stage(make_model(), examples, processor, tmp_path / "mint-rag", arguments)
    train_stage(make_model(), examples, processor, tmp_path / "reference", arguments)
    assert_same_weights(tmp_path / "mint-rag", tmp_path / "reference")


def test_the_best_model_by_the_judge_is_the_one_that_is_written(
    make_model, processor, examples, stage_arguments, tmp_path
):
    judged, seen = iter([0.1, 0.9, 0.3]), []

    def judge(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"r_precision": next(judged)}

    class Steps(TrainerCallback):
        def __init__(self):
            self.count = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.count += 1

    steps = Steps()
    arguments = stage_arguments | {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    arguments |= {"load_best_model_at_end": True, "metric_for_best_model": "r_precision"}
    history = train_stage(
        make_model(),
        examples,
        processor,
        tmp_path / "mint-rag",
        arguments,
        torch.float32,
        eval_examples=examples,
        judge=judge,
        callbacks=[steps],
    )
    assert steps.count == 6
    assert [entry["eval_r_precision"] for entry in history if "eval_loss" in entry] == [0.1, 0.9, 0.3]
    written = load_file(tmp_path / "mint-rag" / "model.safetensors")
    assert all(torch.equal(value, seen[1][name]) for name, value in written.items())


def test_tied_weights_are_saved_once(make_model, processor, examples, stage_arguments, tmp_path, kind):
    model = make_model()
    model.backbone.config.tie_word_embeddings = model.config.tie_word_embeddings = True
    model.backbone.tie_weights()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    train_stage(model, examples, processor, tmp_path / "mint-rag", stage_arguments)
    written = load_file(tmp_path / "mint-rag" / "model.safetensors")
    assert len([name for name in written if "lm_head" in name or "embed_tokens" in name or "shared" in name]) == 1


def test_no_example_is_an_error_that_says_where_to_look(make_model, processor, examples, stage_arguments, tmp_path):
    with pytest.raises(ValueError, match="no training example for .*mint-gar: check the samples and `task_rates`"):
        train_stage(make_model(), examples.select([]), processor, tmp_path / "mint-gar", stage_arguments)
    assert not list(tmp_path.iterdir())


def test_all_weights_are_trained_and_saved_in_the_type_asked_for(
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
