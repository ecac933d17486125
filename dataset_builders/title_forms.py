"""The forms in which a query names an article: as its title has it, in the plural, or by its last word."""

from collections import Counter
from functools import cache

import inflect

from modeling_mint.tasks_mint import without_brackets

FORMS = ("name", "plural", "last word")


class TitleForms:
    """
    The forms of the titles of a collection.

    Args:
        titles (`list[str]`):
            The titles, by row.

    Example:

    ```python
    >>> forms = TitleForms(["Drum", "Isaac Newton", "Venus (planet)", "Venuses"])
    >>> forms.of(0), forms.of(1), forms.of(2)
    ({'name': 'Drum', 'plural': 'Drums'}, {'name': 'Isaac Newton', 'last word': 'Newton'}, {'name': 'Venus'})
    ```
    """

    def __init__(self, titles: list[str]):
        self.names = [without_brackets(title) for title in titles]
        self._names = Counter(name.casefold() for name in self.names)
        self._words = Counter(word for name in self.names for word in set(name.casefold().split()[1:]))

    def of(self, row: int) -> dict[str, str]:
        """
        The forms of one title that it shares with no other.

        Args:
            row (`int`):
                Row of the title.

        Returns:
            `dict[str, str]`: of `FORMS` those that there are: `"name"`, the title without its part in brackets;
            `"plural"` of a common noun, known by its small letters; `"last word"` of a proper name of several words,
            known by its capitals, if no other title has that word.
        """
        name = self.names[row]
        words = name.split()
        forms = {"name": name} if name and self._names[name.casefold()] == 1 else {}
        if name and name[1:] == name[1:].lower():
            plural = _plural(name)
            if plural and not self._names[plural.casefold()]:
                forms["plural"] = plural
        elif len(words) > 1 and words[-1][0].isupper():
            last = words[-1].casefold()
            if self._words[last] == 1 and not self._names[last]:
                forms["last word"] = words[-1]
        return forms


@cache
def _inflections() -> inflect.engine:
    return inflect.engine()


def _plural(noun: str) -> str:
    """The English plural of a noun; empty if it is one."""
    if _inflections().singular_noun(noun):
        return ""
    return _inflections().plural_noun(noun)
