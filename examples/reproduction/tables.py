"""The tables and plots of the reproduction, from all predictions that are there.

python examples/reproduction/tables.py --dev dev.jsonl --results examples/results
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from judging import STRATEGY, TITLE
from plots import plot_iterations, plot_label_efficiency
from transformers import HfArgumentParser

from dataset_builders.writing import write_text
from trainers.kilt_predictions import GoldQuery, align_predictions, read_gold, read_predictions
from trainers.score_breakdown import compare_groups, group_scores, query_groups, query_scores

# Column of the table: the metric and the group of queries.
COLUMNS = {
    "R-precision": ("r_precision", "all"),
    "title in query": ("r_precision", "title in query"),
    "title not in query": ("r_precision", "title not in query"),
    "article indexed": ("r_precision", "article indexed"),
    "not indexed": ("r_precision", "article not indexed"),
    "open_qa": ("r_precision", "task open_qa"),
    "fact verification": ("em", "task fact_verification"),
    "yes/no": ("em", "task boolean_qa"),
    "open EM": ("em", "task open_qa"),
    "open EM, answer in document": ("em", "open_qa, answer in document"),
    "KILT-EM": ("kilt_em", "all"),
}

# What is compared with what, both of the same number of labels: row and strategy.
COMPARISONS = [
    (("auxiliary", "rag"), ("basic", "rag")),
    (("auxiliary", "gar"), ("basic", "gar")),
    *[
        ((f"co-training-{iteration}", role), (row, role))
        for role in ("rag", "gar")
        for iteration, rows in (
            (1, ("auxiliary", "continued", "no-exchange", "no-filter", "no-auxiliary")),
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
        for row in ("auxiliary", "co-training-1", "whole-collection")
        for strategy in ("rag", "ensemble")
        for baseline in ("plain-gr", "dense-tuned", "closed-book", "dense-rag", "corpus-lm")
    ],
]


@dataclass
class Arguments:
    """
    Args:
        dev (`str`): KILT JSONL of the dev queries.
        results (`str`): folder of the predictions, for `results.json`, `tables.md` and the plots too.
    """

    dev: str = field(metadata={"help": "KILT JSONL of the dev queries."})
    results: str = field(metadata={"help": "Folder of the predictions, tables and plots."})


System = tuple[str, str, str]
"""Number of labels, row and strategy."""


def load_scores(root: Path, gold: list[GoldQuery]) -> dict[System, dict[str, np.ndarray]]:
    """
    Scores of all predictions below a folder.

    Args:
        root (`pathlib.Path`): holds `labels-<number>-seed-<seed>/<row>.<strategy>.jsonl`.
        gold (`list[GoldQuery]`): the dev queries.

    Returns:
        `dict[System, dict[str, np.ndarray]]`: by system and metric, scores of shape `(num_seeds, num_queries)`.
    """
    found: dict[System, list[dict[str, np.ndarray]]] = {}
    for path in sorted(root.glob("labels-*-seed-*/*.jsonl")):
        labels = re.fullmatch(r"labels-(\w+)-seed-\d+", path.parent.name).group(1)
        row, strategy = path.stem.rsplit(".", 1)
        scores = query_scores(gold, align_predictions(gold, read_predictions(path, TITLE)))
        found.setdefault((labels, row, strategy), []).append(scores)
    return {
        system: {name: np.stack([one[name] for one in seeds]) for name in set.intersection(*map(set, seeds))}
        for system, seeds in found.items()
    }


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
    is_indexed = np.array([not set(indexed).isdisjoint(query.titles) for query in gold])
    is_open = np.array([query.task == "open_qa" and bool(query.answer_in_document) for query in gold])
    groups |= {
        "article indexed": np.flatnonzero(is_indexed),
        "article not indexed": np.flatnonzero(~is_indexed),
        "open_qa, answer in document": np.flatnonzero(is_open),
    }
    return {name: positions for name, positions in groups.items() if len(positions)}


def compute(scores: dict[System, dict[str, np.ndarray]], groups: dict[str, np.ndarray]) -> dict:
    """
    Means, intervals and paired differences.

    Args:
        scores (`dict[System, dict[str, np.ndarray]]`): what [`load_scores`] gave.
        groups (`dict[str, np.ndarray]`): what [`dev_groups`] gave.

    Returns:
        `dict`: `systems` (see [`group_scores`]) and `comparisons` (see [`compare_groups`]), fit for JSON.
    """
    order = sorted(scores, key=lambda system: (system[0].zfill(6), system))  # "all" behind the numbers
    return {
        "systems": [
            {
                "labels": labels,
                "row": row,
                "strategy": strategy,
                "seeds": len(scores[labels, row, strategy]["r_precision"]),
                "groups": group_scores(scores[labels, row, strategy], groups),
            }
            for labels, row, strategy in order
        ],
        "comparisons": [
            {
                "labels": labels,
                "first": list(first),
                "second": list(second),
                "groups": compare_groups(scores[labels, *first], scores[labels, *second], groups),
            }
            for labels in dict.fromkeys(labels for labels, _, _ in order)
            for first, second in COMPARISONS
            if (labels, *first) in scores and (labels, *second) in scores
        ],
    }


def markdown(results: dict) -> str:
    """The tables in Markdown: one row a system, one a comparison; percent and points, 95 % intervals in brackets."""
    lines = ["| labels | row | strategy | seeds | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (4 + len(COLUMNS))]
    for system in results["systems"]:
        found = [_find(system["groups"], "scores", *column) for column in COLUMNS.values()]
        cells = ["–" if one is None else f"{100 * one['mean']:.1f}" for one in found]
        head = [system["labels"], system["row"], system["strategy"], str(system["seeds"])]
        lines.append("| " + " | ".join(head + cells) + " |")
    lines += ["", "| labels | first | second | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (3 + len(COLUMNS))]
    for compared in results["comparisons"]:
        found = [_find(compared["groups"], "differences", *column) for column in COLUMNS.values()]
        cells = [
            "–" if one is None else f"{100 * one['difference']:+.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
            for one in found
        ]
        head = [compared["labels"], " ".join(compared["first"]), " ".join(compared["second"])]
        lines.append("| " + " | ".join(head + cells) + " |")
    return "\n".join(lines) + "\n"


def _find(groups: dict, kind: str, metric: str, group: str) -> dict | None:
    return groups[group][kind].get(metric) if group in groups else None


def main() -> None:
    """Writes `results.json`, `tables.md` and the plots."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    target, gold = Path(arguments.results), read_gold(arguments.dev, TITLE)
    indexed = json.loads((target / "index_titles.json").read_text(encoding="utf-8"))
    results = compute(load_scores(target / "predictions", gold), dev_groups(gold, indexed))
    write_text(target / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(target / "tables.md", markdown(results))
    plot_label_efficiency(results, target / "label_efficiency.png")
    plot_iterations(target, results, target / "iterations.png")
    print(markdown(results))


if __name__ == "__main__":
    main()
