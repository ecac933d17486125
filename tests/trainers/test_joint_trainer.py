import json
import os
import socket
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import multiprocessing
from transformers import EarlyStoppingCallback, Seq2SeqTrainer
from transformers.utils import is_liger_kernel_available
from trl import SFTTrainer

from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.tasks_mint import COMPONENTS, TASKS
from trainers.collator import IGNORED, MintDataCollator
from trainers.epoch_sampler import EpochSampler
from trainers.joint_trainer import MintSeq2SeqTrainer, MintSFTTrainer, joint_trainer

LAMBDA_NAMES = [f"lambda_{component}" for component in COMPONENTS]
LOSS_NAMES = ["loss_retrieval", "loss_generation", "loss_auxiliary", "loss_exchange_gar_to_rag"]
LORA = LoraConfig(r=4, target_modules=r".*\.(q_proj|v_proj|q|v)")


def with_adapters(model, *names):
    """A PeftModel with adapters of these names, of which the first is active."""
    torch.manual_seed(0)
    adapted = get_peft_model(model, LORA, adapter_name=names[0])
    for name in names[1:]:
        adapted.add_adapter(name, LORA)
    return adapted


@pytest.fixture
def train_step(make_model, processor, training_arguments, gradients):
    """Trains for one optimizer step on all of `examples`; returns the log entry and the step's gradient."""

    def run(examples, **arguments):
        arguments = {**training_arguments, "train_sampling_strategy": "sequential", **arguments}
        trainer = joint_trainer(make_model(), arguments, examples, processor, callbacks=[gradients])
        trainer.train()
        return trainer.state.log_history[0], gradients.steps[0]

    return run


def assert_close(value, expected, name, **tolerance):
    torch.testing.assert_close(value, expected, msg=lambda text: f"{name}: {text}", **tolerance)


def assert_step_equals_reference(log, gradient, model, losses, lambdas):
    """`losses`: {component: L_c}, computed one example at a time on the same weights."""
    joint = sum(lambdas[component] * loss for component, loss in losses.items())
    joint.backward()
    assert log["loss"] == pytest.approx(joint.item(), abs=1e-5)
    for component, loss in losses.items():
        assert log[LOSS_NAMES[component]] == pytest.approx(loss.item(), abs=1e-5)
    reference = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert gradient.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(
            gradient[name], value, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: name + text
        )


def test_each_backbone_gets_the_trainer_of_its_kind(make_model, processor, examples, training_arguments, kind):
    trainer = joint_trainer(make_model(), training_arguments, examples, processor)
    expected = {"llama": (MintSFTTrainer, SFTTrainer), "t5": (MintSeq2SeqTrainer, Seq2SeqTrainer)}[kind]
    assert isinstance(trainer, expected)


def test_a_padded_batch_of_mixed_tasks_has_the_losses_of_its_examples(
    make_model, processor, examples, training_arguments, token_losses
):
    trainer = joint_trainer(make_model(), training_arguments, examples, processor)
    model = trainer.model.eval()
    batch = trainer.data_collator(examples.to_list())
    with torch.no_grad():
        losses = trainer._token_losses(model, batch)
        for row, labels, example in zip(losses, batch["labels"], examples, strict=True):
            padded = labels == IGNORED
            torch.testing.assert_close(row[~padded], token_losses(model, example), atol=1e-5, rtol=1e-5)
            assert not row[padded].any()


@pytest.mark.parametrize("lambdas", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 0.0, 1.5)])
def test_a_step_over_uneven_micro_batches_equals_the_weighted_sum_of_separate_losses(
    train_step, make_model, examples, component_losses, lambdas
):
    """Examples come sample by sample, so that the micro-batches differ in composition; the last one is short."""
    arguments = dict(zip(LAMBDA_NAMES, lambdas, strict=True))
    log, gradient = train_step(examples, per_device_train_batch_size=5, gradient_accumulation_steps=10, **arguments)
    assert len(examples) % 5 and set(examples["component"]) == set(range(len(COMPONENTS)))
    model = make_model()
    assert_step_equals_reference(log, gradient, model, component_losses(model, examples), lambdas)


