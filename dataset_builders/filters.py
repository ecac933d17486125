"""What a pseudo-query and its pseudo-answer must be like to be kept: one pure function for each demand."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache

from datasketch import MinHash, MinHashLSH
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from modeling_mint.tasks_mint import without_brackets

from .bm25 import Bm25Retriever

QUESTION_WORDS = frozenset(
    "who whom whose what which when where why how is are was were do does did can could has have had will would "
    "shall should may might must if in on at by for from to of under after before during into with".split()
)
"""First words of an English question; the prepositions open questions such as "In which year ..."."""

EMPTY_WORDS = frozenset(
    "what which is are was were do does did has have had the a an of in on at to for and or it its that this there "
    "name called term type".split()
)
"""
English words that do not tell one question from another. Words such as "who", "when" and "before" do: "When was it
built?" is not "Who built it?".
"""

TALK_OF_THE_PASSAGE = re.compile(
    r"\b(?:the|this) (?:passage|paragraph|article|text|author)\b(?! (?:of|who)\b)"
    r"|\b(?:mentioned|described|listed|shown) (?:above|below|here)\b"
    r"|\b(?:the|of these) (?:following|above) |\bof the following\b|\btrue or false\b|\b[A-D]\)",
    re.IGNORECASE,
)
"""What an English question says that cannot be asked without its passage."""

NUM_PERMUTATIONS = 128
"""Hash functions of a MinHash: the more, the fewer duplicates are missed."""

# Chinese and Japanese are written without spaces: there a word is one character.
_HAN_AND_KANA = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[^\W{_HAN_AND_KANA}]+|[{_HAN_AND_KANA}]")


def words(text: str) -> list[str]:
    """Lower-cased words of a text, without punctuation; each Chinese or Japanese character is a word."""
    return _WORD.findall(text.lower())


# A document is asked about several times in a row, and may have a million characters.
@lru_cache(maxsize=4)
def _run_of_words(text: str) -> str:
    """The words of a text with single spaces between and around them, so that runs of words can be looked for."""
    return f" {' '.join(words(text))} "


@cache
def _language_identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_language(language: str) -> None:
    """
    Raises a `ValueError` if [`is_in_language`] does not know a language.

    Args:
        language (`str`):
            ISO 639-1 code, such as `"en"`.
    """
    known = _language_identifier().labels
    if language not in known:
        raise ValueError(f"language is {language!r}; it must be one of {', '.join(sorted(known))}.")


def is_in_language(query: str, language: str, min_probability: float = 0.01) -> bool:
    """
    Whether a query may be in a language, by its characters (py3langid). Questions are short and full of foreign names:
    words with capital letters behind the first word do not count, and a language that is merely not the likeliest one
    passes.

    Args:
        query (`str`):
            The query.
        language (`str`):
            ISO 639-1 code, such as `"en"`.
        min_probability (`float`, *optional*, defaults to 0.01):
            Probability from which it passes.
    """
    first, *others = query.split() or [""]
    no_names = " ".join([first, *(word for word in others if word == word.lower())])
    return dict(_language_identifier().rank(no_names))[language] >= min_probability


def has_length(query: str, min_words: int, max_words: int) -> bool:
    """Whether the query has `min_words` to `max_words` words."""
    return min_words <= len(words(query)) <= max_words


def is_question(query: str) -> bool:
    """Whether the query begins like an English question and ends in its only question mark."""
    first = words(query)[:1]
    return bool(first) and first[0] in QUESTION_WORDS and query.endswith("?") and query.count("?") == 1


def stands_alone(query: str) -> bool:
    """Whether the query can be asked without the passage: it speaks of none, and offers no choices."""
    return TALK_OF_THE_PASSAGE.search(query) is None


def contains_title(query: str, title: str) -> bool:
    """Whether the title, with or without its part in brackets, stands word for word in the query."""
    query_words = _run_of_words(query)
    names = (" ".join(words(name)) for name in (title, without_brackets(title)))
    return any(f" {name} " in query_words for name in names if name)


def has_own_words(query: str, title: str, min_words: int) -> bool:
    """
    Whether the query asks for something: it has `min_words` different words beside its first one, the title's words
    and those of `EMPTY_WORDS`. "Who was Mary Shelley?" has none, "What did Mary Shelley write?" has one.
    """
    return len(set(words(query)[1:]) - set(words(title)) - EMPTY_WORDS) >= min_words


def is_no_copy(query: str, text: str, max_words: int) -> bool:
    """Whether no more than `max_words` words of the query stand in the text one after the other."""
    query_words, length = words(query), max_words + 1
    runs = (f" {' '.join(query_words[i : i + length])} " for i in range(len(query_words) - max_words))
    return not any(run in _run_of_words(text) for run in runs)


def answer_is_short(answer: str, max_words: int) -> bool:
    """Whether the answer has 1 to `max_words` words."""
    return 1 <= len(words(answer)) <= max_words


def _without_article(answer):
    answer_words = words(answer)
    return f" {' '.join(answer_words[answer_words[:1] in (['the'], ['a'], ['an']) :])} "


def answer_stands_in_document(answer: str, text: str) -> bool:
    """Whether the words of the answer, but for an article before them, stand in the document one after the other."""
    return _without_article(answer) in _run_of_words(text)


def answer_not_in_query(query: str, answer: str) -> bool:
    """Whether the query does not give its answer, but for an article before it, away."""
    return _without_article(answer) not in _run_of_words(query)


def returns_to_source(
    queries: Sequence[str], rows: Sequence[int], retriever: Bm25Retriever, max_rank: int
) -> list[bool]:
    """
    Round trip: whether BM25 finds the document that a query was written from.

    Args:
        queries (`Sequence[str]`):
            The queries.
        rows (`Sequence[int]`):
            For each the row of its source document.
        retriever ([`~dataset_builders.bm25.Bm25Retriever`]):
            BM25 over the collection.
        max_rank (`int`):
            Lowest rank that counts as found.

    Returns:
        `list[bool]`: whether the source is among the first `max_rank`, by query.
    """
    found, _ = retriever.retrieve(list(queries), max_rank)
    return [row in ranking for row, ranking in zip(rows, found.tolist(), strict=True)]


def near_duplicates(queries: Sequence[str], threshold: float) -> list[bool]:
    """
    Finds queries that say what an earlier one says: whose sets of content words (all words, where there are none)
    have a Jaccard similarity of `threshold` or more. With 0.9, queries of up to nine content words need the same ones,
    so that "the capital of Kenya" is not "the capital of Ghana". Candidates come from MinHash (datasketch), which may
    miss a similar query but none of the same words; the similarity itself is exact.

    Args:
        queries (`Sequence[str]`):
            The queries. Of duplicates the first stays.
        threshold (`float`):
            Similarity, in (0, 1].

    Returns:
        `list[bool]`: whether it repeats an earlier query that stays, by query.
    """
    # Missing a duplicate is worse than a candidate more to compare with, so false negatives weigh more.
    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS, weights=(0.1, 0.9))
    content = [set(words(query)) - EMPTY_WORDS or set(words(query)) for query in queries]
    encoded = ([word.encode() for word in own] for own in content)
    repeats = []
    for number, minhash in enumerate(MinHash.generator(encoded, num_perm=NUM_PERMUTATIONS)):
        own = content[number]
        similar = (content[earlier] for earlier in index.query(minhash))
        repeats.append(any(len(own & other) >= threshold * len(own | other) for other in similar))
        if not repeats[-1]:
            index.insert(number, minhash)
    return repeats
