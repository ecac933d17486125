"""How many examples of each task a training set holds."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modeling_mint.tasks_mint import TASKS

TASK_SAMPLING = ("proportional", "temperature", "explicit")


@dataclass(frozen=True)
class TaskSampling:
    """
    The sampling rate of each task. How much a task counts is another setting: the lambdas of [`JointLossArguments`]
    weigh component losses that are means over their own tokens, so that a task taken twice as often does not count
    twice.

    Args:
        mode (`str`, *optional*, defaults to `"proportional"`):
            One of `TASK_SAMPLING`. `"proportional"` takes the examples as they come. `"temperature"` takes
            n_task ** (1 / temperature) of each task, scaled so that the number of all examples, and with it the length
            of an epoch, stays what it was. `"explicit"` takes `rates`. With `rates`, `"proportional"` means
            `"explicit"`.
        temperature (`float`, *optional*, defaults to 2.0):
            Of `"temperature"`, at least 1: 1 is proportional, and the higher, the more even.
        rates (`dict[str, float]`, *optional*):
            Of `"explicit"`, how often a task's examples are taken: 0.5 takes half of them, 3 takes each three times.
            Tasks that are not named are taken once.

    Raises:
        ValueError: if a value is out of its range, a task is unknown, or `mode` and `rates` contradict each other.
    """

    mode: str = "proportional"
    temperature: float = 2.0
    rates: dict[str, float] | None = None

    def __post_init__(self):
        if self.mode not in TASK_SAMPLING:
            raise ValueError(f"`task_sampling` is {self.mode!r}; it must be one of {TASK_SAMPLING}.")
        if not self.temperature >= 1:
            raise ValueError(f"`sampling_temperature` is {self.temperature}; it must be at least 1 (proportional).")
        if self.mode == "temperature" and self.rates:
            raise ValueError("`task_rates` are given, but `task_sampling` is 'temperature': leave one of them out.")
        if self.mode == "explicit" and not self.rates:
            raise ValueError("`task_sampling` is 'explicit', but there are no `task_rates`.")
        for task, rate in (self.rates or {}).items():
            if task not in TASKS:
                raise ValueError(f"`task_rates` name the task {task!r}; the tasks are {', '.join(TASKS)}.")
            if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
                raise ValueError(f"`task_rates` give {task!r} the rate {rate!r}; it must be a number, at least 0.")

    def wanted(self, available: dict[str, int]) -> dict[str, int]:
        """
        How many examples of each task to take.

        Args:
            available (`dict[str, int]`): number of examples that there are of each task.

        Returns:
            `dict[str, int]`: number to take of each of them.
        """
        if self.mode == "temperature":
            powers = {task: number ** (1 / self.temperature) for task, number in available.items()}
            total, scale = sum(available.values()), sum(powers.values())
            return _rounded({task: total * power / scale for task, power in powers.items()}, total)
        rates = self.rates or {}
        return {task: round(number * rates.get(task, 1)) for task, number in available.items()}

    def copies(self, tasks: Sequence[str], seed: int) -> list[int]:
        """
        Draws the examples to take: all of a task before any of them a second time.

        Args:
            tasks (`Sequence[str]`): task of each example.
            seed (`int`): seed of the draws.

        Returns:
            `list[int]`: how often to take each example, 0 if not at all.
        """
        available = Counter(tasks)
        drawn = {}
        for task, number in self.wanted(available).items():
            passes, rest = divmod(number, available[task])
            # A seed of its own, so that what is drawn of a task does not depend on the others.
            once_more = set(random.Random(f"{seed}-{task}").sample(range(available[task]), rest))
            drawn[task] = iter([passes + (place in once_more) for place in range(available[task])])
        return [next(drawn[task]) for task in tasks]


def _rounded(shares: dict[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to `total`: rounded down, and one more for those that lost most by it."""
    numbers = {task: math.floor(share) for task, share in shares.items()}
    by_loss = sorted(shares, key=lambda task: numbers[task] - shares[task])
    for task in by_loss[: total - sum(numbers.values())]:
        numbers[task] += 1
    return numbers