def test_the_split_into_micro_batches_does_not_matter(train_step, make_model, examples, component_losses):
    log, gradient = train_step(examples, per_device_train_batch_size=len(examples))
    model = make_model()
    assert_step_equals_reference(log, gradient, model, component_losses(model, examples), (1.0,) * 4)


def test_a_component_that_is_absent_counts_nothing(train_step, make_model, examples, component_losses):
    absent = COMPONENTS.index("generation")
    examples = examples.filter(lambda component: component != absent, input_columns="component")
    log, gradient = train_step(examples, per_device_train_batch_size=3, gradient_accumulation_steps=10)
    assert "loss_generation" not in log
    model = make_model()
    assert_step_equals_reference(log, gradient, model, component_losses(model, examples), (1.0,) * 4)


def test_label_smoothing_is_that_of_torch(train_step, make_model, examples, component_losses):
    log, gradient = train_step(
        examples, per_device_train_batch_size=4, gradient_accumulation_steps=10, label_smoothing_factor=0.1
    )
    model = make_model()
    losses = component_losses(model, examples, label_smoothing=0.1)
    assert_step_equals_reference(log, gradient, model, losses, (1.0,) * 4)


def test_samples_without_any_confidence_teach_nothing(train_step, examples):
    exchange = COMPONENTS.index("exchange")
    examples = examples.filter(lambda component: component == exchange, input_columns="component")
    log, gradient = train_step(examples.map(lambda example: {"weight": 0.0}), per_device_train_batch_size=4)
    assert log["loss"] == 0.0
    assert not any(value.any() for value in gradient.values())


def test_logged_components_are_means_over_all_tokens_since_the_last_log(
    make_model, processor, examples, training_arguments, component_losses
):
    """With a learning rate of 0 the model stays, so that two steps together are one pass over the examples."""
    arguments = training_arguments | {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 3,
        "logging_steps": 2,
        "max_steps": 2,
        "learning_rate": 0.0,
    }
    trainer = joint_trainer(make_model(), arguments, examples, processor)
    assert 9 < len(examples) <= 18
    trainer.train()
    for component, loss in component_losses(make_model(), examples).items():
        logged = trainer.state.log_history[0][LOSS_NAMES[component]]
        assert logged == pytest.approx(loss.item(), abs=1e-5)


def test_evaluation_gives_the_joint_loss_of_the_whole_set_and_its_components(
    make_model, processor, examples, training_arguments, component_losses
):
    arguments = training_arguments | {"per_device_eval_batch_size": 4}
    lambdas = (0.5, 2.0, 0.0, 1.5)
    arguments |= dict(zip(LAMBDA_NAMES, lambdas, strict=True))
    trainer = joint_trainer(make_model(), arguments, examples, processor, eval_dataset=examples)
    metrics = trainer.evaluate()
    losses = component_losses(make_model(), examples)
    joint = sum(lambdas[component] * loss.item() for component, loss in losses.items())
    assert metrics["eval_loss"] == pytest.approx(joint, abs=1e-5)
    for component, loss in losses.items():
        assert metrics[f"eval_{LOSS_NAMES[component]}"] == pytest.approx(loss.item(), abs=1e-5)
    assert trainer.state.log_history[-1]["eval_loss_retrieval"] == metrics["eval_loss_retrieval"]


def trained_loss(model, examples, processor, arguments, **options):
    trainer = joint_trainer(model, arguments, examples, processor, **options)
    trainer.train()
    return trainer


