"""The one place where titles are normalised and docids are made from them."""

import re
import unicodedata

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """
    Drops the control characters (all of category Cc but tab and newline) and lone surrogates, which no tokenizer
    has a use for and Arrow refuses.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: the text without them.
    """
    return _CONTROL_CHARACTERS.sub("", text)


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
    return " ".join(filter(None, map(clean_text, words)))


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
