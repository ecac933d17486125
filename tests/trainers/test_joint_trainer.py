import pytest
import torch
from peft import LoraConfig
from transformers import Seq2SeqTrainer
from trl import SFTTrainer

from modeling_mint.tasks_mint import COMPONENTS
from trainers.collator import MintDataCollator
from trainers.joint_trainer import MintSeq2SeqTrainer, MintSFTTrainer, joint_trainer

LAMBDA_NAMES = [f"lambda_{component}" for component in COMPONENTS]
LORA = LoraConfig(r=4, target_modules=r".*\.(q_proj|v_proj|q|v)")


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
        assert log[f"loss_{COMPONENTS[component]}"] == pytest.approx(loss.item(), abs=1e-5)
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
    with torch.no_grad():
        losses = trainer._token_losses(model, trainer.data_collator(examples.to_list()))
        for row, example in zip(losses, examples, strict=True):
            alone = token_losses(model, example)
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-5)
            assert not row[len(alone) :].any()


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
        logged = trainer.state.log_history[0][f"loss_{COMPONENTS[component]}"]
        assert logged == pytest.approx(loss.item(), abs=1e-5)


def test_evaluation_logs_the_components_too(make_model, processor, examples, training_arguments, component_losses):
    arguments = training_arguments | {"per_device_eval_batch_size": 4}
    trainer = joint_trainer(make_model(), arguments, examples, processor, eval_dataset=examples)
    metrics = trainer.evaluate()
    for component, loss in component_losses(make_model(), examples).items():
        assert metrics[f"eval_loss_{COMPONENTS[component]}"] == pytest.approx(loss.item(), abs=1e-5)
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
    trainer = trained_loss(make_model(), examples, processor, arguments, peft_config=LORA)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    merged, initial = trainer.model.merge_and_unload().state_dict(), make_model().state_dict()
    changed = {name for name, value in initial.items() if not torch.equal(value, merged[name])}
    assert changed and all(name.split(".")[-2] in ("q_proj", "v_proj", "q", "v") for name in changed)


def test_an_adapter_starts_the_same_whatever_was_drawn_before(make_model, processor, examples, training_arguments):
    weights = []
    for earlier_draws in (0, 7):
        model = make_model()
        torch.rand(earlier_draws)
        trainer = joint_trainer(model, training_arguments, examples, processor, peft_config=LORA)
        weights.append({name: value.clone() for name, value in trainer.model.named_parameters()})
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_the_collator_fits_the_backbone(make_model, processor, examples, training_arguments, kind):
    collator = joint_trainer(make_model(), training_arguments, examples, processor).data_collator
    assert isinstance(collator, MintDataCollator)
    assert ("decoder_input_ids" in collator(examples.to_list()[:2])) == (kind == "t5")


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
def test_resuming_inside_a_later_epoch_ends_as_if_never_stopped(
    make_model, processor, examples, training_arguments, peft_config
):
    """Three steps an epoch; the checkpoint lies after the first step of the second one."""
    arguments = training_arguments | {"max_steps": 9, "save_strategy": "steps", "save_steps": 4}
    whole = trained_loss(make_model(), examples, processor, arguments, peft_config=peft_config)
    torch.rand(5)
    resumed = joint_trainer(make_model(), arguments, examples, processor, peft_config=peft_config)
    resumed.train(resume_from_checkpoint=f"{arguments['output_dir']}/checkpoint-4")
    final = resumed.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert_close(final[name], value, name, atol=0, rtol=0)