def test_lambdas_choose_what_is_learnt(make_model, processor, examples, training_arguments, component_losses):
    arguments = training_arguments | {"max_steps": 12, "learning_rate": 1e-2}
    before = component_losses(make_model(), examples)
    drops = {}
    for only in ("retrieval", "auxiliary"):
        lambdas = {name: float(name == f"lambda_{only}") for name in LAMBDA_NAMES}
        model = trained_loss(make_model(), examples, processor, arguments | lambdas).model.eval()
        component = COMPONENTS.index(only)
        after = component_losses(model, examples)
        drops[only] = {c: (before[c] - after[c]).item() for c in before}
        assert drops[only][component] > 0.1
    retrieval, auxiliary = COMPONENTS.index("retrieval"), COMPONENTS.index("auxiliary")
    assert drops["retrieval"][retrieval] - drops["retrieval"][auxiliary] > (
        drops["auxiliary"][retrieval] - drops["auxiliary"][auxiliary]
    )


def test_training_lowers_every_component(make_model, processor, examples, training_arguments, component_losses):
    before = component_losses(make_model(), examples)
    arguments = training_arguments | {"max_steps": 20, "learning_rate": 1e-2}
    model = trained_loss(make_model(), examples, processor, arguments).model.eval()
    after = component_losses(model, examples)
    assert all(after[component] < before[component] for component in before)


def test_lora_trains_the_adapter_only(make_model, processor, examples, training_arguments):
    arguments = training_arguments | {"max_steps": 5, "learning_rate": 1e-2}
    trainer = trained_loss(with_adapters(make_model(), "default"), examples, processor, arguments)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    merged, initial = trainer.model.merge_and_unload().state_dict(), make_model().state_dict()
    changed = {name for name, value in initial.items() if not torch.equal(value, merged[name])}
    assert changed and all(name.split(".")[-2] in ("q_proj", "v_proj", "q", "v") for name in changed)


def test_the_collator_fits_the_backbone(make_model, processor, examples, training_arguments, kind):
    collator = joint_trainer(make_model(), training_arguments, examples, processor).data_collator
    assert isinstance(collator, MintDataCollator)
    assert ("decoder_input_ids" in collator(examples.to_list()[:2])) == (kind == "t5")


@pytest.mark.parametrize("adapters", [(), ("rag", "gar")], ids=["full", "lora"])
def test_resuming_inside_a_later_epoch_ends_as_if_never_stopped(
    make_model, processor, examples, training_arguments, adapters
):
    """Three steps an epoch; the checkpoint lies after the first step of the second one."""

    def make():
        return with_adapters(make_model(), *adapters) if adapters else make_model()

    arguments = training_arguments | {"max_steps": 9, "save_strategy": "steps", "save_steps": 4}
    whole = trained_loss(make(), examples, processor, arguments)
    torch.rand(5)
    resumed = joint_trainer(make(), arguments, examples, processor)
    checkpoint = Path(arguments["output_dir"], "checkpoint-4")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    final = resumed.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert_close(final[name], value, name, atol=0, rtol=0)
    if adapters:
        assert (checkpoint / "adapter_model.safetensors").is_file()
        assert not any((checkpoint / adapter).exists() for adapter in adapters)


def test_only_the_active_adapter_learns(make_model, processor, examples, training_arguments):
    model = with_adapters(make_model(), "rag", "gar")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trained_loss(model, examples, processor, training_arguments | {"max_steps": 3})
    after = trainer.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(".rag." in name for name in changed)


class Judge:
    """Scores for the evaluations of a run in order; keeps the weights that it was shown."""

    def __init__(self, scores):
        self.scores = list(scores)
        self.seen = []

    def __call__(self, model):
        assert isinstance(model, MintForConditionalGeneration)
        assert not model.training and not torch.is_grad_enabled()
        self.seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"r_precision": self.scores[len(self.seen) - 1]}


