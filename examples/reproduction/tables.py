"""The tables and plots of the reproduction, from all predictions that are there.

python examples/reproduction/tables.py --train train.jsonl --dev dev.jsonl --results examples/results
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from answers import System, answer_scores, answers_markdown, compute_answers, found_predictions
from data import TITLE
from iterations import compute_iterations
from judging import STRATEGY
from plots import plot_iterations, plot_label_efficiency
from transformers import HfArgumentParser

from dataset_builders.writing import write_text
from trainers.kilt_predictions import GoldQuery, align_predictions, read_gold, read_predictions
from trainers.score_breakdown import ANSWER_METRICS, compare_groups, group_scores, query_groups, query_scores

# Column of the table: the metric and the group of queries.
COLUMNS = {
    "R-precision": ("r_precision", "all"),
    "title in query": ("r_precision", "title in query"),
    "title not in query": ("r_precision", "title not in query"),
    "article indexed": ("r_precision", "article indexed"),
    "not indexed": ("r_precision", "article not indexed"),
    "labelled": ("r_precision", "article labelled"),
    "not labelled": ("r_precision", "article not labelled"),
    "open_qa": ("r_precision", "task open_qa"),
    "fact verification": ("em", "task fact_verification"),
    "yes/no": ("em", "task boolean_qa"),
    "open EM": ("em", "task open_qa"),
    "open EM, answer in document": ("em", "open_qa, answer in document"),
    "KILT-EM": ("kilt_em", "all"),
}

# What is compared with what, both of the same number of labels: row and strategy.
COMPARISONS = [
    *[
        ((row, strategy), (before, strategy))
        for row, before in (
            ("auxiliary", "basic"),
            ("substituted", "auxiliary"),
            ("no-exchange", "continued"),
            ("more-labels", "continued"),
            ("co-training-2", "co-training-1"),
            ("grounded", "co-training-1"),
            ("query-likelihood", "whole-collection"),
            ("grounded", "query-likelihood"),
            ("sentences", "grounded"),
            ("recalibrated", "sentences"),
            ("recalibrated", "grounded"),
            ("co-trained", "grounded"),
        )
        for strategy in ("rag", "gar", "ensemble")
    ],
    *[
        ((f"co-training-{iteration}", strategy), (row, strategy))
        for strategy in ("rag", "gar", "ensemble")
        for iteration, rows in (
            (1, ("auxiliary", "continued", "substituted", "no-exchange", "no-filter", "no-auxiliary", "more-labels")),
            (2, ("auxiliary", "continued")),
        )
        for row in rows
    ],
    *[
        ((f"co-training-{iteration}", strategy), (f"co-training-{iteration}", "rag"))
        for iteration in (1, 2)
        for strategy in ("gar", "ensemble", "cascade")
    ],
    *[
        ((row, strategy), (baseline, STRATEGY))
        for row in (
            "auxiliary",
            "co-training-1",
            "whole-collection",
            "query-likelihood",
            "grounded",
            "sentences",
            "recalibrated",
            "co-trained",
        )
        for strategy in ("rag", "ensemble")
        for baseline in ("plain-gr", "dense-tuned", "closed-book", "dense-rag", "corpus-lm")
    ],
]


@dataclass
class Arguments:
    """
    Args:
        train (`str`): KILT JSONL of the labels.
        dev (`str`): KILT JSONL of the dev queries.
        results (`str`): folder of the predictions, for `results.json`, `tables.md` and the plots too.
    """

    train: str = field(metadata={"help": "KILT JSONL of the labels."})
    dev: str = field(metadata={"help": "KILT JSONL of the dev queries."})
    results: str = field(metadata={"help": "Folder of the predictions, tables and plots."})


Scores = dict[str, np.ndarray]
"""By metric, the scores of the queries, of shape `(num_queries,)`."""


def load_scores(root: Path, gold: list[GoldQuery]) -> dict[System, dict[str, Scores]]:
    """
    Scores of all predictions below a folder.

    Args:
        root (`pathlib.Path`): holds `labels-<number>-seed-<seed>/<row>.<strategy>.jsonl`.
        gold (`list[GoldQuery]`): the dev queries.

    Returns:
        `dict[System, dict[str, Scores]]`: by system, the fewest labels first, and by folder, one a seed, the scores of
        each query; those of the answers alone where nothing is retrieved.
    """
    found: dict[System, dict[str, Scores]] = {}
    for system, path in found_predictions(root):
        predictions = align_predictions(gold, read_predictions(path, TITLE))
        scores = query_scores(gold, predictions)
        if not any(one.docids for one in predictions):
            scores = {name: scores[name] for name in ANSWER_METRICS}
        found.setdefault(system, {})[path.parent.name] = scores
    # By number, "all" behind them.
    order = sorted(found, key=lambda system: (system[0] == "all", system[0].zfill(6), system))
    return {system: found[system] for system in order}


def labelled_articles(root: Path, gold: list[GoldQuery]) -> dict[str, np.ndarray]:
    """
    Whether the article of a query is one that labels to train on have.

    Args:
        root (`pathlib.Path`): holds `labels-<number>-seed-<seed>/labelled_titles.json`.
        gold (`list[GoldQuery]`): the dev queries.

    Returns:
        `dict[str, np.ndarray]`: by folder, bool of shape `(num_queries,)`.
    """
    return {
        path.parent.name: are_among(gold, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(root.glob("labels-*-seed-*/labelled_titles.json"))
    }


def are_among(gold: list[GoldQuery], titles: list[str]) -> np.ndarray:
    """Whether an article of a query is one of these (bool of shape `(num_queries,)`)."""
    return np.array([not set(titles).isdisjoint(query.titles) for query in gold])


def dev_groups(gold: list[GoldQuery], indexed: list[str]) -> dict[str, np.ndarray]:
    """
    The groups of queries that the columns name: those of [`query_groups`], and two more.

    Args:
        gold (`list[GoldQuery]`): the dev queries.
        indexed (`list[str]`): titles of the articles that models were trained on.

    Returns:
        `dict[str, np.ndarray]`: positions of the queries by group, none of them empty.
    """
    groups = query_groups(gold)
    is_indexed = are_among(gold, indexed)
    is_open = np.array([query.task == "open_qa" and bool(query.answer_in_document) for query in gold])
    groups |= {
        "article indexed": np.flatnonzero(is_indexed),
        "article not indexed": np.flatnonzero(~is_indexed),
        "open_qa, answer in document": np.flatnonzero(is_open),
    }
    return {name: positions for name, positions in groups.items() if len(positions)}


def compute(
    scores: dict[System, dict[str, Scores]], groups: dict[str, np.ndarray], labelled: dict[str, np.ndarray]
) -> dict:
    """
    Means, intervals and paired differences; of two systems by the seeds that both have.

    Args:
        scores (`dict[System, dict[str, Scores]]`): what [`load_scores`] gave.
        groups (`dict[str, np.ndarray]`): what [`dev_groups`] gave.
        labelled (`dict[str, np.ndarray]`): what [`labelled_articles`] gave.

    Returns:
        `dict`: `systems` (see [`group_scores`]) and `comparisons` (see [`compare_groups`]), fit for JSON.
    """
    systems, comparisons = [], []
    for labels, row, strategy in scores:
        seeds = list(scores[labels, row, strategy])
        found = {}
        for own, among in _pooled([scores[labels, row, strategy]], seeds, groups, labelled):
            found |= group_scores(own[0], among)
        systems.append({"labels": labels, "row": row, "strategy": strategy, "seeds": len(seeds), "groups": found})
    for labels in dict.fromkeys(labels for labels, _, _ in scores):
        for first, second in COMPARISONS:
            pair = [scores.get((labels, *system), {}) for system in (first, second)]
            if seeds := [seed for seed in pair[0] if seed in pair[1]]:
                found = {}
                for both, among in _pooled(pair, seeds, groups, labelled):
                    found |= compare_groups(*both, among)
                comparisons.append(
                    {
                        "labels": labels,
                        "first": list(first),
                        "second": list(second),
                        "seeds": len(seeds),
                        "groups": found,
                    }
                )
    return {"systems": systems, "comparisons": comparisons}


def _pooled(
    systems: list[dict[str, Scores]],
    seeds: list[str],
    groups: dict[str, np.ndarray],
    labelled: dict[str, np.ndarray],
) -> Iterator[tuple[list[Scores], dict[str, np.ndarray]]]:
    """
    The systems' scores of some seeds and the groups to take them in: first those that are the same for each seed, then
    by whether an article is labelled. That differs by seed: a query's score is the mean over the seeds where it holds.
    """
    names = set.intersection(*(set(one[seed]) for one in systems for seed in seeds))
    stacked = [{name: np.stack([one[seed][name] for seed in seeds]) for name in sorted(names)} for one in systems]
    yield stacked, groups
    is_labelled = np.stack([labelled[seed] for seed in seeds])
    for group, holds in {"article labelled": is_labelled, "article not labelled": ~is_labelled}.items():
        if holds.any():
            often = holds.sum(0)
            means = [
                {name: ((values * holds).sum(0)[often > 0] / often[often > 0]) for name, values in one.items()}
                for one in stacked
            ]
            yield means, {group: np.arange((often > 0).sum())}


def markdown(results: dict) -> str:
    """The tables in Markdown: one row a system, one a comparison; percent and points, 95 % intervals in brackets."""
    lines = ["| labels | row | strategy | seeds | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (4 + len(COLUMNS))]
    for system in results["systems"]:
        found = [_find(system["groups"], "scores", *column) for column in COLUMNS.values()]
        cells = ["–" if one is None else f"{100 * one['mean']:.1f}" for one in found]
        head = [system["labels"], system["row"], system["strategy"], str(system["seeds"])]
        lines.append("| " + " | ".join(head + cells) + " |")
    head = "| labels | first | second | seeds | "
    lines += ["", head + " | ".join(COLUMNS) + " |", "|" + "---|" * (4 + len(COLUMNS))]
    for compared in results["comparisons"]:
        found = [_find(compared["groups"], "differences", *column) for column in COLUMNS.values()]
        cells = [
            "–" if one is None else f"{100 * one['difference']:+.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
            for one in found
        ]
        head = [compared["labels"], " ".join(compared["first"]), " ".join(compared["second"]), str(compared["seeds"])]
        lines.append("| " + " | ".join(head + cells) + " |")
    return "\n".join(lines) + "\n"


def as_json(results: dict) -> str:
    """The results as JSON for version control: a system or comparison a line, five decimals a figure."""
    parts = []
    for name, entries in results.items():
        lines = ",\n".join(json.dumps(_rounded(entry)) for entry in entries)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    return "{" + ",\n".join(parts) + "}\n"


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def _find(groups: dict, kind: str, metric: str, group: str) -> dict | None:
    return groups[group][kind].get(metric) if group in groups else None


def main() -> None:
    """Writes `results.json`, `tables.md` and the plots."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    target, gold = Path(arguments.results), read_gold(arguments.dev, TITLE)
    indexed = json.loads((target / "index_titles.json").read_text(encoding="utf-8"))
    predictions = target / "predictions"
    scores = load_scores(predictions, gold)
    results = compute(scores, dev_groups(gold, indexed), labelled_articles(predictions, gold))
    answers = answer_scores(target, gold, read_gold(arguments.train, TITLE))
    answered = compute_answers(answers, COMPARISONS)
    results |= {f"answers_{name}": entries for name, entries in answered.items()}
    results["iterations"] = compute_iterations(target, scores)
    write_text(target / "results.json", as_json(results))
    tables = f"{markdown(results)}\nAnswers that stand in their article:\n\n{answers_markdown(answered)}"
    write_text(target / "tables.md", tables)
    plot_label_efficiency(results, target / "label_efficiency.png")
    plot_iterations(results, target / "iterations.png")
    print(tables)


if __name__ == "__main__":
    main()
