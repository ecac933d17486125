"""KILT's scores as self-contained `evaluate` modules: one folder each, pushed to the Hub as it stands."""

from pathlib import Path

import evaluate

METRIC_NAMES = ("kilt_retrieval", "kilt_downstream")


def load_metric(name: str) -> evaluate.Metric:
    """
    Loads one of this folder's metrics, without asking the Hub. Its inputs stay in memory: `evaluate` would otherwise
    write them to a cache file that concurrent processes have to lock.

    Args:
        name (`str`):
            `"kilt_retrieval"` or `"kilt_downstream"`.

    Returns:
        `evaluate.Metric`: ready for `compute(predictions=..., references=...)`.

    Raises:
        `ValueError`: if there is no metric of that name.
    """
    if name not in METRIC_NAMES:
        raise ValueError(f"unknown metric {name!r}: choose one of {', '.join(METRIC_NAMES)}")
    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