@pytest.mark.parametrize("adapters", [(), ("rag", "gar")], ids=["full", "lora"])
def test_the_model_that_the_judge_liked_best_is_restored_bit_for_bit(
    make_model, processor, examples, training_arguments, adapters
):
    arguments = training_arguments | {
        "max_steps": 8,
        "learning_rate": 1e-2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_r_precision",
        "greater_is_better": True,
    }
    judge = Judge([0.1, 0.5, 0.4, 0.3, 0.9, 0.8, 0.7, 0.6])
    model = with_adapters(make_model(), *adapters) if adapters else make_model()
    stopper = EarlyStoppingCallback(early_stopping_patience=2)
    trainer = trained_loss(
        model, examples, processor, arguments, eval_dataset=examples, judge=judge, callbacks=[stopper]
    )
    assert trainer.state.global_step == 4 and trainer.state.best_global_step == 2
    assert [log["eval_r_precision"] for log in trainer.state.log_history if "eval_loss" in log] == judge.scores[:4]
    restored = trainer.model.base_model.model if adapters else trainer.model
    for name, value in restored.state_dict().items():
        assert_close(value, judge.seen[1][name], name, atol=0, rtol=0)
    assert any(not torch.equal(value, judge.seen[3][name]) for name, value in restored.state_dict().items())


def test_every_task_has_its_own_loss(train_step, make_model, processor, examples, training_arguments, token_losses):
    log, _ = train_step(examples, per_device_train_batch_size=3, gradient_accumulation_steps=20)
    metrics = joint_trainer(make_model(), training_arguments, examples, processor, eval_dataset=examples).evaluate()
    tasks = set(examples["task"])
    assert [name for name in log if name.startswith("task_loss_")] == [f"task_loss_{t}" for t in TASKS if t in tasks]
    model = make_model()
    for task in tasks:
        own = [example for example in examples if example["task"] == task]
        total = sum(one["weight"] * token_losses(model, one).sum().item() for one in own)
        expected = total / sum(one["weight"] * len(one["target_ids"]) for one in own)
        assert log[f"task_loss_{task}"] == pytest.approx(expected, abs=1e-5)
        assert metrics[f"eval_task_loss_{task}"] == pytest.approx(expected, abs=1e-5)


def test_the_exchange_loss_names_writer_and_learner(make_model, processor, examples, training_arguments):
    trainer = trained_loss(make_model("gar"), examples, processor, training_arguments | {"max_steps": 3})
    assert any("loss_exchange_rag_to_gar" in log for log in trainer.state.log_history)


def test_a_short_last_step_of_an_epoch_is_exact_too(
    make_model, processor, examples, training_arguments, gradients, component_losses
):
    arguments = training_arguments | {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 1,
        "max_steps": -1,
        "learning_rate": 0.0,
        "train_sampling_strategy": "sequential",
    }
    trainer = trained_loss(make_model(), examples, processor, arguments, callbacks=[gradients])
    assert len(examples) % 8 in range(1, 7)
    last = examples.select(range(len(examples) // 8 * 8, len(examples)))
    logs = [log for log in trainer.state.log_history if "loss" in log]
    model = make_model()
    assert len(logs) == len(gradients.steps) == len(examples) // 8 + 1
    assert_step_equals_reference(logs[-1], gradients.steps[-1], model, component_losses(model, last), (1.0,) * 4)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        pytest.param({"torch_compile": True, "torch_compile_backend": "aot_eager"}, marks=pytest.mark.slow),
    ],
    ids=["gradient_checkpointing", "torch_compile"],
)
def test_how_the_step_is_computed_does_not_matter(train_step, make_model, examples, component_losses, options):
    """Micro-batches of several shapes, for which `torch.compile` compiles again."""
    log, gradient = train_step(examples, per_device_train_batch_size=5, gradient_accumulation_steps=20, **options)
    model = make_model()
    losses = component_losses(model, examples)
    assert_step_equals_reference(log, gradient, model, losses, (1.0,) * 4)


def test_mixed_precision_is_near(train_step, make_model, examples, component_losses):
    log, _ = train_step(examples, per_device_train_batch_size=4, gradient_accumulation_steps=10, bf16=True)
    for component, loss in component_losses(make_model(), examples).items():
        assert log[LOSS_NAMES[component]] == pytest.approx(loss.item(), rel=1e-2)


