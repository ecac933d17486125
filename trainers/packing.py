"""Several examples in one row without any padding, for decoder-only backbones."""

import logging
from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from .collator import target_columns

logger = logging.getLogger(__name__)

_COLUMNS = ("prompt_ids", "target_ids", "task", "component", "weight")


def pack_examples(examples: Dataset, max_length: int) -> Dataset:
    """
    Joins whole examples into rows of at most `max_length` tokens, best fit decreasing: the longest first, each into
    the row that it fills up best. An example that is longer than `max_length` is not cut: it makes a row of its own.

    Args:
        examples (`datasets.Dataset`): examples made by [`tokenize_examples`].
        max_length (`int`): tokens of a row.

    Returns:
        `datasets.Dataset`: one row for each group; every column holds the list of its examples' values, but for
        `length`, which is the row's number of tokens.
    """
    lengths = np.asarray(examples["length"][:])
    rows: list[list[int]] = []
    rows_with_space = defaultdict(list)
    spaces: list[int] = []  # keys of `rows_with_space`, ascending
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        place = bisect_left(spaces, length)
        if place == len(spaces):
            row, space = len(rows), max_length - length
            rows.append([index])
        else:
            space = spaces[place]
            row = rows_with_space[space].pop()
            if not rows_with_space[space]:
                del rows_with_space[space], spaces[place]
            rows[row].append(index)
            space -= length
        if space > 0:
            if space not in rows_with_space:
                insort(spaces, space)
            rows_with_space[space].append(row)
    order = list(chain.from_iterable(rows))
    starts = np.cumsum([0] + [len(row) for row in rows], dtype=np.int32)
    table = examples.select(order).with_format("arrow")[:]
    columns = {name: pa.ListArray.from_arrays(starts, table[name].combine_chunks()) for name in _COLUMNS}
    row_lengths = np.add.reduceat(lengths[order], starts[:-1])
    too_long = int((lengths > max_length).sum())
    if too_long:
        logger.warning("%d examples have more than %d tokens: each makes a row of its own.", too_long, max_length)
    logger.info("Packed %d examples into %d rows of %.0f tokens.", len(order), len(rows), row_lengths.mean())
    return Dataset(pa.table(columns | {"length": pa.array(row_lengths, pa.int32())}))


@dataclass
class PaddingFreeCollator:
    """
    Lays examples one behind the other in a single row.

    Position ids begin at 0 with each example, which is how transformers tells the examples of a row apart when there
    is neither an attention mask nor a cache (`use_cache=False`): none attends to another. Flash attention gets their
    borders directly and runs on sequences of their own lengths. The language-model head runs on the positions that
    predict a target only; the target's last token predicts nothing and is left out of the input.

    Args:
        packed (`bool`): whether the rows come from [`pack_examples`] or are single examples.

    Returns (on call):
        `dict[str, torch.Tensor | int]`:
            - `input_ids`, `position_ids` `(1, num_tokens)`, int64;
            - `logits_to_keep` `(num_targets,)`, int64: the positions that predict a target;
            - `labels`, `component`, `task`, int64, and `weight`, float32, `(1, num_targets)`, see
              [`MintDataCollator`];
            - `cu_seq_lens_q`, `cu_seq_lens_k` `(num_examples + 1,)`, int32, and `max_length_q`, `max_length_k`: where
              the examples begin and end, and the longest one, for flash attention.
    """

    packed: bool

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        examples = rows
        if self.packed:
            values = {name: list(chain.from_iterable(row[name] for row in rows)) for name in _COLUMNS}
            examples = [dict(zip(values, example, strict=True)) for example in zip(*values.values(), strict=True)]
        prompt_lengths = torch.tensor([len(example["prompt_ids"]) for example in examples])
        target_lengths = torch.tensor([len(example["target_ids"]) for example in examples])
        lengths = prompt_lengths + target_lengths - 1
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        tokens = chain.from_iterable(part for one in examples for part in (one["prompt_ids"], one["target_ids"][:-1]))
        positions = torch.arange(int(starts[-1])) - starts[:-1].repeat_interleave(lengths)
        predicts_target = positions >= (prompt_lengths - 1).repeat_interleave(lengths)
        component, task, weight = (
            column.repeat_interleave(target_lengths)[None] for column in target_columns(examples)
        )
        borders, longest = starts.to(torch.int32), int(lengths.max())
        return {
            "input_ids": torch.tensor(list(tokens), dtype=torch.int64)[None],
            "position_ids": positions[None],
            "logits_to_keep": predicts_target.nonzero()[:, 0],
            "labels": torch.tensor(list(chain.from_iterable(one["target_ids"] for one in examples)))[None],
            "component": component,
            "task": task,
            "weight": weight,
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": longest,
            "max_length_k": longest,
        }
