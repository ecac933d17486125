from itertools import chain

import pytest
import torch
from datasets import Dataset
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from modeling_mint.tasks_mint import TASKS
from trainers.joint_trainer import joint_trainer
from trainers.packing import PaddingFreeCollator, pack_examples
from trainers.task_examples import EXAMPLE_FEATURES

MAX_LENGTH = 96


@pytest.fixture(params=["llama"])
def kind(request):
    """Rows without padding are for decoder-only backbones."""
    return request.param


def of_lengths(lengths):
    """Examples with so many tokens each; the ids tell them apart."""
    rows = [
        {
            "prompt_ids": [2 + index] * (length - 2),
            "target_ids": [2 + index, 1],
            "task": "query_to_docid",
            "component": 0,
            "weight": 1.0,
            "length": length,
        }
        for index, length in enumerate(lengths)
    ]
    return Dataset.from_list(rows, features=EXAMPLE_FEATURES)


def test_rows_hold_every_example_once_and_whole(examples):
    rows = pack_examples(examples, MAX_LENGTH)
    assert len(rows) <= len(examples) / 2 and max(rows["length"]) <= MAX_LENGTH
    for name in ("prompt_ids", "target_ids", "task", "component", "weight"):
        assert sorted(chain.from_iterable(rows[name])) == sorted(examples[name])
    for row in rows:
        own = [len(prompt) + len(target) for prompt, target in zip(row["prompt_ids"], row["target_ids"], strict=True)]
        assert row["length"] == sum(own)


def test_each_example_goes_where_it_fits_best():
    rows = pack_examples(of_lengths([3, 6, 4, 7, 3, 7]), 10)
    assert sorted(rows["length"]) == [10, 10, 10]


def test_an_example_longer_than_a_row_is_not_cut(caplog):
    rows = pack_examples(of_lengths([4, 15, 5, 25]), 10)
    assert rows["length"][:] == [25, 15, 9]
    assert [len(prompts) for prompts in rows["prompt_ids"]] == [1, 1, 2]
    assert "2 examples have more than 10 tokens" in caplog.text


def test_a_row_says_where_its_examples_and_targets_are():
    examples = [
        {"prompt_ids": [5, 6, 7], "target_ids": [8, 1], "task": "grounded_answer", "component": 1, "weight": 1.0},
        {"prompt_ids": [9], "target_ids": [5, 6, 1], "task": "query_to_docid", "component": 3, "weight": 0.25},
    ]
    batch = PaddingFreeCollator(packed=False)(examples)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch["logits_to_keep"].tolist() == [2, 3, 4, 5, 6]
    assert batch["labels"].tolist() == [[8, 1, 5, 6, 1]]
    assert batch["component"].tolist() == [[1, 1, 3, 3, 3]]
    answer, docid = (list(TASKS).index(name) for name in ("grounded_answer", "query_to_docid"))
    assert batch["task"].tolist() == [[answer, answer, docid, docid, docid]]
    assert batch["weight"].tolist() == [[1.0, 1.0, 0.25, 0.25, 0.25]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 4, 7]
    assert batch["max_length_q"] == batch["max_length_k"] == 4
    assert "attention_mask" not in batch
    row = {name: [example[name] for example in examples] for name in examples[0]}
    packed = PaddingFreeCollator(packed=True)([row])
    assert all(torch.equal(torch.as_tensor(packed[name]), torch.as_tensor(batch[name])) for name in batch)


def sequences_apart(module, query, key, value, attention_mask, scaling, cu_seq_lens_q=None, **kwargs):
    """What flash attention does with the borders that it is given: causal attention inside each sequence alone."""
    assert attention_mask is None and kwargs["max_length_q"] == cu_seq_lens_q.diff().max()
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    lengths = cu_seq_lens_q.diff().tolist()
    sequences = [
        torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True, scale=scaling)
        for parts in zip(*(states.split(lengths, 2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(sequences, dim=2).transpose(1, 2), None


AttentionInterface.register("sequences_apart", sequences_apart)
AttentionMaskInterface.register("sequences_apart", flash_attention_mask)


@pytest.fixture
def one_step(make_model, processor, training_arguments, gradients):
    """Log and gradient of one optimizer step over all examples."""

    def run(examples, attention, **options):
        model = make_model()
        model.set_attn_implementation(attention)
        arguments = training_arguments | {"gradient_accumulation_steps": 20, "train_sampling_strategy": "sequential"}
        trainer = joint_trainer(model, arguments | options, examples, processor, callbacks=[gradients])
        trainer.train()
        losses = {name: value for name, value in trainer.state.log_history[0].items() if "loss" in name}
        return losses, gradients.steps.pop()

    return run


@pytest.mark.parametrize("attention", ["eager", "sdpa", "sequences_apart"])
@pytest.mark.parametrize(
    "layout", [{"packing": True, "max_length": MAX_LENGTH, "per_device_train_batch_size": 2}, {"padding_free": True}]
)
def test_rows_without_padding_have_the_losses_and_the_gradient_of_padded_ones(one_step, examples, attention, layout):
    expected, reference = one_step(examples, "eager")
    losses, gradient = one_step(examples, attention, **layout)
    assert losses == pytest.approx(expected, abs=1e-5) and len(losses) > len(set(examples["component"]))
    assert gradient.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(gradient[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_do_not_depend_on_what_else_is_in_the_row(make_model, examples, attention):
    model = make_model()
    model.set_attn_implementation(attention)

    def logits(*rows):
        batch = PaddingFreeCollator(packed=False)([examples[row] for row in rows])
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "logits_to_keep")}
        with torch.no_grad():
            return model(**inputs, use_cache=False).logits[0]

    alone, after_one, after_another = logits(0), logits(1, 0), logits(2, 3, 0)
    torch.testing.assert_close(after_one[-len(alone) :], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after_another[-len(alone) :], alone, atol=1e-5, rtol=1e-5)


def test_packed_rows_are_evaluated_like_padded_ones(make_model, processor, examples, training_arguments):
    metrics = []
    for layout in ({}, {"packing": True, "max_length": MAX_LENGTH}):
        arguments = training_arguments | layout
        found = joint_trainer(make_model(), arguments, examples, processor, eval_dataset=examples).evaluate()
        metrics.append({name: value for name, value in found.items() if "loss" in name})
    assert metrics[1] == pytest.approx(metrics[0], abs=1e-5)


def test_packed_training_resumes_inside_an_epoch(make_model, processor, examples, training_arguments):
    arguments = training_arguments | {
        "packing": True,
        "max_length": MAX_LENGTH,
        "per_device_train_batch_size": 1,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole, resumed = (joint_trainer(make_model(), arguments, examples, processor) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=f"{arguments['output_dir']}/checkpoint-3")
    final = resumed.model.state_dict()
    assert all(torch.equal(final[name], value) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize("kind", ["t5"], indirect=True)
def test_an_encoder_decoder_is_told_to_group_by_length(make_model, processor, examples, training_arguments):
    for name in ("packing", "padding_free"):
        with pytest.raises(ValueError, match="decoder-only"):
            joint_trainer(make_model(), training_arguments | {name: True}, examples, processor)
    joint_trainer(make_model(), training_arguments | {"packing": False, "max_length": 64}, examples, processor)