def test_the_model_is_as_before_when_its_trainer_is_gone(make_model, processor, examples, training_arguments):
    model = make_model()
    trained_loss(model, examples, processor, training_arguments)
    assert "forward" not in vars(model)


@pytest.mark.skipif(is_liger_kernel_available(), reason="liger-kernel is installed")
def test_liger_kernels_that_are_not_installed_are_named(make_model, processor, examples, training_arguments):
    with pytest.raises(ImportError, match="liger-kernel"):
        joint_trainer(make_model(), training_arguments | {"use_liger_kernel": True}, examples, processor)


def test_the_order_depends_on_seed_and_epoch_alone_and_holds_everything_once():
    lengths = [(7 * i) % 41 + 1 for i in range(203)]
    orders = []
    for epoch in (0, 1, 0):
        sampler = EpochSampler(8, lengths, num_examples=200, seed=3)
        sampler.set_epoch(epoch)
        torch.rand(epoch + 1)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(203)) and orders[-1][200:] == [200, 201, 202]
        assert lengths[orders[-1][0]] == max(lengths[:200])
        steps = torch.tensor([lengths[index] for index in orders[-1][:200]]).view(-1, 8)
        assert (steps.max(1).values - steps.min(1).values).float().mean() < 8
    assert orders[0] == orders[2] != orders[1]


def two_processes(rank, port, runs):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for run in runs:
        run_and_write(*run)
    torch.distributed.destroy_process_group()


def run_and_write(model_folder, examples, tokenizer, arguments, resume):
    """Trains and evaluates; writes logs and final weights into the run's folder."""
    model = MintForConditionalGeneration.from_pretrained(model_folder)
    trainer = joint_trainer(model, arguments, examples, MintProcessor(tokenizer), eval_dataset=examples)
    trainer.train(resume_from_checkpoint=resume)
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        folder = Path(arguments["output_dir"])
        logs = [log for log in trainer.state.log_history if "loss" in log]
        (folder / "logs.json").write_text(json.dumps({"train": logs, "eval": metrics}))
        model.save_pretrained(folder / "final")


@pytest.fixture(scope="module")
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def losses_of(folder):
    logs = json.loads((folder / "logs.json").read_text())
    return [{name: log[name] for name in log if "loss" in name} for log in (*logs["train"], logs["eval"])]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(make_model, processor, examples, training_arguments, tmp_path, free_port):
    """Three epochs of two steps, the second one short; the last run goes on from a checkpoint inside an epoch."""
    examples = examples.select(range(11))
    make_model().save_pretrained(tmp_path / "model")
    common = training_arguments | {
        "max_steps": 6,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 3,
        "ddp_backend": "gloo",
    }
    one, two, again = (
        common | {"output_dir": str(tmp_path / name), "per_device_train_batch_size": size}
        for name, size in (("one", 4), ("two", 2), ("again", 2))
    )
    start = (tmp_path / "model", examples, processor.tokenizer)
    run_and_write(*start, one | {"ddp_backend": None}, None)
    runs = [(*start, two, None), (*start, again, str(tmp_path / "two" / "checkpoint-3"))]
    multiprocessing.spawn(two_processes, (free_port, runs), nprocs=2)
    expected = losses_of(tmp_path / "one")
    assert len(expected) == 7
    for value, reference in zip(losses_of(tmp_path / "two"), expected, strict=True):
        assert value == pytest.approx(reference, abs=1e-4)
    assert losses_of(tmp_path / "again")[-4:] == losses_of(tmp_path / "two")[-4:]
    finals = [
        MintForConditionalGeneration.from_pretrained(tmp_path / name / "final").state_dict()
        for name in ("one", "two", "again")
    ]
    for name, value in finals[1].items():
        assert_close(finals[2][name], value, name, atol=0, rtol=0)
        assert_close(finals[0][name], value, name, atol=1e-4, rtol=1e-3)
