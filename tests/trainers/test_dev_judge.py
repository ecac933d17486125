"""Judging while training: real models, real training steps."""

import multiprocessing
import os
import socket

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EarlyStoppingCallback

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint import MintForConditionalGeneration, MintProcessor
from tests.tiny import TITLES
from trainers.dev_judge import DevJudge
from trainers.evaluation import METRICS, predict_role
from trainers.joint_trainer import joint_trainer

OPTIONS = {"k": 5, "num_beams": 6, "batch_size": 4, "max_new_tokens": 6}
ROWS = [2, 7, 16, 36, 30]


def label_with(model, processor, make_sample) -> Dataset:
    """Dev samples labelled with what the model itself predicts, so that it is right about all of them."""
    asked = Dataset.from_list([make_sample(row) for row in ROWS], features=SAMPLE_FEATURES)
    samples = []
    for row, predicted in zip(ROWS, predict_role(asked, processor, model, **OPTIONS), strict=True):
        found = predicted["rows"][0]
        labels = {"docids": [TITLES[found]], "rows": [found], "provenance": [[TITLES[found]]]}
        samples.append(make_sample(row, answers=[predicted["answer"] or "nothing"], **labels))
    return Dataset.from_list(samples, features=SAMPLE_FEATURES)


@pytest.fixture
def own_samples(processor, make_sample):
    return lambda model: label_with(model, processor, make_sample)


@pytest.fixture(params=["rag", "gar"])
def model(make_model, request):
    return make_model(request.param)


def test_a_model_is_judged_by_what_it_retrieves_and_answers(model, make_model, processor, own_samples):
    judge = DevJudge(own_samples(model), processor, **OPTIONS)
    scores = judge(model)
    assert tuple(scores) == METRICS
    assert scores["r_precision"] == scores["recall@5"] == 1.0
    assert judge(make_model(model.config.role, seed=5))["r_precision"] < 1.0


def test_judging_leaves_the_model_in_the_state_it_came_in(model, processor, own_samples):
    samples = own_samples(model)
    model.train()
    model.activation_checkpointing_enable()
    model.config.use_cache = model.backbone.config.use_cache = False
    modes = {name: module.training for name, module in model.named_modules()}
    random_state = torch.get_rng_state()
    assert DevJudge(samples, processor, **OPTIONS)(model)["r_precision"] == 1.0
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert model.is_activation_checkpointing
    assert model.config.use_cache is False and model.backbone.config.use_cache is False
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_a_model_with_an_adapter_is_judged_with_it(model, processor, own_samples):
    samples = own_samples(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"), adapter_name=model.config.role)
    judge = DevJudge(samples, processor, **OPTIONS)
    assert judge(adapted)["r_precision"] == 1.0  # an untrained adapter changes nothing
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    assert judge(adapted)["r_precision"] < 1.0


def test_mixed_precision_is_the_callers(model, processor, own_samples):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = DevJudge(own_samples(model), processor, **OPTIONS)(model)
    assert scores["r_precision"] == 1.0


def test_without_samples_there_is_nothing_to_judge_by(model, processor, make_samples):
    with pytest.raises(ValueError, match="no dev sample"):
        DevJudge(make_samples([2]).select([]), processor)


def test_a_model_whose_weights_are_on_other_processes_is_refused(model, processor, make_samples):
    weight = next(model.parameters())
    weight.data = torch.empty(0)  # as ZeRO-3 leaves a weight between steps
    with pytest.raises(ValueError, match="spread over processes"):
        DevJudge(make_samples([2]), processor)(model)


@pytest.fixture
def judged(processor, own_samples, examples, training_arguments):
    """Trains a model that starts out right about all dev samples; its first step has a learning rate of 0."""

    def train(model, max_steps=6, callbacks=None, **arguments):
        arguments = training_arguments | {
            "max_steps": max_steps,
            "learning_rate": 0.5,
            "warmup_steps": 1,
            "lr_scheduler_type": "constant_with_warmup",
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_strategy": "steps",
            "save_steps": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_r_precision",
            **arguments,
        }
        judge = DevJudge(own_samples(model), processor, **OPTIONS)
        trainer = joint_trainer(
            model, arguments, examples, processor, eval_dataset=examples, judge=judge, callbacks=callbacks
        )
        trainer.train()
        return trainer, judge

    return train


def test_scores_are_logged_and_the_best_model_is_kept(make_model, judged):
    trainer, judge = judged(make_model("rag"), max_steps=3)
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3]
    assert all(0 <= entry[f"eval_{name}"] <= 1 for entry in logged for name in METRICS)
    assert logged[0]["eval_r_precision"] == 1.0 > logged[-1]["eval_r_precision"]
    assert trainer.state.best_metric == 1.0 and trainer.state.best_global_step == 1
    assert judge(trainer.model)["r_precision"] == 1.0


def test_training_stops_when_the_score_falls(make_model, judged):
    trainer, _ = judged(make_model("rag"), max_steps=20, callbacks=[EarlyStoppingCallback(early_stopping_patience=2)])
    assert trainer.state.global_step < 20


def test_a_judge_does_not_change_the_training(make_model, judged):
    quiet = {"load_best_model_at_end": False, "save_strategy": "no", "learning_rate": 1e-2}
    with_judge, _ = judged(make_model("gar"), max_steps=3, **quiet)
    without, _ = judged(make_model("gar"), max_steps=3, **quiet, eval_strategy="no")
    for one, other in zip(with_judge.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_scores_reach_tensorboard(make_model, judged, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    judged(make_model("rag"), max_steps=2, report_to="tensorboard")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [event.value for event in events.Scalars("eval/r_precision")][0] == 1.0
    assert "eval/kilt_em" in events.Tags()["scalars"]


def judge_as_process(rank: int, port: int, folder, samples: list[dict], results) -> None:
    """One of two processes: loads the model, judges, and tells its scores."""
    settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in settings.items()} | {"ACCELERATE_USE_CPU": "true"}
    model = MintForConditionalGeneration.from_pretrained(folder / "model")
    processor = MintProcessor.from_pretrained(folder / "model")
    judge = DevJudge(Dataset.from_list(samples, features=SAMPLE_FEATURES), processor, **OPTIONS)
    results.put((rank, judge(model)))
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work_and_agree_with_one(run_folders, models, processors, make_sample, tmp_path):
    processor, one = processors["llama"], models["llama", "rag"]
    samples = label_with(one, processor, make_sample)
    wrong = make_sample(3, docids=["DNA"], rows=[37], provenance=[["DNA"]])
    samples = Dataset.from_list([*samples, wrong], features=SAMPLE_FEATURES).select([5, 0, 1, 2, 3])
    expected = DevJudge(samples, processor, **OPTIONS)(one)
    assert 0 < expected["r_precision"] < 1
    (tmp_path / "model").symlink_to(run_folders["llama"] / "mint-rag")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (port, tmp_path, samples.to_list(), results)
    processes = [context.Process(target=judge_as_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    scores = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert scores == {0: expected, 1: expected}
