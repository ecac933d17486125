"""The plots of the reproduction."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

STYLES = {"rag": "C0o-", "gar": "C1s--"}
CURVES = {
    ("basic", "rag"): "warm-up, labels only",
    ("auxiliary", "rag"): "+ auxiliary data",
    ("continued", "rag"): "the same, continued",
    ("substituted", "rag"): "+ substituted titles",
    ("co-training-1", "rag"): "+ co-training",
    ("recalibrated", "rag"): "all stages (the checkpoints)",
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


def plot_iterations(results: dict, path: Path) -> None:
    """
    Over co-training's iterations, at the smallest number of labels: R-precision on the dev queries (left), and how
    often the first docid of a sample is the article that it was written from, of all samples and of those kept
    (right).

    Args:
        results (`dict`): what `tables.compute` gave, with the `iterations` of `compute_iterations`.
        path (`pathlib.Path`): PNG to write, if there was an iteration.
    """
    if not results["iterations"]:
        return
    by_role = results["iterations"][0]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for role, style in STYLES.items():
        found = by_role[role]["r_precision"]
        left.plot(range(len(found)), found, style, label=role.upper())
        for which, alpha in (("written", 0.5), ("kept", 1.0)):
            shares = np.array(by_role[role][which], float)
            right.plot(range(1, len(found)), shares, style, label=f"{role.upper()}, {which}", alpha=alpha)
    left.set_ylabel("R-precision on dev")
    right.set_ylabel("first docid is the source")
    for axes in (left, right):
        axes.set_xlabel("iteration")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)
