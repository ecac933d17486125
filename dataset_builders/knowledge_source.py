"""KILT's knowledge source, the Wikipedia dump that its tasks point into, -> rows of the collection."""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from .titles import clean_text, kilt_section_titles, normalize_title, resolve_title, section_docid

KILT_URL = "http://dl.fbaipublicfiles.com/KILT/"
"""Where the authors of KILT (Petroni et al., NAACL 2021) keep its files."""

KNOWLEDGE_SOURCE = "kilt_knowledgesource.json"
"""Name of the file there: 35 GB, one page of Wikipedia (August 2019) a line, 5.9 million of them."""


class _Section(NamedTuple):
    """Headings from the page down (none: the lead), and the paragraphs by their index in the page's "text"."""

    headings: list[str]
    paragraphs: dict[int, str]


def kilt_rows(
    place: str,
    page: dict,
    by_section: bool = False,
    max_paragraphs: int | None = None,
    max_related: int = 20,
    redirects: Mapping[str, str] | None = None,
) -> Iterator[dict]:
    r"""
    Turns a page of the knowledge source into rows of the collection.

    A page's text is its paragraphs, one a line. List items lose their mark ("BULLET::::"). A heading stays where
    paragraphs follow, as a line without the headings above it: a list of names says little without "Cast" on top. By
    section headings are left out, since the docid holds them. A page (not: a section) without any paragraph has its
    title for text, so that it keeps its place among the documents.

    `related` is where the anchors of these paragraphs lead: distinct titles in the order of the text, never the page
    itself. They are titles of pages, the first letter in upper case as Wikipedia stores it, whatever the granularity.

    Args:
        place (`str`):
            Where the page stands, for messages.
        page (`dict`):
            The record: "wikipedia_title", "wikipedia_id", "text" (title, then paragraphs and headings), "anchors",
            "categories", "wikidata_info".
        by_section (`bool`, *optional*, defaults to `False`):
            Whether a row is a section instead of the page. Sections without paragraphs are no rows.
        max_paragraphs (`int`, *optional*):
            How many paragraphs to keep, from the top of the page; all by default.
        max_related (`int`, *optional*, defaults to 20):
            Most titles in `related`.
        redirects (`Mapping[str, str]`, *optional*):
            Titles by their aliases, of [`~dataset_builders.titles.load_redirects`], for where anchors lead.

    Yields:
        `dict`: rows with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`], by section of
        [`~dataset_builders.features.SECTION_COLLECTION_FEATURES`].

    Raises:
        `ValueError`: if the record is not of this form, naming its place.

    Example:

    ```python
    >>> text = ["Paris\n", "A city.\n", "Section::::Sights.\n", "BULLET::::- Louvre\n"]
    >>> page = {"wikipedia_title": "Paris", "text": text}
    >>> [(row["title"], row["text"]) for row in kilt_rows("line 1", page, by_section=True)]
    [('Paris', 'A city.'), ('Paris, Sights', '- Louvre')]
    ```
    """
    name, text, anchors = page.get("wikipedia_title"), page.get("text"), page.get("anchors") or []
    if not isinstance(name, str) or not (title := normalize_title(name)):
        raise ValueError(f"{place}: 'wikipedia_title' must be a title. Mend or delete this page.")
    if not isinstance(text, list) or not all(isinstance(paragraph, str) for paragraph in text):
        raise ValueError(f"{place}: 'text' must be a list of paragraphs. Mend or delete this page.")
    if not isinstance(anchors, list) or not all(_is_anchor(anchor) for anchor in anchors):
        raise ValueError(
            f"{place}: 'anchors' must be a list of objects with 'href' and 'paragraph_id'. Mend or delete this page."
        )
    metadata = {key: page[key] for key in ("wikipedia_id", "categories") if page.get(key)}
    if isinstance(wikidata := page.get("wikidata_info"), dict) and wikidata.get("wikidata_id"):
        metadata["wikidata_id"] = wikidata["wikidata_id"]
    metadata = clean_text(json.dumps(metadata, ensure_ascii=False))

    sections = _sections(text, max_paragraphs) or [_Section([], {0: title})]
    if by_section:
        for section in sections:
            yield {
                "title": section_docid(name, *section.headings),
                "text": "\n".join(section.paragraphs.values()),
                "related": _related(title, anchors, section.paragraphs, max_related, redirects or {}),
                "metadata": metadata,
                "page": title,
            }
    else:
        lines = [line for section in sections for line in (*section.headings[-1:], *section.paragraphs.values())]
        paragraphs = {index for section in sections for index in section.paragraphs}
        yield {
            "title": title,
            "text": "\n".join(lines),
            "related": _related(title, anchors, paragraphs, max_related, redirects or {}),
            "metadata": metadata,
        }


def _is_anchor(anchor: object) -> bool:
    return (
        isinstance(anchor, dict)
        and isinstance(anchor.get("href"), str)
        and isinstance(anchor.get("paragraph_id"), int)
    )


def _sections(text: list[str], max_paragraphs: int | None) -> list[_Section]:
    """The sections that have paragraphs. The first entry of a page's text is its title."""
    sections, num_paragraphs = [_Section([], {})], 0
    for index, entry in enumerate(text[1:], start=1):
        if entry.startswith("Section::::"):
            sections.append(_Section(kilt_section_titles(clean_text(entry)), {}))
        elif paragraph := clean_text(entry).removeprefix("BULLET::::").strip():
            if num_paragraphs == max_paragraphs:
                break
            sections[-1].paragraphs[index] = paragraph
            num_paragraphs += 1
    return [section for section in sections if section.paragraphs]


def _related(
    page: str,
    anchors: list[dict],
    paragraphs: set[int] | dict[int, str],
    max_related: int,
    redirects: Mapping[str, str],
) -> list[str]:
    """Where the anchors in these paragraphs lead."""
    related = {}
    for anchor in anchors:
        if len(related) == max_related:
            break
        if anchor["paragraph_id"] in paragraphs:
            # Behind "#", which may be quoted too, is a section; a link within the page has nothing in front of it.
            link = normalize_title(unquote(anchor["href"]).partition("#")[0])
            if link and (link := resolve_title(link[0].upper() + link[1:], redirects)) != page:
                related[link] = None
    return list(related)
