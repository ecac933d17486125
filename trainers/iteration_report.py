"""The report on one iteration of co-training: what was written, what the filter kept of it, and what came of that."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from dataset_builders.writing import write_text

from .confidence import KEEP_NONE, first_docid_is_right
from .evaluation import title_in_query

SIGNALS = ("docid_log_prob", "answer_log_prob", "round_trip_rank", "docid_agreement", "answer_agreement", "score")
NOTE = (
    "A round trip of rank 1 *is* a right first docid by this measure, so that its AUROC is trivially 1.0 and that of "
    "a score which it is part of too high; and two models on one backbone are not independent witnesses, so that "
    "their agreement proves less than it seems to."
)


def write_iteration_report(
    folder: str | Path,
    iteration: int,
    samples: dict[str, list[dict]],
    dev_scores: dict,
    losses: dict,
    thresholds: dict,
    warnings: Sequence[str] = (),
) -> dict:
    """
    Writes `report.json`, `report.md` and `report.png`, each whole or not at all (`mint.md`, Stage 2, step 5).

    A docid is right if it is that of the document which the query was written from. How often the first one is, by
    whether the query contains that document's title, tells what copying the title gives from what the model knows.

    Args:
        folder (`str` or `Path`):
            Folder of the iteration, which must exist.
        iteration (`int`):
            Its number, from 1.
        samples (`dict[str, list[dict]]`):
            What each model wrote, by its role: scored samples in the common schema, those that the filter dropped
            included.
        dev_scores (`dict[str, dict[str, float]]`):
            Dev scores by role.
        losses (`dict[str, dict[str, float]]`):
            Last losses of the training by role, none for a model that was not trained.
        thresholds (`dict[str, float]`):
            Calibrated threshold by role of the writer; empty for the other rules.
        warnings (`Sequence[str]`, *optional*):
            What went wrong in the iteration.

    Returns:
        `dict`: what `report.json` holds. By role of the writer: `samples` and `kept` (numbers), `acceptance` (share
        kept), `agreement` and `precision` (shares, `written` and `kept`; the precision also as
        `written_title_in_query`, ...), `title_in_query` (numbers, `written` and `kept`), `signals` (of all that was
        written, by signal: `auroc`, `mean_right`, `mean_wrong`; the rank as 1 / rank). By role of the learner:
        `dev_scores`, `losses`. And `warnings`. A share or mean of nothing is `None`.
    """
    folder = Path(folder)
    kept = {role: [sample for sample in written if sample["kept"]] for role, written in samples.items()}
    report = {
        "iteration": iteration,
        "samples": {role: len(written) for role, written in samples.items()},
        "kept": {role: len(kept[role]) for role in samples},
        "acceptance": {role: _mean([sample["kept"] for sample in written]) for role, written in samples.items()},
        "agreement": {
            role: {"written": _agreement(written), "kept": _agreement(kept[role])} for role, written in samples.items()
        },
        "precision": {
            role: _precision("written", written) | _precision("kept", kept[role]) for role, written in samples.items()
        },
        "title_in_query": {
            role: {"written": sum(map(source_in_query, written)), "kept": sum(map(source_in_query, kept[role]))}
            for role, written in samples.items()
        },
        "signals": {role: {name: _predicts(name, written) for name in SIGNALS} for role, written in samples.items()},
        "thresholds": thresholds,
        "dev_scores": dev_scores,
        "losses": losses,
        "warnings": list(warnings),
    }
    write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "report.md", _markdown(report))
    _write_histograms(samples, kept, thresholds, folder / "report.png")
    return report


def source_in_query(sample: dict) -> bool:
    """Whether the title of the document that a model wrote a query from stands in the query."""
    return title_in_query(sample | {"docids": sample["provenance"][0]})


def auroc(values: Sequence[float], is_right: Sequence[bool]) -> float | None:
    """
    How well a signal tells right from wrong: the probability that a right sample has a higher value than a wrong one,
    equal values counting half.

    Args:
        values (`Sequence[float]`): the signal of each sample.
        is_right (`Sequence[bool]`): whether the sample is right.

    Returns:
        `float`: the area under the ROC curve in [0, 1], 0.5 for a signal that says nothing; `None` if all samples are
        right, or all are wrong.
    """
    positive = np.array(is_right, dtype=bool)
    rights, wrongs = int(positive.sum()), int((~positive).sum())
    if not rights or not wrongs:
        return None
    wins = rankdata(values)[positive].sum() - rights * (rights + 1) / 2
    return float(wins / (rights * wrongs))


def _mean(values):
    return float(np.mean(values)) if values else None


def _value(sample, signal):
    """A signal, the higher the better; `None` if the sample has it not."""
    value = sample["confidence"][signal]
    if signal == "round_trip_rank" and value is not None:
        return 1 / value if value else 0.0
    return value


def _agreement(samples):
    there = {what: [_value(sample, f"{what}_agreement") for sample in samples] for what in ("docid", "answer")}
    return {what: _mean([value for value in values if value is not None]) for what, values in there.items()}


def _precision(which, samples):
    inside = [sample for sample in samples if source_in_query(sample)]
    outside = [sample for sample in samples if not source_in_query(sample)]
    subsets = {which: samples, f"{which}_title_in_query": inside, f"{which}_title_not_in_query": outside}
    return {name: _mean([first_docid_is_right(sample) for sample in subset]) for name, subset in subsets.items()}


def _predicts(signal, samples):
    there = [(_value(sample, signal), first_docid_is_right(sample)) for sample in samples]
    there = [(value, is_right) for value, is_right in there if value is not None]
    return {
        "auroc": auroc([value for value, _ in there], [is_right for _, is_right in there]),
        "mean_right": _mean([value for value, is_right in there if is_right]),
        "mean_wrong": _mean([value for value, is_right in there if not is_right]),
    }


def _markdown(report):
    roles = list(report["samples"])

    def agreement(which, what):
        return [report["agreement"][role][which][what] for role in roles]

    written = [
        ("samples written", [report["samples"][role] for role in roles]),
        ("samples kept", [report["kept"][role] for role in roles]),
        ("acceptance", [report["acceptance"][role] for role in roles]),
        ("threshold", [_threshold(report["thresholds"].get(role)) for role in roles]),
    ]
    for which in ("written", "kept"):
        precision = {role: report["precision"][role] for role in roles}
        written += [
            (f"title in query, {which}", [report["title_in_query"][role][which] for role in roles]),
            (f"precision, {which}", [precision[role][which] for role in roles]),
            (f"precision, {which}, title in query", [precision[role][f"{which}_title_in_query"] for role in roles]),
            (f"precision, {which}, title not", [precision[role][f"{which}_title_not_in_query"] for role in roles]),
            (f"docid agreement, {which}", agreement(which, "docid")),
            (f"answer agreement, {which}", agreement(which, "answer")),
        ]
    signals = [
        (
            name.replace("round_trip_rank", "1 / round_trip_rank"),
            [
                report["signals"][role][name][figure]
                for role in roles
                for figure in ("auroc", "mean_right", "mean_wrong")
            ],
        )
        for name in SIGNALS
    ]
    figures = [f"{role}: {figure}" for role in roles for figure in ("AUROC", "mean of right", "mean of wrong")]
    lines = [f"# Co-training, iteration {report['iteration']}", ""]
    if report["warnings"]:
        lines += [*(f"- **{warning}**" for warning in report["warnings"]), ""]
    lines += ["## What each model wrote", ""] + _table(["", *roles], written)
    lines += ["", "Precision: the share whose first docid is that of the document which the query was written from."]
    lines += ["", "![Confidence before and after the filter](report.png)", ""]
    lines += ["## What each signal predicts", "", "Whether the first docid is right, over all samples written.", ""]
    lines += _table(["signal", *figures], signals) + ["", NOTE, ""]
    lines += ["## Dev scores", ""] + _by_role(report["dev_scores"])
    lines += ["", "## Losses", ""] + _by_role(report["losses"])
    return "\n".join(lines) + "\n"


def _threshold(threshold):
    return "none reached" if threshold == KEEP_NONE else threshold


def _by_role(figures):
    names = list(dict.fromkeys(name for by_name in figures.values() for name in by_name))
    return _table(["", *figures], [(name, [by_name.get(name) for by_name in figures.values()]) for name in names])


def _table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return lines + [f"| {label} | " + " | ".join(map(_cell, cells)) + " |" for label, cells in rows]


def _cell(value):
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _write_histograms(samples, kept, thresholds, path):
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    bins = np.linspace(0, 1, 41)
    for role, axes in zip(samples, figure.subplots(1, len(samples), squeeze=False)[0], strict=True):
        for which, group, colour in (("written", samples[role], "lightgrey"), ("kept", kept[role], "tab:green")):
            axes.hist([sample["confidence"]["score"] for sample in group], bins, color=colour, label=which)
        if thresholds.get(role, KEEP_NONE) != KEEP_NONE:
            axes.axvline(thresholds[role], color="black", linestyle="--", label="threshold")
        axes.set_title(f"written by {role}")
        axes.set_xlabel("confidence")
        axes.set_ylabel("samples")
        axes.legend()
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)
