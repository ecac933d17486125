"""What the page says about a question before the models see it."""

import math
import re
import unicodedata
from collections.abc import Collection
from typing import Any

STRATEGIES = {
    "rag": "retrieve, then answer",
    "gar": "answer, then retrieve",
    "ensemble": "both, ranked together",
    "cascade": "GAR retrieves, RAG answers",
}
MAX_DOCUMENTS = 10
MAX_QUERY_CHARACTERS = 2000
MAX_WORD_CHARACTERS = 100

# Function words: hardly a question of some length is without one of its language.
_ENGLISH = set(
    "a about and are at by can did do does during first for from had has have how in into is it of on or than that "
    "the their there these this to was were what when where which who whom whose why will with".split()
)
_FOREIGN = set(
    "che chi como comment cual cuál cuando cuándo das de del der des die dónde dove el en est et fue fut hat il ist "
    "la las le les los où och ou per por pourquoi qual quando que qué quel quelle qui quién são sind su sur um un und "
    "une van vem von wann warum wer wie wo zijn".split()
)


def clean_question(query: str) -> str:
    """
    The question on one line, without what is no text: control and formatting characters (those that join letters or
    emoji stay) and halves of surrogate pairs.
    """
    kept = query.encode("utf-8", "ignore").decode("utf-8")
    kinds = ((character, unicodedata.category(character)) for character in kept)
    kept = "".join(
        " " if kind == "Cc" else character for character, kind in kinds if kind != "Cf" or character in "\u200c\u200d"
    )
    return " ".join(kept.split())


def refusal(query: str) -> str:
    """
    Why a question cannot be asked.

    Args:
        query (`str`): a question from [`clean_question`].

    Returns:
        `str`: what to do, or an empty string where nothing is wrong.
    """
    if not query:
        return "Type a question first."
    if len(query) > MAX_QUERY_CHARACTERS:
        return f"That is {len(query):,} characters long; ask in at most {MAX_QUERY_CHARACTERS:,}."
    if not any(character.isalnum() for character in query):
        return "There is no letter or digit in that; ask in words."
    # Many scripts write no spaces: only words in Latin letters can be too long.
    longest = max(map(len, re.findall(r"[!-~]+", query)), default=0)
    if longest > MAX_WORD_CHARACTERS:
        return f"There is a word of {longest:,} characters in that; is a space missing?"
    return ""


def wrong_settings(strategy: Any, top_k: Any, threshold: Any, topic: Any, topics: Collection[str]) -> str:
    """
    What is wrong with the settings of a question. Programs may send anything.

    Args:
        strategy, top_k, threshold, topic (`Any`): settings as they came.
        topics (`Collection[str]`): topics that there are.

    Returns:
        `str`: what to do, or an empty string where nothing is wrong.
    """
    if strategy not in list(STRATEGIES):
        return f"There is no such strategy; choose one of {', '.join(STRATEGIES)}."
    if not _is_number(top_k) or not 1 <= top_k <= MAX_DOCUMENTS:
        return f"Ask for 1 to {MAX_DOCUMENTS} documents."
    if not _is_number(threshold) or not 0 <= threshold <= 1:
        return "The confidence below which no answer is given lies between 0 and 1."
    if topic not in ["", *topics]:
        return f"There is no such topic; choose one of {', '.join(topics) or 'none'}, or leave it empty."
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def looks_foreign(query: str) -> bool:
    """Whether a question is probably not English: another script, or the small words of another language."""
    letters = [character for character in query if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if 2 * latin < len(letters):
        return True
    words = set(re.findall(r"\w+", query.lower()))
    # One alone is often a part of a name: Los Angeles, Le Corbusier.
    return len(words & _FOREIGN) > max(1, len(words & _ENGLISH))
