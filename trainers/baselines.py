"""The retrieval baseline that needs no model: titles that stand in the query."""

import re
from collections import defaultdict


def longest_title_match(queries: list[str], titles: list[str], k: int) -> list[list[str]]:
    """
    Ranks the titles that stand word for word in each query, longest first. It shows how far copying from the query
    gets, so a learned retriever is worth having only above it.

    Letter case and the amount of whitespace do not matter; word boundaries and punctuation do: "Art" is not in
    "earth", and "Mercury (planet)" only in a query that has the brackets. Text without spaces between words (Chinese,
    Thai) counts as one word up to the next punctuation mark.

    Args:
        queries (`list[str]`):
            Queries.
        titles (`list[str]`):
            Titles of the collection. Equal titles count once.
        k (`int`):
            Most titles to give per query.

    Returns:
        `list[list[str]]`: per query, at most `k` distinct titles, by falling number of characters; among equally long
        ones, the one that stands first in the query. Empty if no title stands in it.

    Raises:
        `ValueError`: if `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    titles_of_ngram = defaultdict(list)
    for title in dict.fromkeys(titles):
        titles_of_ngram[_words(title)].append(title)
    ngram_lengths = sorted({len(ngram) for ngram in titles_of_ngram if ngram})

    rankings = []
    for query in queries:
        words = _words(query)
        found = {}
        for start in range(len(words)):
            for length in ngram_lengths:
                found |= dict.fromkeys(titles_of_ngram.get(words[start : start + length], []))
        rankings.append(sorted(found, key=len, reverse=True)[:k])
    return rankings


def _words(text):
    """The words of a text and its punctuation marks, each mark on its own, as a tuple that can be looked up."""
    return tuple(re.findall(r"\w+|[^\w\s]", text.casefold()))
