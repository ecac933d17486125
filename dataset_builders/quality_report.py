"""The report on the quality filters: how many samples each one took, and examples of what is kept and dropped."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from matplotlib.figure import Figure

from .filters import contains_title, words
from .quality import Candidate, Verdict
from .writing import write_text

NUM_EXAMPLES = 10


def write_quality_report(
    candidates: Sequence[Candidate], verdicts: Sequence[Verdict], path: str | Path, facts: dict
) -> None:
    """
    Writes the report as `path.json`, `path.md` and `path.png`, each whole or not at all.

    Args:
        candidates (`Sequence[Candidate]`), verdicts (`Sequence[Verdict]`):
            The replies, and what the filters said of each.
        path (`str` or `Path`):
            Files to write, without their suffix; the folder must exist.
        facts (`dict`):
            What to show first: the model, tokens, cost, and so on.
    """
    path = Path(path)
    report = quality_report(candidates, verdicts, facts)
    write_text(path.with_name(f"{path.name}.json"), json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_name(f"{path.name}.md"), _markdown(report, path.name))
    _write_histograms(report, path.with_name(f"{path.name}.png"))


def quality_report(candidates: Sequence[Candidate], verdicts: Sequence[Verdict], facts: dict) -> dict:
    """
    Counts what the filters took.

    Args:
        candidates, verdicts, facts:
            As for [`write_quality_report`].

    Returns:
        `dict`: `facts`; `candidates`, `kept` and `kept_with_answer` (numbers); `dropped` and `answers_dropped`
        (numbers by what for, the most frequent first); `title_in_query` (share, in [0, 1], among all candidates with
        a query and among the kept ones, `None` where there are none); `query_words` (queries by their number of words,
        `all` and `kept`); `examples` of `kept` and `dropped` ones.
    """
    judged = list(zip(candidates, verdicts, strict=True))
    kept = [(one, verdict) for one, verdict in judged if verdict.query_failure is None]
    dropped = [(one, verdict) for one, verdict in judged if verdict.query_failure is not None]
    return {
        "facts": facts,
        "candidates": len(judged),
        "kept": len(kept),
        "kept_with_answer": sum(verdict.answer_failure is None for _, verdict in kept),
        "dropped": dict(Counter(verdict.query_failure for _, verdict in dropped).most_common()),
        "answers_dropped": dict(
            Counter(verdict.answer_failure for _, verdict in kept if verdict.answer_failure).most_common()
        ),
        "title_in_query": {
            "all": _share_with_title([one for one in candidates if one.query]),
            "kept": _share_with_title([one for one, _ in kept]),
        },
        "query_words": {
            "all": _lengths([one for one in candidates if one.query]),
            "kept": _lengths([one for one, _ in kept]),
        },
        "examples": {"kept": _examples(kept), "dropped": _examples(dropped)},
    }


def _share_with_title(candidates):
    if not candidates:
        return None
    return sum(contains_title(one.query, one.title) for one in candidates) / len(candidates)


def _lengths(candidates):
    counts = Counter(len(words(one.query)) for one in candidates)
    return {str(length): counts[length] for length in sorted(counts)}


def _examples(judged):
    """Of each thing that samples were dropped for in turn, evenly spread over those dropped for it."""
    by_failure = {}
    for one, verdict in judged:
        by_failure.setdefault(verdict.query_failure or verdict.answer_failure, []).append((one, verdict))
    turns = chain.from_iterable(zip_longest(*map(_spread, by_failure.values())))
    chosen = [pair for pair in turns if pair is not None][:NUM_EXAMPLES]
    return [
        {
            "title": one.title,
            "query": one.query,
            "answer": one.answer,
            "dropped_for": verdict.query_failure,
            "answer_dropped_for": verdict.answer_failure,
        }
        for one, verdict in chosen
    ]


def _spread(judged):
    count = min(NUM_EXAMPLES, len(judged))
    return [judged[i * len(judged) // count] for i in range(count)]


def _markdown(report, name):
    total = report["candidates"]

    def share(count):
        return f"{count / total:.1%}" if total else "-"

    lines = ["# Quality of the auxiliary data", ""]
    lines += [f"- {_cell(key)}: {_cell(value)}" for key, value in report["facts"].items()]
    for whose, value in report["title_in_query"].items():
        if value is not None:
            lines.append(f"- title stands in the query ({whose}): {value:.1%}")
    lines += ["", f"![What the filters took]({name}.png)", "", "| samples | number | share |", "|---|---:|---:|"]
    rows = {"replies": total}
    rows |= {f"dropped: {failure}": count for failure, count in report["dropped"].items()}
    rows |= {"**kept**": report["kept"]}
    rows |= {f"without answer: {failure}": count for failure, count in report["answers_dropped"].items()}
    rows |= {"**kept with answer**": report["kept_with_answer"]}
    lines += [f"| {label} | {count} | {share(count)} |" for label, count in rows.items()]
    for which, examples in report["examples"].items():
        lines += ["", f"## Examples: {which}", "", "| document | query | answer | dropped for |", "|---|---|---|---|"]
        for one in examples:
            why = one["dropped_for"] or (one["answer_dropped_for"] and f"(answer) {one['answer_dropped_for']}")
            cells = (one["title"], one["query"], one["answer"], why or "")
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def _cell(value):
    """A value as one cell of a Markdown table: no text of a document may become markup."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>#|!&~$])", r"\\\1", text[:200])


def _write_histograms(report, path):
    counts = {"kept": report["kept"]} | report["dropped"]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    bars, lengths = figure.subplots(1, 2)
    colours = ["tab:green", *["tab:red"] * len(report["dropped"])]
    bars.barh(list(counts), list(counts.values()), color=colours)
    bars.invert_yaxis()
    bars.set_xlabel("samples")
    for which, colour in (("all", "mistyrose"), ("kept", "tab:green")):
        numbers = report["query_words"][which]
        lengths.bar([int(length) for length in numbers], list(numbers.values()), width=1, color=colour, label=which)
    lengths.set_xlabel("words of the query")
    lengths.set_ylabel("samples")
    lengths.legend()
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)
