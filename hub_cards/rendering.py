"""Cards from templates: what a template asks for and the run does not state is an error, never a blank."""

import json
import traceback
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent / "templates"
METRICS = {  # key in an evaluation row -> (task type, column heading)
    "r_precision": ("text-retrieval", "R-precision"),
    "recall@5": ("text-retrieval", "Recall@5"),
    "em": ("question-answering", "EM"),
    "f1": ("question-answering", "F1"),
    "kilt_em": ("question-answering", "KILT-EM"),
    "kilt_f1": ("question-answering", "KILT-F1"),
}
SIZE_CATEGORIES = {  # the Hub's name for a number of rows below the key
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}
DESCRIPTIONS = {"backbone", "llm", "collection", "command", "license_chain"}
"""Sections of the report in which a person may have to write something."""
UNFILLED = ("", "todo", "tbd", "?", "none", "null", "n/a", "[more information needed]")
"""What people and tools write where they have nothing to say, in lower case."""


def render(template: str, run: dict[str, Any], org: str | None, **facts: Any) -> str:
    """
    Fills a template.

    Args:
        template (`str`):
            Name of a file in `templates/`.
        run (`dict[str, Any]`):
            Report of the run.
        org (`str`, *optional*):
            Account whose repositories the card names. Without it, it names the folders of the run.
        **facts:
            What else the template asks for.

    Returns:
        `str`: the text of the card.

    Raises:
        ValueError: a fact that the template states is missing, null, or only a stand-in such as "TODO".
    """
    for section in DESCRIPTIONS & run.keys():
        _check_filled(run[section], section)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=_stated,
        trim_blocks=True,
        lstrip_blocks=True,
        # Else what follows an included file would go on in its last line.
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": _yaml, "fact": _fact, "metric": _metric, "size_category": _size_category}
    prefix = "" if org is None else f"{org}/"
    try:
        return environment.get_template(template).render(run=run, prefix=prefix, metrics=METRICS, **facts)
    except jinja2.UndefinedError as error:
        place = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".md")][-1]
        raise ValueError(
            f"{place.filename}, line {place.lineno} (`{place.line}`) states a fact that run.json does not hold: "
            f"{error.message}. Add it to run.json, or run the stage that reports it again."
        ) from error


def _stated(value: Any) -> Any:
    """A null is no fact: without this, a card would say "None"."""
    if value is None:
        raise jinja2.UndefinedError("it is null there")
    return value


def _check_filled(facts: Any, path: str) -> None:
    """Raises `ValueError` for a fact that is only a stand-in."""
    if isinstance(facts, dict):
        for name, inner in facts.items():
            _check_filled(inner, f"{path}.{name}")
    elif isinstance(facts, list):
        for inner in facts:
            _check_filled(inner, path)
    elif isinstance(facts, str) and facts.strip().lower() in UNFILLED:
        raise ValueError(f"run.json, {path}, is not filled in ({facts!r}), and the cards state it: write it there.")


def _yaml(value: str) -> str:
    """A string of the metadata block, quoted (a JSON string is a YAML string)."""
    return json.dumps(str(_stated(value)), ensure_ascii=False)


def _fact(value: Any) -> str:
    """One cell of a table: floats to four digits, nested facts on one line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_fact(inner) for inner in value)
    return str(_stated(value)).replace("|", r"\|")


def _metric(value: float | None) -> str:
    """A score; a dash where the system has none (BM25 writes no answers)."""
    return "–" if value is None else f"{float(value):.3f}"


def _size_category(num_rows: int) -> str:
    return next((name for limit, name in SIZE_CATEGORIES.items() if num_rows < limit), "100M<n<1B")
