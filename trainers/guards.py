"""What may go wrong in an iteration of co-training, and how it is noticed."""

import logging
import math
import os
from pathlib import Path

import torch
from safetensors import safe_open

from .co_training_arguments import CoTrainingArguments

logger = logging.getLogger(__name__)


def is_finite(folder: str | os.PathLike, log_history: list[dict]) -> bool:
    """
    Whether a training stayed among the numbers.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the full model or adapter that it wrote.
        log_history (`list[dict]`):
            Its log. Trainer hides a loss of NaN in its own mean, but not in those of the components.

    Returns:
        `bool`: `False` if a loss or a weight is NaN or infinite.
    """
    losses = [value for entry in log_history for name, value in entry.items() if "loss" in name]
    if not all(map(math.isfinite, losses)):
        return False
    for path in Path(folder).glob("*model*.safetensors"):
        with safe_open(path, "pt") as weights:
            if not all(torch.isfinite(weights.get_tensor(name)).all() for name in weights.keys()):
                return False
    return True


def best_before_collapse(role: str, scores: dict, earlier: list[dict], arguments: CoTrainingArguments) -> dict | None:
    """
    Where to go back to, if a model's dev score collapsed.

    Args:
        role (`str`): the model's role.
        scores (`dict`): its dev scores.
        earlier (`list[dict]`): `dev_scores` by role of the earlier iterations, in their order.
        arguments ([`CoTrainingArguments`]): `dev_metric` and `max_dev_drop`.

    Returns:
        `dict`: the first of the earlier iterations with the role's best dev score, if the score is more than
        `max_dev_drop` below it; else `None`.
    """
    if not earlier:
        return None
    metric = arguments.dev_metric
    best = max(earlier, key=lambda judged: judged["dev_scores"][role][metric])
    drop = best["dev_scores"][role][metric] - scores[metric]
    return best if drop > arguments.max_dev_drop else None


def said(iteration: int, warnings: list[str]) -> list[str]:
    """Logs what went wrong in an iteration, and returns it for the report."""
    for warning in warnings:
        logger.warning("Iteration %d: %s", iteration, warning)
    return warnings
