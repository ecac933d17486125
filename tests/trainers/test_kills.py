"""A co-training run that is killed, at any moment, and started again ends like one that was left alone."""

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from tests.trainers.conftest import ARGUMENTS
from trainers.role_models import AdapterModels

# Two iterations with adapters on one base, from the folder of inputs to the folder of the run.
CO_TRAINING = """
import json, sys
from datasets import load_from_disk
from peft import LoraConfig
from modeling_mint import MintProcessor
from trainers.co_trainer import CoTrainer
from trainers.co_training_arguments import CoTrainingArguments
from trainers.confidence import ConfidenceArguments
from trainers.role_models import AdapterModels

source, target, lora, training, inference = sys.argv[1:]
processor = MintProcessor.from_pretrained(f"{source}/base", collection=load_from_disk(f"{source}/collection"))
CoTrainer(
    AdapterModels(f"{source}/base", processor, LoraConfig(**json.loads(lora))),
    {role: f"{source}/warm-{role}" for role in ("rag", "gar")},
    processor,
    labelled=load_from_disk(f"{source}/labelled"),
    validation=load_from_disk(f"{source}/validation"),
    unlabelled_rows=list(range(20, 40)),
    output_dir=target,
    training_arguments=json.loads(training),
    arguments=CoTrainingArguments(
        max_iterations=2, documents_per_iteration=8, block_size=2, max_dev_drop=1.0, query_temperature=1.0
    ),
    confidence=ConfidenceArguments(keep_fraction=0.5, max_round_trip_rank=0),
    inference_options=json.loads(inference),
    seed=3,
).run()
"""
LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.1}
INFERENCE = {"k": 3, "num_beams": 4, "batch_size": 2, "max_new_tokens": 4}
SHORT = {name: value for name, value in ARGUMENTS.items() if name != "output_dir"} | {"max_steps": 4}
TRAINING = SHORT | {"learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}


@pytest.fixture(params=["llama"])
def kind(request):
    """One kind of backbone: the steps and their files are the same for both."""
    return request.param


@pytest.fixture
def start(make_model, processor, make_samples, examples, tmp_path):
    """Starts a co-training run into a folder, in a process of its own."""
    source = tmp_path / "source"
    make_model().save_pretrained(source / "base")
    processor.save_pretrained(source / "base")
    processor.collection.save_to_disk(source / "collection")
    make_samples(range(10, 20)).save_to_disk(source / "labelled")
    make_samples([2, 5, 16]).save_to_disk(source / "validation")
    models = AdapterModels(source / "base", processor, LoraConfig(**LORA))
    for role in ("rag", "gar"):
        models.train(role, None, examples, source / f"warm-{role}", SHORT)

    def run(target):
        settings = [str(source), str(target), *map(json.dumps, (LORA, TRAINING, INFERENCE))]
        return subprocess.Popen(
            [sys.executable, "-c", CO_TRAINING, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    return run


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def ending(target: Path):
    """What a run ends with: its samples, scores and reports, its journal, and the weights of both iterations."""
    texts = {str(path.relative_to(target)): path.read_text() for path in target.glob("iteration-*/*.json*")}
    texts["state.json"] = (target / "state.json").read_text()
    weights = {
        str(path.relative_to(target)): load_file(path) for path in target.glob("iteration-*/mint-*/*.safetensors")
    }
    return texts, weights


def assert_same_ending(target, whole):
    texts, weights = ending(target)
    expected_texts, expected_weights = ending(whole)
    assert len(expected_texts) == 10 and len(expected_weights) == 4
    assert texts.keys() == expected_texts.keys() and weights.keys() == expected_weights.keys()
    for name, text in texts.items():
        assert text == expected_texts[name], name
    for name, tensors in weights.items():
        assert tensors.keys() == expected_weights[name].keys()
        assert all(torch.equal(tensors[key], expected_weights[name][key]) for key in tensors), name


def kill_when_there(process, target, pattern):
    while process.poll() is None and not list(target.glob(pattern)):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_kind_of_step_ends_like_one_left_alone(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    for moment in (
        "state.json",
        "iteration-0/*_predictions/*",
        "iteration-1/rag_written/block-00001.jsonl",
        "iteration-1/.mint-rag.checkpoints/checkpoint-2",
        "iteration-1/mint-rag",
        "iteration-1/dev_scores.json",
        "iteration-2/gar_written/block-00001.jsonl",
        "iteration-2/.mint-gar.checkpoints/checkpoint-1/*",
        "iteration-2/gar_predictions/*",
    ):
        kill_when_there(start(killed), killed, moment)
    finish(start(killed))
    assert_same_ending(killed, whole)


@pytest.mark.slow
def test_twenty_runs_killed_at_random_end_like_one_left_alone(start, tmp_path):
    """A kill each, spread over the time of a whole run: a random moment in each twentieth of it."""
    whole = tmp_path / "whole"
    began = time.monotonic()
    finish(start(whole))
    duration = time.monotonic() - began

    def kill_and_go_on(number: int) -> bool:
        """Whether the run was still there to be killed."""
        target = tmp_path / f"killed-{number}"
        process = start(target)
        try:
            process.wait(timeout=duration * (number + random.Random(number).random()) / 20)
            was_killed = False
        except subprocess.TimeoutExpired:
            process.kill()
            was_killed = True
        process.communicate()
        finish(start(target))
        assert_same_ending(target, whole)
        return was_killed

    with ThreadPoolExecutor(2) as pool:  # most of a run this small is start-up, on one core
        assert sum(pool.map(kill_and_go_on, range(20))) > 10
