"""The plots of the reproduction."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from settings import WARM_UP

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ROLES = {"rag": "o-", "gar": "s--"}
CURVES = {
    ("basic", "rag"): "warm-up, labels only",
    ("auxiliary", "rag"): "+ auxiliary data",
    ("continued", "rag"): "the same, continued",
    ("substituted", "rag"): "+ substituted titles",
    ("co-training-1", "rag"): "+ co-training",
    ("sentences", "rag"): "all stages (the checkpoints)",
    ("plain-gr", "baseline"): "plain generative retrieval",
    ("dense-tuned", "baseline"): "dense, tuned on the labels",
}


def plot_label_efficiency(results: dict, path: Path) -> None:
    """
    R-precision of MINT's RAG and of two baselines by the number of labels, with 95 % intervals, side by side.

    Args:
        results (`dict`): what `tables.compute` gave.
        path (`pathlib.Path`): PNG to write.
    """
    figure, axes = pyplot.subplots(figsize=(6, 4.2), layout="constrained")
    names = list(dict.fromkeys(system["labels"] for system in results["systems"]))
    for number, (curve, label) in enumerate(CURVES.items()):
        points = [
            (names.index(system["labels"]) + 0.03 * number, system["groups"]["all"]["scores"]["r_precision"])
            for system in results["systems"]
            if (system["row"], system["strategy"]) == curve
        ]
        if points:
            places, scores = zip(*points, strict=True)
            means = np.array([score["mean"] for score in scores])
            around = [means - [score["low"] for score in scores], [score["high"] for score in scores] - means]
            axes.errorbar(places, means, around, fmt="o-", capsize=3, label=label)
    axes.set_xticks(np.arange(len(names)) + 0.015 * (len(CURVES) - 1), names)
    axes.set_xlabel("labels")
    axes.set_ylabel("R-precision")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def plot_iterations(kept: Path, results: dict, path: Path) -> None:
    """
    Over co-training's iterations: R-precision on the dev queries (left), and how often the first docid of a sample is
    the article that it was written from, of all samples and of those kept (right); means over seeds at the smallest
    number of labels.

    Args:
        kept (`pathlib.Path`): folder of what the reproduction keeps.
        results (`dict`): what `tables.compute` gave.
        path (`pathlib.Path`): PNG to write.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    labels = results["systems"][0]["labels"]
    for role, style in ROLES.items():
        points = {}
        for system in results["systems"]:
            if (system["labels"], system["strategy"]) == (labels, role):
                iteration = 0 if system["row"] == WARM_UP else _iteration(system["row"])
                points[iteration] = system["groups"]["all"]["scores"]["r_precision"]["mean"]
        points.pop(None, None)
        left.plot(list(points), list(points.values()), style, label=role.upper())

        precision = {"written": {}, "kept": {}}
        for report in sorted(kept.glob(f"reports/labels-{labels}-seed-*/iteration-*.json")):
            report = json.loads(report.read_text(encoding="utf-8"))
            for which, by_iteration in precision.items():
                by_iteration.setdefault(report["iteration"], []).append(report["precision"][role][which])
        for which, by_iteration in precision.items():
            means = [np.mean([value for value in values if value is not None]) for values in by_iteration.values()]
            right.plot(
                list(by_iteration), means, style, label=f"{role.upper()}, {which}", alpha=0.5 + (which == "kept") / 2
            )
    left.set_ylabel("R-precision on dev")
    right.set_ylabel("first docid is the source")
    for axes in (left, right):
        axes.set_xlabel("iteration")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def _iteration(row: str) -> int | None:
    return int(row.removeprefix("co-training-")) if row.startswith("co-training-") else None
