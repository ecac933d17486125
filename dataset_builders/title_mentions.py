"""Where the titles of a collection stand in a text."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Mention(NamedTuple):
    """
    Attributes:
        start, end (`int`): the characters of the text that the mention takes, `end` not included.
        titles (`list[str]`): the titles that stand there: more than one where they differ in case or spaces only.
    """

    start: int
    end: int
    titles: list[str]


class TitleMentions:
    """
    Finds titles that stand word for word in a text.

    Letter case and the amount of whitespace do not matter; word boundaries and punctuation do: "Art" is not in
    "earth", and "Mercury (planet)" only in a text that has the brackets. Text without spaces between words (Chinese,
    Thai) counts as one word up to the next punctuation mark.

    Args:
        titles (`Iterable[str]`):
            The titles. Equal ones count once.

    Example:

    ```python
    >>> TitleMentions(["Korea", "North Korea"]).find("Is north korea a state?")
    [Mention(start=3, end=14, titles=['North Korea']), Mention(start=9, end=14, titles=['Korea'])]
    ```
    """

    def __init__(self, titles: Iterable[str]):
        self._titles_of_words = defaultdict(list)
        for title in dict.fromkeys(titles):
            self._titles_of_words[tuple(word for word, _, _ in _words(title))].append(title)
        self._lengths = sorted({len(words) for words in self._titles_of_words if words}, reverse=True)

    def find(self, text: str) -> list[Mention]:
        """
        All mentions, those inside others too.

        Args:
            text (`str`):
                The text.

        Returns:
            `list[Mention]`: by where they start, the longest first.
        """
        words = _words(text)
        mentions = []
        for first in range(len(words)):
            for length in self._lengths:
                stretch = words[first : first + length]
                titles = self._titles_of_words.get(tuple(word for word, _, _ in stretch))
                if titles and len(stretch) == length:
                    mentions.append(Mention(stretch[0][1], stretch[-1][2], titles))
        return mentions


def _words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text and its punctuation marks, each mark on its own, with their place."""
    return [(found.group().casefold(), *found.span()) for found in re.finditer(r"\w+|[^\w\s]", text)]
