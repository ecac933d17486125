"""The order of examples in training: the same for one process and for many, and after an interruption."""

from collections.abc import Iterator

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(Sampler[int]):
    """
    Groups examples of similar length into the optimizer steps, in an order that the seed and the epoch alone decide.

    A run that goes on from a checkpoint inside an epoch therefore sees the examples that it had not seen yet, and
    several processes, which take turns at the micro-batches, see the steps that one process sees. The steps come in
    random order, since a task's examples are of similar length too; the step with the longest example comes first, so
    that what does not fit into memory shows at once.

    Args:
        step_size (`int`): examples of an optimizer step: all micro-batches, all processes.
        lengths (`list[int]`): tokens of each example.
        num_examples (`int`): number of examples before those that [`fill_up`] added; these come last.
        seed (`int`): seed of the order.
    """

    def __init__(self, step_size: int, lengths: list[int], num_examples: int, seed: int):
        self.step_size = step_size
        self.lengths = lengths
        self.num_examples = num_examples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch (counted from 0) whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        lengths = self.lengths[: self.num_examples]
        order = torch.tensor(get_length_grouped_indices(lengths, self.step_size, generator=generator))
        # The first step and a short last one keep their places.
        num_moved = max(self.num_examples // self.step_size - 1, 0)
        begin, end = self.step_size, self.step_size * (1 + num_moved)
        moved = order[begin:end].view(num_moved, self.step_size)[torch.randperm(num_moved, generator=generator)]
        yield from torch.cat([order[:begin], moved.flatten(), order[end:]]).tolist()
        yield from range(self.num_examples, len(self))


def fill_up(examples: Dataset, multiple: int) -> Dataset:
    """
    Adds copies of the shortest example, with weight 0, until the number of examples is a multiple of `multiple`.

    Several processes always work on batches of the same size, for which the data loader would repeat examples; these
    copies take their place and count nothing, neither in the loss nor in the token counts.

    Args:
        examples (`datasets.Dataset`): examples made by [`tokenize_examples`], or rows made by [`pack_examples`].
        multiple (`int`): examples of a micro-batch of all processes together.
    """
    missing = -len(examples) % multiple
    if missing == 0:
        return examples
    shortest = examples[int(np.argmin(examples["length"][:]))]
    shortest["weight"] = np.zeros_like(shortest["weight"]).tolist()
    return concatenate_datasets([examples, Dataset.from_list([shortest] * missing, features=examples.features)])
