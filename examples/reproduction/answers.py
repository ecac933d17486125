"""Answers where they stand in their article; dev has few such questions, so that labels not drawn are asked too."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from data import TITLE

from trainers.kilt_predictions import GoldQuery, read_predictions
from trainers.score_breakdown import compare_groups, group_scores, query_scores

METRICS = ("em", "f1")

System = tuple[str, str, str]
"""Number of labels, row and strategy."""


def found_predictions(root: Path) -> Iterator[tuple[System, Path]]:
    """
    Finds all predictions below a folder.

    Args:
        root (`pathlib.Path`): holds `labels-<number>-seed-<seed>/<row>.<strategy>.jsonl`.

    Yields:
        `tuple[System, pathlib.Path]`: the system, and the file of one seed.
    """
    for path in sorted(root.glob("labels-*-seed-*/*.jsonl")):
        labels = re.fullmatch(r"labels-(\w+)-seed-\d+", path.parent.name).group(1)
        row, strategy = path.stem.rsplit(".", 1)
        yield (labels, row, strategy), path


AnswerScores = dict[tuple[str, str], np.ndarray]
"""By id of a question and folder of predictions, one a seed, the values of `METRICS`, of shape `(2,)`."""


def answer_scores(results: Path, dev: list[GoldQuery], train: list[GoldQuery]) -> dict[System, AnswerScores]:
    """
    Scores of the answers to open questions whose answer stands in their article.

    Args:
        results (`pathlib.Path`): holds `predictions/` (for the dev queries) and `answers/` (for labels that were not
            drawn); what is in the second only or in the first only is left out.
        dev, train (`list[GoldQuery]`): the labelled queries of both.

    Returns:
        `dict[System, AnswerScores]`: the scores by system.
    """
    asked = [query for query in dev if query.task == "open_qa" and query.answer_in_document]
    scores: dict[System, AnswerScores] = {}
    both = None
    for folder, gold in (("predictions", asked), ("answers", train)):
        systems = set()
        for system, path in found_predictions(results / folder):
            replies = read_predictions(path, TITLE)
            queries = [query for query in gold if query.id in replies]
            if not queries:
                continue
            metrics = query_scores(queries, [replies[query.id] for query in queries])
            if "em" in metrics:
                systems.add(system)
                values = np.stack([metrics[name] for name in METRICS], axis=1)
                keys = [(query.id, path.parent.name) for query in queries]
                scores.setdefault(system, {}).update(zip(keys, values, strict=True))
        both = systems if both is None else both & systems
    return {system: scores[system] for system in sorted(both)}


def compute_answers(
    scores: dict[System, AnswerScores], comparisons: Iterable[tuple[tuple[str, str], tuple[str, str]]]
) -> dict:
    """
    Means, intervals and paired differences. A question counts once, as the mean over the seeds that were asked it; of
    two systems, over those with which both were.

    Args:
        scores (`dict[System, AnswerScores]`): what [`answer_scores`] gave.
        comparisons (`Iterable`): pairs of row and strategy.

    Returns:
        `dict`: `systems` and `comparisons`, fit for JSON.
    """

    def by_metric(system: System, keys: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
        by_question: dict[str, list[np.ndarray]] = {}
        for key in sorted(keys):
            by_question.setdefault(key[0], []).append(scores[system][key])
        means = np.array([np.mean(values, axis=0) for values in by_question.values()])
        return dict(zip(METRICS, means.T, strict=True))

    def everything(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"all": np.arange(len(metrics[METRICS[0]]))}

    systems, compared = [], []
    for system in scores:
        own = by_metric(system, scores[system])
        found = group_scores(own, everything(own))["all"]
        systems.append(dict(zip(("labels", "row", "strategy"), system, strict=True)) | found)
    for labels in dict.fromkeys(labels for labels, _, _ in scores):
        for pair in comparisons:
            first, second = ((labels, *one) for one in pair)
            if keys := scores.get(first, {}).keys() & scores.get(second, {}).keys():
                both = [by_metric(system, keys) for system in (first, second)]
                found = compare_groups(*both, everything(both[0]))["all"]
                compared.append({"labels": labels, "first": list(pair[0]), "second": list(pair[1])} | found)
    return {"systems": systems, "comparisons": compared}


def answers_markdown(answers: dict) -> str:
    """The tables in Markdown; percent and points, 95 % intervals in brackets."""
    lines = ["| labels | row | strategy | questions | EM | F1 |", "|---|---|---|---|---|---|"]
    for one in answers["systems"]:
        cells = [_with_interval(one["scores"][name], "mean") for name in METRICS]
        lines.append(
            f"| {one['labels']} | {one['row']} | {one['strategy']} | {one['queries']} | {' | '.join(cells)} |"
        )
    lines += ["", "| labels | first | second | questions | EM | F1 |", "|---|---|---|---|---|---|"]
    for one in answers["comparisons"]:
        cells = [_with_interval(one["differences"][name], "difference", "+") for name in METRICS]
        first, second = " ".join(one["first"]), " ".join(one["second"])
        lines.append(f"| {one['labels']} | {first} | {second} | {one['queries']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with_interval(found: dict, middle: str, sign: str = "") -> str:
    return f"{100 * found[middle]:{sign}.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
