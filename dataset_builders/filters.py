"""What a pseudo-query and its pseudo-answer must be like to be kept: one pure function for each demand."""

import re
from collections.abc import Callable

QUESTION_WORDS = frozenset(
    "who whom whose what which when where why how is are was were do does did can could has have had will would "
    "in on at by for from to of under after before during into with".split()
)
"""First words of a question; the prepositions open questions such as "In which year ..."."""

EMPTY_WORDS = QUESTION_WORDS | frozenset("the a an and or it its that this there name called term type".split())
"""Words that do not say what a question is about."""


def words(text: str) -> list[str]:
    """Lower-cased words of a text, without punctuation."""
    return re.findall(r"\w+", text.lower())


def is_question(query: str) -> bool:
    """Whether the query begins like a question, ends in its only question mark and has 4 to 30 words."""
    query_words = words(query)
    return (
        4 <= len(query_words) <= 30
        and query.endswith("?")
        and query.count("?") == 1
        and query_words[0] in QUESTION_WORDS
    )


def stands_alone(query: str) -> bool:
    """Whether the query can be asked without the passage: it speaks of none, and offers no choices."""
    talk = r"\b(passage|text|article|paragraph|author|above|following|mentioned|described|true or false)\b|\b[A-D]\)"
    return re.search(talk, query, re.IGNORECASE) is None


def speaks_of_document(query: str, title: str, text: str) -> bool:
    """Whether two or more, and more than half, of the query's content words stand in the title or the document."""
    known = {word[:5] for word in words(f"{title} {text}")}
    content = [word for word in words(query) if word not in EMPTY_WORDS]
    found = sum(word[:5] in known for word in content)
    return found >= 2 and found > 0.5 * len(content)


def answer_is_short(answer: str) -> bool:
    """Whether the answer has 1 to 12 words."""
    return 1 <= len(words(answer)) <= 12


def answer_stands_in_document(answer: str, text: str) -> bool:
    """Whether the words of the answer stand in the document one after the other."""
    return f" {' '.join(words(answer))} " in f" {' '.join(words(text))} "


def answer_not_in_query(query: str, answer: str) -> bool:
    """Whether the query does not give its answer away."""
    return f" {' '.join(words(answer))} " not in f" {' '.join(words(query))} "


def is_no_copy(query: str, text: str) -> bool:
    """Whether no 10 words of the query stand in the document one after the other."""
    query_words, text_words = words(query), f" {' '.join(words(text))} "
    runs = (f" {' '.join(query_words[i : i + 10])} " for i in range(len(query_words) - 9))
    return not any(run in text_words for run in runs)


QUERY_FILTERS: dict[str, Callable[[str, str, str], bool]] = {
    "not in the form asked for": lambda query, title, text: bool(query),
    "not a question": lambda query, title, text: is_question(query),
    "does not stand alone": lambda query, title, text: stands_alone(query),
    "not about the document": lambda query, title, text: speaks_of_document(query, title, text),
    "copied from the document": lambda query, title, text: is_no_copy(query, text),
}
"""What a sample is dropped for -> test of (query, title, text) that it must pass, in this order."""

ANSWER_FILTERS: dict[str, Callable[[str, str, str], bool]] = {
    "answer missing or too long": lambda query, answer, text: answer_is_short(answer),
    "answer not in the document": lambda query, answer, text: answer_stands_in_document(answer, text),
    "answer in the query": lambda query, answer, text: answer_not_in_query(query, answer),
}
"""What an answer is dropped for -> test of (query, answer, text). The query stays: it still teaches retrieval."""


def query_failure(query: str, title: str, text: str) -> str | None:
    """
    Applies [`QUERY_FILTERS`] in their order.

    Args:
        query (`str`):
            Pseudo-query.
        title (`str`), text (`str`):
            Title and text of the source document.

    Returns:
        `str` or `None`: name of the first filter that drops the sample, `None` if it is kept.
    """
    return next((name for name, passes in QUERY_FILTERS.items() if not passes(query, title, text)), None)


def answer_failure(query: str, answer: str, text: str) -> str | None:
    """
    Applies [`ANSWER_FILTERS`] in their order.

    Args:
        query (`str`):
            Pseudo-query.
        answer (`str`):
            Pseudo-answer.
        text (`str`):
            Text of the source document.

    Returns:
        `str` or `None`: name of the first filter that drops the answer, `None` if it is kept.
    """
    return next((name for name, passes in ANSWER_FILTERS.items() if not passes(query, answer, text)), None)
