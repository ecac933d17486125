"""The one place where titles are normalised, redirects followed, and docids made from titles."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from .json_lines import read_json_lines

_CONTROL_SPACES = re.compile(r"[\x0b-\r\x1c-\x1f\x85]")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def clean_text(text: str) -> str:
    """
    Drops the control characters (all of category Cc but tab and newline) and lone surrogates, which no tokenizer
    has a use for and Arrow refuses. Those that separate words, such as a form feed, become spaces.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: the text without them.
    """
    if text.isprintable():  # nearly all titles: nothing to look for
        return text
    return _CONTROL_CHARACTERS.sub("", _CONTROL_SPACES.sub(" ", text.replace("\r\n", "\n")))


def normalize_title(title: str) -> str:
    r"""
    Brings a title to the form under which it is a docid: Unicode NFC, underscores as spaces, control characters
    dropped, runs of whitespace as one space, none at the ends.

    Args:
        title (`str`):
            Title as the source spells it.

    Returns:
        `str`: the normalised title; empty if there is nothing to see in it.

    Example:

    ```python
    >>> normalize_title(" Eiffel_Tower\t")
    'Eiffel Tower'
    ```
    """
    words = unicodedata.normalize("NFC", title).replace("_", " ").split()
    # Once more, since a word of control characters leaves two spaces.
    title = " ".join(clean_text(" ".join(words)).split())
    return title if title.strip(_INVISIBLE) else ""


def section_docid(page: str, *sections: str) -> str:
    """
    Makes the docid of a section, in CorpusLM's form "title, section" (`mint.md`, Sections). It is made here and read
    nowhere: titles hold commas of their own, so the collection names each section's page in a column.

    Args:
        page (`str`):
            Title of the page, as the source spells it.
        *sections (`str`):
            Titles of the section and of those it lies in, the outermost first; none, or an empty one, for the lead
            section.

    Returns:
        `str`: the normalised docid.

    Example:

    ```python
    >>> section_docid("Paris", "History", "Middle_Ages"), section_docid("Paris")
    ('Paris, History, Middle Ages', 'Paris')
    ```
    """
    return ", ".join(filter(None, map(normalize_title, (page, *sections))))


def kilt_section_titles(section: str) -> list[str]:
    r"""
    Reads the section of a KILT provenance.

    Args:
        section (`str`):
            "Section::::", then the headings from the page down, each with a full stop behind it and colons between
            them; or a bare heading, taken as it is; or empty.

    Returns:
        `list[str]`: the headings, none for the lead section (KILT: "Section::::Abstract.").

    Example:

    ```python
    >>> kilt_section_titles("Section::::History.:Middle Ages.\n")
    ['History', 'Middle Ages']
    ```
    """
    headings = section.strip()
    if not headings.startswith("Section::::"):
        return [headings] if headings else []
    titles = headings.removeprefix("Section::::").removesuffix(".").split(".:")
    return [] if titles == ["Abstract"] else titles


def resolve_title(title: str, redirects: Mapping[str, str]) -> str:
    """
    Brings a title to the form under which it is a docid, and follows where it redirects to.

    Args:
        title (`str`):
            Title as the source spells it.
        redirects (`Mapping[str, str]`):
            Titles by their aliases, of [`load_redirects`]; or empty.

    Returns:
        `str`: the normalised title that it stands for.
    """
    title = normalize_title(title)
    return redirects.get(title, title)


def load_redirects(path: str | Path) -> dict[str, str]:
    """
    Reads a table of redirects, such as Wikipedia's. Chains are followed, so that one look-up reaches their end.

    Args:
        path (`str` or `Path`):
            `.json`, one object of alias -> title; or rows with the alias under "title" and where it leads under
            "redirect", as Wikipedia's dumps name them: `.parquet`, anything else is read as JSONL.

    Returns:
        `dict[str, str]`: normalised title by normalised alias.

    Raises:
        `ValueError`: if the file is malformed, a title is empty, an alias leads to two titles, or redirects form a
            cycle, naming it.
    """
    redirects = {}
    for place, alias, title in _redirect_rows(Path(path)):
        if not isinstance(alias, str) or not isinstance(title, str):
            raise ValueError(f"{place}: a redirect needs two titles as strings. Mend or delete it.")
        alias, title = normalize_title(alias), normalize_title(title)
        if not alias or not title:
            raise ValueError(f"{place}: a redirect needs two titles, one is empty. Mend or delete it.")
        if alias == title:  # two spellings that are one docid
            continue
        if redirects.setdefault(alias, title) != title:
            raise ValueError(f"{place}: '{alias}' leads to '{redirects[alias]}' and to '{title}'. Delete one of them.")
    ends = {}
    for title in redirects:
        chain = {}
        while title in redirects and title not in ends:
            if title in chain:
                cycle = [*list(chain)[list(chain).index(title) :], title]
                raise ValueError(f"{path}: redirects form a cycle, {' -> '.join(cycle)}. Break it.")
            chain[title] = None
            title = redirects[title]
        ends |= dict.fromkeys(chain, ends.get(title, title))
    return ends


def _redirect_rows(path: Path) -> Iterator[tuple[str, object, object]]:
    """Place, alias and title of each redirect."""
    if path.suffix == ".json":
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON ({error}). For one redirect a line, name it .jsonl.") from error
        if not isinstance(table, dict):
            raise ValueError(f"{path}: expected one JSON object of alias -> title. Name JSONL files .jsonl.")
        for alias, title in table.items():
            yield f"{path}, alias '{alias}'", alias, title
    elif path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            missing = {"title", "redirect"} - set(file.schema_arrow.names)
            if missing:
                raise ValueError(f"{path}: no column '{missing.pop()}'. A redirect table has 'title' and 'redirect'.")
            row = 0
            for batch in file.iter_batches(columns=["title", "redirect"]):
                for redirect in batch.to_pylist():
                    yield f"{path}, row {row}", redirect["title"], redirect["redirect"]
                    row += 1
    else:
        for place, redirect in read_json_lines(path):
            yield place, redirect.get("title"), redirect.get("redirect")
