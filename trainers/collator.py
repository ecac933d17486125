"""Batches of mixed tasks for either kind of backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from modeling_mint.tasks_mint import TASKS

IGNORED = -100
# What a batch says about its target tokens, beside their ids in `labels`.
TARGET_COLUMNS = ("component", "task", "weight")

_TASK_INDEX = {name: index for index, name in enumerate(TASKS)}


@dataclass
class MintDataCollator:
    """
    Pads tokenized examples (`task_examples.EXAMPLE_FEATURES`) into tensors.

    For a decoder-only backbone prompt and target are one sequence, padded on the left, so that all targets of a batch
    end in the last column and the language-model head runs on the last columns only. The target's last token predicts
    nothing and is left out of the input.

    Args:
        pad_token_id (`int`):
            Id that fills up.
        prepare_decoder_input_ids (`Callable`, *optional*):
            The model's `prepare_decoder_input_ids_from_labels`, for an encoder-decoder backbone.

    Returns (on call):
        `dict[str, torch.Tensor | int]`:
            - `input_ids`, `attention_mask` `(batch_size, length)`, int64;
            - decoder-only: `position_ids` `(batch_size, length)`, int64, and `logits_to_keep`, the target length;
            - encoder-decoder: `decoder_input_ids` `(batch_size, target_length)`, int64;
            - `labels` `(batch_size, target_length)`, int64: target ids, -100 where padded (decoder-only: on the left);
            - of each target token, with the shape of `labels`: `component` and `task`, int64, indices into
              `tasks_mint.COMPONENTS` and `tasks_mint.TASKS`, and `weight`, float32, 0 where padded.
    """

    pad_token_id: int
    prepare_decoder_input_ids: Callable | None = None

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor | int]:
        prompts = [example["prompt_ids"] for example in examples]
        targets = [example["target_ids"] for example in examples]
        decoder_only = self.prepare_decoder_input_ids is None
        labels = pad(targets, IGNORED, left=decoder_only)
        component, task, weight = (column[:, None] for column in target_columns(examples))
        batch = {
            "labels": labels,
            "component": component.repeat(1, labels.shape[1]),
            "task": task.repeat(1, labels.shape[1]),
            "weight": weight * (labels != IGNORED),
        }
        sequences = prompts
        if decoder_only:
            sequences = [prompt + target[:-1] for prompt, target in zip(prompts, targets, strict=True)]
        batch["input_ids"] = pad(sequences, self.pad_token_id, left=decoder_only)
        batch["attention_mask"] = pad([[1] * len(sequence) for sequence in sequences], 0, left=decoder_only)
        if not decoder_only:
            batch["decoder_input_ids"] = self.prepare_decoder_input_ids(labels)
            return batch
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        batch["logits_to_keep"] = labels.shape[1]
        return batch


def target_columns(examples: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Component, task (int64) and weight (float32) of each example, each of shape `(num_examples,)`."""
    return (
        torch.tensor([example["component"] for example in examples]),
        torch.tensor([_TASK_INDEX[example["task"]] for example in examples]),
        torch.tensor([example["weight"] for example in examples], dtype=torch.float32),
    )


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> torch.LongTensor:
    """Sequences as the rows of one int64 tensor, filled up with `value` on the right, or on the left."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    column = torch.arange(int(lengths.max()))
    own = column >= len(column) - lengths[:, None] if left else column < lengths[:, None]
    padded = torch.full(own.shape, value)
    padded[own] = torch.tensor(list(chain.from_iterable(sequences)), dtype=torch.int64)
    return padded
