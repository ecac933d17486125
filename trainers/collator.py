"""Batches of mixed tasks for either kind of backbone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

IGNORED = -100


@dataclass
class MintDataCollator:
    """
    Pads tokenized examples (`task_examples.EXAMPLE_FEATURES`) into tensors.

    For a decoder-only backbone the prompt is padded on the left and the target on the right, so that all targets of a
    batch start in the same column and the language-model head runs on the target columns only.

    Args:
        pad_token_id (`int`):
            Id that fills up.
        prepare_decoder_input_ids (`Callable`, *optional*):
            The model's `prepare_decoder_input_ids_from_labels`, for an encoder-decoder backbone.

    Returns (on call):
        `dict[str, torch.Tensor]`:
            - `input_ids`, `attention_mask` `(batch_size, length)`, int64; decoder-only: `position_ids` too;
            - `decoder_input_ids` `(batch_size, target_length)`, int64: encoder-decoder only;
            - `labels` `(batch_size, target_length)`, int64: target ids, -100 where padded;
            - `component` `(batch_size,)`, int64; `weight` `(batch_size,)`, float32.
    """

    pad_token_id: int
    prepare_decoder_input_ids: Callable | None = None

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        prompts = [example["prompt_ids"] for example in examples]
        targets = [example["target_ids"] for example in examples]
        labels = _pad(targets, IGNORED)
        batch = {
            "labels": labels,
            "component": torch.tensor([example["component"] for example in examples]),
            "weight": torch.tensor([example["weight"] for example in examples], dtype=torch.float32),
        }
        if self.prepare_decoder_input_ids is not None:
            batch["input_ids"] = _pad(prompts, self.pad_token_id)
            batch["attention_mask"] = _pad([[1] * len(prompt) for prompt in prompts], 0)
            batch["decoder_input_ids"] = self.prepare_decoder_input_ids(labels)
            return batch
        target_mask = labels != IGNORED
        target_ids = labels.masked_fill(~target_mask, self.pad_token_id)
        prompt_mask = _pad([[1] * len(prompt) for prompt in prompts], 0, left=True)
        batch["input_ids"] = torch.cat([_pad(prompts, self.pad_token_id, left=True), target_ids], dim=1)
        batch["attention_mask"] = torch.cat([prompt_mask, target_mask.long()], dim=1)
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return batch


def _pad(sequences: list[list[int]], value: int, left: bool = False) -> torch.LongTensor:
    """Sequences as the rows of one tensor, filled up with `value`."""
    padded = torch.full((len(sequences), max(map(len, sequences))), value)
    for row, sequence in zip(padded, sequences, strict=True):
        place = slice(len(row) - len(sequence), None) if left else slice(len(sequence))
        row[place] = torch.tensor(sequence)
    return padded
