"""Documents cut into passages that fit into a prompt."""

import re

from .titles import clean_text


def split_passages(title: str, text: str, max_chars: int, opens_page: bool = True) -> list[str]:
    """
    Cuts a text into consecutive passages that end where a sentence ends. A sentence that is longer than a passage
    is cut at its last space that fits. Takes time in proportion to the text, however long.

    Args:
        title (`str`):
            Title of the document. It goes in front of every passage after the first, which would not say otherwise
            what it is about.
        text (`str`):
            Text of the document.
        max_chars (`int`):
            Longest passage, in characters, the title not counted.
        opens_page (`bool`, *optional*, defaults to `True`):
            Whether the text is the beginning of a page, which says itself what it is about. A later section does not:
            its first passage has the title in front of it, too.

    Returns:
        `list[str]`: the passages, each a single line without control characters, so that nothing in a document can
        pass for a line of the prompt or of the reply. None for a text in which there is nothing to see.
    """
    title, text = single_line(title), single_line(text)
    passages = []
    start = 0
    while start < len(text):
        window = text[start : start + max_chars + 1]
        length = len(window)
        if length > max_chars:
            sentence_ends = [match.end() for match in re.finditer(r"[.!?](?= )", window)]
            length = sentence_ends[-1] if sentence_ends else window.rfind(" ")
            if length <= 0:
                length = max_chars
        passage = text[start : start + length]
        passages.append(passage if opens_page and not passages else f"{title}: {passage}")
        start += length
        if text[start : start + 1] == " ":
            start += 1
    return passages


def single_line(text: str) -> str:
    """A text without control characters and with single spaces for all whitespace, none at its ends."""
    # Dropped control characters may leave spaces side by side.
    return " ".join(clean_text(" ".join(text.split())).split())
