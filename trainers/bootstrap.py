"""How sure a mean over queries is: bootstrap intervals, and the paired bootstrap of two systems."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
"""Share of the resamples that an interval holds."""

_COUNTS_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """
    A mean over queries and its bootstrap interval.

    Attributes:
        mean (`float`): mean of the values.
        low, high (`float`): 2.5th and 97.5th percentile of the means of the resamples.
    """

    mean: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """
    How much better one system is than another on the same queries.

    Attributes:
        difference (`float`): mean of the first minus mean of the second.
        low, high (`float`): 2.5th and 97.5th percentile of the differences of the resamples.
        share_positive (`float`): share of the resamples in which the first is better.
    """

    difference: float
    low: float
    high: float
    share_positive: float


def bootstrap_interval(values: np.ndarray, *, num_resamples: int = 2000, seed: int = 0) -> Interval:
    """
    Interval of a mean score, by drawing as many queries as there are, with replacement.

    Args:
        values (`np.ndarray`):
            Score of each query, of shape `(num_queries,)`; or of each query by each seed, of shape `(num_seeds,
            num_queries)`: these are averaged over seeds, and queries are drawn.
        num_resamples (`int`, *optional*, defaults to 2000):
            How often to draw.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws. The same seed and number of queries give the same draws.

    Returns:
        [`Interval`]

    Raises:
        `ValueError`: if there are no queries, or the array has another number of dimensions.

    Example:

    ```python
    >>> bootstrap_interval(np.array([1.0, 1.0, 1.0]))
    Interval(mean=1.0, low=1.0, high=1.0)
    ```
    """
    return bootstrap_intervals({"": values}, num_resamples=num_resamples, seed=seed)[""]


def bootstrap_intervals(
    scores: Mapping[str, np.ndarray], *, num_resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """
    [`bootstrap_interval`] of several metrics on the same queries, from the same draws.

    Args:
        scores (`Mapping[str, np.ndarray]`):
            By metric, the values.
        num_resamples, seed:
            As for [`bootstrap_interval`].

    Returns:
        `dict[str, Interval]`: by metric.

    Raises:
        `ValueError`: as for [`bootstrap_interval`], and if metrics differ in the number of queries.
    """
    series = _by_query(scores)
    means = _resampled_means(series, num_resamples, seed)
    return {
        name: Interval(float(values.mean()), *_percentiles(means[:, column]))
        for column, (name, values) in enumerate(zip(scores, series, strict=True))
    }


def paired_bootstrap(a: np.ndarray, b: np.ndarray, *, num_resamples: int = 2000, seed: int = 0) -> PairedDifference:
    """
    Compares two systems on the same queries: each draw takes the same queries of both.

    Args:
        a, b (`np.ndarray`):
            Score of each query, of shape `(num_queries,)` or `(num_seeds, num_queries)`, in the same order of
            queries. Several seeds are averaged first, so that what is drawn are queries; the two systems may have
            different numbers of seeds.
        num_resamples, seed:
            As for [`bootstrap_interval`].

    Returns:
        [`PairedDifference`]: of `a` minus `b`.

    Raises:
        `ValueError`: if there are no queries, or `a` and `b` differ in their number.

    Example:

    ```python
    >>> paired_bootstrap(np.array([1.0, 1.0]), np.array([0.5, 0.5]))
    PairedDifference(difference=0.5, low=0.5, high=0.5, share_positive=1.0)
    ```
    """
    return paired_bootstraps({"": a}, {"": b}, num_resamples=num_resamples, seed=seed)[""]


def paired_bootstraps(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], *, num_resamples: int = 2000, seed: int = 0
) -> dict[str, PairedDifference]:
    """
    [`paired_bootstrap`] of the metrics that both systems have, from the same draws.

    Args:
        a, b (`Mapping[str, np.ndarray]`):
            By metric, the values.
        num_resamples, seed:
            As for [`bootstrap_interval`].

    Returns:
        `dict[str, PairedDifference]`: by metric, `a` minus `b`.

    Raises:
        `ValueError`: as for [`paired_bootstrap`].
    """
    names = [name for name in a if name in b]
    first, second = (_by_query({name: scores[name] for name in names}) for scores in (a, b))
    if first.shape != second.shape:
        raise ValueError(
            f"the systems were scored on {first.shape[1]} and {second.shape[1]} queries: compare them on the same ones"
        )
    differences = first - second
    resampled = _resampled_means(differences, num_resamples, seed)
    return {
        name: PairedDifference(
            float(values.mean()), *_percentiles(resampled[:, column]), float((resampled[:, column] > 0).mean())
        )
        for column, (name, values) in enumerate(zip(names, differences, strict=True))
    }


def _by_query(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """The metrics, averaged over seeds, as one array of shape `(num_metrics, num_queries)`."""
    series = []
    for name, values in scores.items():
        values = np.asarray(values, dtype=np.float64)
        if values.ndim not in (1, 2) or values.size == 0:
            raise ValueError(
                f"scores {name!r} have the shape {values.shape}: give (num_queries,) or (num_seeds, num_queries), "
                "with at least one query"
            )
        series.append(values.reshape(-1, values.shape[-1]).mean(0))
    if len({len(values) for values in series}) != 1:
        raise ValueError(f"expected metrics of the same queries, got {[len(values) for values in series]} queries")
    return np.stack(series)


def _resampled_means(series: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Means of resampled queries, of shape `(num_resamples, num_metrics)`, in pieces that fit in memory."""
    generator, num_queries = np.random.default_rng(seed), series.shape[1]
    rows_at_once = max(1, _COUNTS_AT_ONCE // num_queries)
    means = []
    for start in range(0, num_resamples, rows_at_once):
        rows = min(rows_at_once, num_resamples - start)
        drawn = generator.integers(num_queries, size=(rows, num_queries))
        # How often each query was drawn: one product with that gives the sums of all metrics.
        cells = drawn + num_queries * np.arange(rows)[:, None]
        counts = np.bincount(cells.ravel(), minlength=rows * num_queries).reshape(rows, num_queries)
        means.append(counts @ series.T / num_queries)
    return np.concatenate(means)


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
