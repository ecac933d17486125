"""Scores of each query by KILT's metrics, and their means over groups of queries, with bootstrap intervals."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .bootstrap import bootstrap_intervals, paired_bootstraps
from .evaluation import title_in_query
from .kilt_predictions import GoldQuery, Prediction
from .metrics.kilt_downstream import kilt_downstream
from .metrics.kilt_retrieval import kilt_retrieval

ANSWER_METRICS = ("accuracy", "em", "f1", "rougel")


def query_scores(
    gold: Sequence[GoldQuery], predictions: Sequence[Prediction], ks: Iterable[int] = (1, 5, 10)
) -> dict[str, np.ndarray]:
    """
    Scores each query.

    Args:
        gold (`Sequence[GoldQuery]`):
            Labelled queries.
        predictions (`Sequence[Prediction]`):
            One prediction per query, in the same order.
        ks (`Iterable[int]`, *optional*, defaults to `(1, 5, 10)`):
            Cut-offs.

    Returns:
        `dict[str, np.ndarray]`: by the names of `kilt_retrieval` and `kilt_downstream`, `float64` arrays of shape
        `(num_queries,)`, values in [0, 1]. Without the latter's where no prediction has an answer, or no query a
        reference answer to compare one with.

    Raises:
        `ValueError`: if only some of the predictions have an answer, or an answer nothing to be compared with.
    """
    ks = list(ks)
    scores = [
        kilt_retrieval.score_query(one.docids, query.provenance, ks)
        for query, one in zip(gold, predictions, strict=True)
    ]
    if _answers_are_scored(gold, predictions):
        for query, one, row in zip(gold, predictions, scores, strict=True):
            try:
                row |= kilt_downstream.score_query(one.answer, query.answers, one.docids, query.provenance)
            except ValueError as error:
                raise ValueError(f"query '{query.id}': {error}") from None
    return {name: np.array([row[name] for row in scores], dtype=np.float64) for name in scores[0]}


def _answers_are_scored(gold: Sequence[GoldQuery], predictions: Sequence[Prediction]) -> bool:
    silent = [query.id for query, one in zip(gold, predictions, strict=True) if one.answer is None]
    if silent and len(silent) < len(gold):
        raise ValueError(
            f"{len(silent)} of {len(gold)} predictions have no 'answer' in their one output, such as that for "
            f"'{silent[0]}': give each an answer (an empty one counts as wrong), or none."
        )
    answered = any(one.answer and one.answer.strip() for one in predictions)
    return not silent and (any(query.answers for query in gold) or not answered)


def kilt_result(scores: Mapping[str, np.ndarray]) -> dict:
    """
    Means over all queries under the names of KILT's own scorer.

    Args:
        scores (`Mapping[str, np.ndarray]`):
            What [`query_scores`] gave.

    Returns:
        `dict`: "downstream", "kilt" (both `None` where answers are not scored) and "retrieval".
    """
    means = {name: float(values.mean()) for name, values in scores.items()}
    retrieval = {name: mean for name, mean in means.items() if "@" in name}
    answers = "em" in means
    return {
        "downstream": {name: means[name] for name in ANSWER_METRICS} if answers else None,
        "kilt": {f"KILT-{name}": means[f"kilt_{name}"] for name in ANSWER_METRICS} if answers else None,
        "retrieval": {"Rprec": means["r_precision"]} | retrieval,
    }


def query_groups(gold: Sequence[GoldQuery], train: Sequence[GoldQuery] | None = None) -> dict[str, np.ndarray]:
    """
    Groups queries by what makes them easy or hard.

    Args:
        gold (`Sequence[GoldQuery]`):
            Labelled queries.
        train (`Sequence[GoldQuery]`, *optional*):
            The queries that the system was trained on.

    Returns:
        `dict[str, np.ndarray]`: by name, the positions of the queries, none of them empty: "all"; "source ..." and
        "task ..."; "title in query" and "title not in query" (see [`~trainers.evaluation.title_in_query`]); with
        `train`, "page seen in training" (at least one of the gold pages is one there) and "page not seen in
        training"; "answer in document" and "answer not in document", as the records say.
    """
    pages_of_train = {title for one in train or () for title in one.titles}
    groups: dict[str, list[int]] = {"all": list(range(len(gold)))}
    groups |= {f"source {name}": [] for name in sorted({one.source for one in gold})}
    groups |= {f"task {name}": [] for name in sorted({one.task for one in gold} - {""})}
    pairs = {
        "title": ("title in query", "title not in query"),
        "page": ("page seen in training", "page not seen in training"),
        "answer": ("answer in document", "answer not in document"),
    }
    groups |= {name: [] for pair in pairs.values() for name in pair}
    for position, one in enumerate(gold):
        groups[f"source {one.source}"].append(position)
        if one.task:
            groups[f"task {one.task}"].append(position)
        holds = {"answer": one.answer_in_document}
        if one.titles and one.query:
            holds["title"] = title_in_query({"docids": one.titles, "query": one.query})
        if one.titles and train is not None:
            holds["page"] = not pages_of_train.isdisjoint(one.titles)
        for about, value in holds.items():
            if value is not None:
                groups[pairs[about][0 if value else 1]].append(position)
    return {name: np.array(positions) for name, positions in groups.items() if positions}


def group_scores(
    scores: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray], *, num_resamples: int = 2000, seed: int = 0
) -> dict[str, dict]:
    """
    Mean and bootstrap interval of each metric in each group.

    Args:
        scores (`Mapping[str, np.ndarray]`):
            By metric, the scores of the queries, of shape `(num_queries,)` or `(num_seeds, num_queries)`.
        groups (`Mapping[str, np.ndarray]`):
            By name, positions of queries.
        num_resamples, seed:
            As for [`~trainers.bootstrap.bootstrap_interval`].

    Returns:
        `dict[str, dict]`: by group, "queries" (their number) and "scores": by metric, "mean", "low" and "high". Fit
        for JSON.
    """
    options = {"num_resamples": num_resamples, "seed": seed}
    return {
        group: {
            "queries": len(positions),
            "scores": {
                name: interval._asdict()
                for name, interval in bootstrap_intervals(_chosen(scores, positions), **options).items()
            },
        }
        for group, positions in groups.items()
    }


def compare_groups(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    groups: Mapping[str, np.ndarray],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict]:
    """
    Paired bootstrap of each metric that two systems have, in each group.

    Args:
        first, second (`Mapping[str, np.ndarray]`):
            The two systems' scores of the same queries, as for [`group_scores`].
        groups, num_resamples, seed:
            As for [`group_scores`].

    Returns:
        `dict[str, dict]`: by group, "queries" and "differences": by metric, "first" and "second" (means),
        "difference" (of `first` minus `second`), "low", "high" and "share_positive". Fit for JSON.
    """
    compared = {}
    for group, positions in groups.items():
        a, b = _chosen(first, positions), _chosen(second, positions)
        pairs = paired_bootstraps(a, b, num_resamples=num_resamples, seed=seed)
        compared[group] = {
            "queries": len(positions),
            "differences": {
                name: {"first": float(a[name].mean()), "second": float(b[name].mean())} | pair._asdict()
                for name, pair in pairs.items()
            },
        }
    return compared


def _chosen(scores: Mapping[str, np.ndarray], positions: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[..., positions] for name, values in scores.items()}
