"""Which of an LLM's replies are good enough to learn from, and what the others are dropped for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .bm25 import Bm25Retriever
from .filters import (
    answer_is_short,
    answer_not_in_query,
    answer_stands_in_document,
    check_language,
    contains_title,
    has_length,
    has_own_words,
    is_in_language,
    is_no_copy,
    is_question,
    near_duplicates,
    returns_to_source,
    stands_alone,
)

NOT_IN_FORM = "not in the form asked for"
NOT_FOUND_AGAIN = "BM25 does not find the document"
NEAR_DUPLICATE = "repeats an earlier query"

TITLE_IN_QUERY = ("keep", "drop", "require")


@dataclass
class QualityArguments:
    """
    Settings of the quality filters, see [`judge`].

    Args:
        query_language (`str`, *optional*, defaults to `"en"`): ISO 639-1 code of the language that queries must be in;
            `None` takes any. The filters that know English words (is it a question, does it stand alone) apply to
            `"en"` only.
        min_query_words (`int`, *optional*, defaults to 3): fewest words of a query.
        max_query_words (`int`, *optional*, defaults to 30): most words of a query.
        title_in_query (`str`, *optional*, defaults to `"keep"`): `"drop"` drops queries in which the title of their
            document stands word for word: finding it takes copying only. `"require"` drops the others: an LLM's query
            that does not name what it is about is often as much about another document.
        min_own_words (`int`, *optional*, defaults to 0): fewest words of a query that ask for something, see
            [`~dataset_builders.filters.has_own_words`]; 1 drops "What is Rigel?" about Rigel.
        max_copied_words (`int`, *optional*, defaults to 9): most words in a row that a query may have from its
            document.
        max_answer_words (`int`, *optional*, defaults to 12): most words of an answer.
        max_bm25_rank (`int`, *optional*, defaults to 1): BM25 must find the source document among that many
            first ones; 0 asks for no round trip. A query that finds another document first is often one about that.
        duplicate_similarity (`float`, *optional*, defaults to 0.9): Jaccard similarity of the content words from which
            a query repeats an earlier one; 0 looks for no duplicates.
    """

    query_language: str | None = field(
        default="en", metadata={"help": "Language of the queries (ISO 639-1; none: any)."}
    )
    min_query_words: int = field(default=3, metadata={"help": "Fewest words of a query."})
    max_query_words: int = field(default=30, metadata={"help": "Most words of a query."})
    title_in_query: str = field(
        default="keep",
        metadata={"help": "What to do about queries that hold the title.", "choices": [*TITLE_IN_QUERY]},
    )
    min_own_words: int = field(default=0, metadata={"help": "Fewest words beside the title that ask for something."})
    max_copied_words: int = field(default=9, metadata={"help": "Most words in a row copied from the document."})
    max_answer_words: int = field(default=12, metadata={"help": "Most words of an answer."})
    max_bm25_rank: int = field(
        default=1, metadata={"help": "BM25 must find the document among that many first (0: no matter)."}
    )
    duplicate_similarity: float = field(
        default=0.9, metadata={"help": "Similarity from which a query repeats an earlier one (0: no matter)."}
    )

    def __post_init__(self):
        if self.query_language == "none":
            self.query_language = None
        if self.query_language is not None:
            check_language(self.query_language)
        if self.title_in_query not in TITLE_IN_QUERY:
            raise ValueError(f"title_in_query is {self.title_in_query!r}; it must be one of {TITLE_IN_QUERY}.")
        if not 1 <= self.min_query_words <= self.max_query_words:
            raise ValueError(
                f"min_query_words is {self.min_query_words} and max_query_words {self.max_query_words}; they must be "
                "at least 1 and in this order."
            )
        for name in ("min_own_words", "max_copied_words", "max_answer_words", "max_bm25_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0.")
        if not 0 <= self.duplicate_similarity <= 1:
            raise ValueError(f"duplicate_similarity is {self.duplicate_similarity}; it must lie in [0, 1].")


@dataclass(frozen=True)
class Candidate:
    """
    A reply of the LLM, before the filters.

    Args:
        row (`int`):
            Row of the source document.
        title (`str`), text (`str`):
            Its title and its whole text.
        passage (`str`):
            The part of it that the LLM saw.
        query (`str`), answer (`str`):
            What the LLM wrote; both empty if the reply had not the form asked for.
    """

    row: int
    title: str
    text: str
    passage: str
    query: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """
    What the filters say of a candidate.

    Args:
        query_failure (`str` or `None`):
            What the sample is dropped for.
        answer_failure (`str` or `None`):
            What its answer is dropped for. The query stays: it still teaches retrieval.
    """

    query_failure: str | None
    answer_failure: str | None


def query_filters(arguments: QualityArguments) -> dict[str, Callable[[Candidate], bool]]:
    """What a query is dropped for -> test that it must pass, in the order in which they are applied."""
    english = arguments.query_language == "en"
    filters = {
        NOT_IN_FORM: lambda one: bool(one.query),
        "too short or too long": lambda one: has_length(
            one.query, arguments.min_query_words, arguments.max_query_words
        ),
        "not a question": lambda one: not english or is_question(one.query),
        "does not stand alone": lambda one: not english or stands_alone(one.query),
        "in another language": lambda one: (
            arguments.query_language is None or is_in_language(one.query, arguments.query_language)
        ),
        "copied from the document": lambda one: is_no_copy(one.query, one.text, arguments.max_copied_words),
    }
    if arguments.title_in_query == "drop":
        filters["holds the title"] = lambda one: not contains_title(one.query, one.title)
    if arguments.title_in_query == "require":
        filters["does not hold the title"] = lambda one: contains_title(one.query, one.title)
    if arguments.min_own_words:
        filters["asks for the title alone"] = lambda one: has_own_words(one.query, one.title, arguments.min_own_words)
    return filters


def answer_filters(arguments: QualityArguments) -> dict[str, Callable[[Candidate], bool]]:
    """What an answer is dropped for -> test that it must pass, in the order in which they are applied."""
    return {
        "answer missing or too long": lambda one: answer_is_short(one.answer, arguments.max_answer_words),
        "answer not in the document": lambda one: answer_stands_in_document(one.answer, one.text),
        "answer in the query": lambda one: answer_not_in_query(one.query, one.answer),
    }


def judge(candidates: Sequence[Candidate], arguments: QualityArguments, retriever: Bm25Retriever) -> list[Verdict]:
    """
    Applies all filters: those of one query by itself, then, to what is left, the round trip, and to what is left then,
    the search for duplicates.

    Args:
        candidates (`Sequence[Candidate]`):
            The replies. Those about one document should follow each other, since its words are looked up anew when the
            document changes.
        arguments ([`QualityArguments`]):
            Settings.
        retriever ([`~dataset_builders.bm25.Bm25Retriever`]):
            BM25 over the collection, for the round trip.

    Returns:
        `list[Verdict]`: one for each candidate, in their order. The answer of a dropped query is not judged.
    """
    of_query, of_answer = query_filters(arguments), answer_filters(arguments)
    failures = [_first_failure(of_query, one) for one in candidates]
    left = [number for number, failure in enumerate(failures) if failure is None]
    if arguments.max_bm25_rank:
        found = returns_to_source(
            [candidates[number].query for number in left],
            [candidates[number].row for number in left],
            retriever,
            arguments.max_bm25_rank,
        )
        failures, left = _drop(failures, left, [not one for one in found], NOT_FOUND_AGAIN)
    if arguments.duplicate_similarity:
        repeats = near_duplicates([candidates[number].query for number in left], arguments.duplicate_similarity)
        failures, left = _drop(failures, left, repeats, NEAR_DUPLICATE)
    return [
        Verdict(failure, None if failure else _first_failure(of_answer, one))
        for one, failure in zip(candidates, failures, strict=True)
    ]


def _first_failure(filters, candidate):
    return next((name for name, passes in filters.items() if not passes(candidate)), None)


def _drop(failures, left, dropped, name):
    """Notes `name` for those of `left` that are dropped; returns all failures, and who is left."""
    failures = list(failures)
    for number, is_dropped in zip(left, dropped, strict=True):
        if is_dropped:
            failures[number] = name
    return failures, [number for number in left if failures[number] is None]
