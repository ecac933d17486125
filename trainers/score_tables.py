"""Broken-down scores, comparisons and examples in Markdown."""

import random
from collections.abc import Iterable, Mapping, Sequence

from .kilt_predictions import GoldQuery, Prediction

HEADINGS = {
    "r_precision": "R-precision",
    "accuracy": "accuracy",
    "em": "EM",
    "f1": "F1",
    "rougel": "ROUGE-L",
    "kilt_em": "KILT-EM",
    "kilt_f1": "KILT-F1",
}
KINDS = ("Right", "Wrong retrieval", "Wrong answer")


def score_table(groups_of_system: Mapping[str, Mapping[str, dict]]) -> str:
    """
    Scores of systems by group of queries.

    Args:
        groups_of_system (`Mapping[str, Mapping[str, dict]]`):
            By system, what [`~trainers.score_breakdown.group_scores`] gave.

    Returns:
        `str`: a Markdown table, means in percent with their 95 % intervals in brackets.
    """
    metrics = _headings(name for groups in groups_of_system.values() for name in groups["all"]["scores"])
    lines = [
        "| system | queries | n | " + " | ".join(metrics.values()) + " |",
        "|---|---|---:|" + "---:|" * len(metrics),
    ]
    for system, groups in groups_of_system.items():
        for group, entry in groups.items():
            cells = [_with_interval(entry["scores"].get(name), "mean") for name in metrics]
            lines.append(f"| {system} | {group} | {entry['queries']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comparison_table(compared: Mapping[str, dict]) -> str:
    """
    Differences of two systems by group of queries and metric.

    Args:
        compared (`Mapping[str, dict]`):
            What [`~trainers.score_breakdown.compare_groups`] gave.

    Returns:
        `str`: a Markdown table: means in percent; differences in points with their 95 % intervals; and the share of
        resamples in which the first is better.
    """
    metrics = _headings(compared["all"]["differences"])
    lines = [
        "| queries | n | metric | first | second | difference | first better |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for group, entry in compared.items():
        for name, heading in metrics.items():
            one = entry["differences"][name]
            lines.append(
                f"| {group} | {entry['queries']} | {heading} | {100 * one['first']:.1f} | {100 * one['second']:.1f} | "
                f"{_with_interval(one, 'difference')} | {100 * one['share_positive']:.0f} % |"
            )
    return "\n".join(lines) + "\n"


def examples_text(
    gold: Sequence[GoldQuery],
    predictions: Sequence[Prediction],
    titles: Sequence[Sequence[str]],
    scores: Mapping[str, Sequence[float]],
    *,
    num_examples: int = 20,
    seed: int = 0,
) -> str:
    """
    Some queries with what was predicted: right in both, wrong in retrieval, or right there and wrong in the answer.

    Args:
        gold (`Sequence[GoldQuery]`):
            Labelled queries.
        predictions (`Sequence[Prediction]`):
            What was predicted.
        titles (`Sequence[Sequence[str]]`):
            Titles of the ranked documents per query.
        scores (`Mapping[str, Sequence[float]]`):
            What [`~trainers.score_breakdown.query_scores`] gave.
        num_examples (`int`, *optional*, defaults to 20):
            Most examples, as evenly from the three kinds as they come.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draw.

    Returns:
        `str`: Markdown.
    """
    by_kind: dict[str, list[int]] = {kind: [] for kind in KINDS}
    right_answers = scores.get("em", [1.0] * len(gold))
    for position, (found, answered) in enumerate(zip(scores["r_precision"], right_answers, strict=True)):
        by_kind[KINDS[1] if found < 1 else KINDS[0] if answered == 1 else KINDS[2]].append(position)
    generator = random.Random(seed)
    for positions in by_kind.values():
        generator.shuffle(positions)
    # One of each kind in turn, until there are enough.
    places = [(turn, kind) for kind, positions in by_kind.items() for turn in range(len(positions))]
    chosen = sorted(places, key=lambda place: place[0])[:num_examples]
    lines = []
    for kind in KINDS:
        lines += [f"## {kind}: {len(by_kind[kind])} of {len(gold)}", ""]
        for position in (by_kind[kind][turn] for turn, chosen_kind in chosen if chosen_kind == kind):
            one, reply = gold[position], predictions[position]
            lines += [
                f"**{_plain(one.query or one.id)}**",
                "",
                f"- predicted: {_plain(reply.answer or '(no answer)')}",
                f"- right: {_plain('; '.join(one.answers) or '(not labelled)')}",
                f"- found: {_plain(' | '.join(titles[position]) or '(nothing)')}",
                f"- right: {_plain(' | '.join(one.titles) or '(not labelled)')}",
                "",
            ]
    return "\n".join(lines)


def _headings(found: Iterable[str]) -> dict[str, str]:
    """What a table shows of these metrics: `HEADINGS`, and recall at the smallest and the largest k."""
    found = list(found)
    recalls = sorted((name for name in found if name.startswith("recall@")), key=lambda name: int(name[7:]))
    shown = {name: heading for name, heading in HEADINGS.items() if name in found}
    shown = {"r_precision": shown.pop("r_precision")} | {name: name for name in recalls[:1] + recalls[-1:]} | shown
    return shown


def _with_interval(one: dict | None, middle: str) -> str:
    if one is None:
        return "–"
    return f"{100 * one[middle]:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def _plain(text: str) -> str:
    """Text of a data set on one line, without what Markdown would take for marks."""
    text = " ".join(text.split())
    for mark in "\\`*_<[":
        text = text.replace(mark, "\\" + mark)
    return text
