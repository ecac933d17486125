import pytest

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.quality import Candidate, QualityArguments, Verdict, judge, query_filters

DOCUMENTS = [
    (
        "Gustave Eiffel",
        "Gustave Eiffel was a French engineer. In 1889 his company built, for the world's fair, an iron tower that "
        "became the symbol of the city of Paris.",
    ),
    ("Cat", "The cat is a small animal that hunts mice at night."),
    ("Dog", "The dog is an animal that hunts foxes by day, guards houses at night, and leaves mice to cats."),
]


@pytest.fixture(scope="module")
def retriever():
    return Bm25Retriever(*map(list, zip(*DOCUMENTS, strict=True)))


def candidate(query, answer="1889", row=0):
    title, text = DOCUMENTS[row]
    return Candidate(row=row, title=title, text=text, passage=text, query=query, answer=answer)


@pytest.mark.parametrize(
    ("query", "answer", "verdict"),
    [
        ("Which engineer's company built the tower in Paris?", "Gustave Eiffel", (None, None)),
        ("", "", ("not in the form asked for", None)),
        ("Who, Eiffel?", "engineer", ("too short or too long", None)),
        ("Who built " + "the iron tower " * 10 + "?", "1889", ("too short or too long", None)),
        ("The engineer Gustave Eiffel built the tower.", "iron", ("not a question", None)),
        ("Which tower is mentioned in the passage?", "iron", ("does not stand alone", None)),
        ("What ist der Turm des Ingenieurs Eiffel in der Stadt Paris?", "iron", ("in another language", None)),
        ("What is the best food for small cats?", "iron", ("BM25 does not find the document", None)),
        (
            "What iron tower that became the symbol of the city of Paris is French?",
            "1889",
            ("copied from the document", None),
        ),
        ("Who built the iron tower in Paris?", "word " * 13, (None, "answer missing or too long")),
        ("Who built the iron tower in Paris?", "", (None, "answer missing or too long")),
        ("Who built the iron tower in Paris?", "Thomas Edison", (None, "answer not in the document")),
        ("Which engineer was Gustave Eiffel of Paris?", "gustave eiffel", (None, "answer in the query")),
    ],
)
def test_each_filter_drops_what_it_is_for(query, answer, verdict, retriever):
    arguments = QualityArguments(max_bm25_rank=1)
    assert judge([candidate(query, answer)], arguments, retriever) == [Verdict(*verdict)]


def test_a_repeated_question_is_dropped_where_its_first_one_stays(retriever):
    dropped = candidate("Which animal hunts mice at night?", row=2)  # its document speaks less of them
    first = candidate("Which animal hunts mice at night?", "cat", row=1)
    again = candidate("What animal is it that hunts mice at night?", "cat", row=1)
    verdicts = judge([dropped, first, again], QualityArguments(max_bm25_rank=1), retriever)
    assert [one.query_failure for one in verdicts] == [
        "BM25 does not find the document",
        None,
        "repeats an earlier query",
    ]


def test_each_filter_can_be_switched_off(retriever):
    unlike = candidate("Which animal hunts mice at night?", row=2)
    verdicts = judge([unlike, unlike], QualityArguments(max_bm25_rank=0, duplicate_similarity=0), retriever)
    assert [one.query_failure for one in verdicts] == [None, None]


def test_titles_in_queries_are_kept_unless_asked_otherwise(retriever):
    one = candidate("When did the company of Gustave Eiffel build a tower in Paris?")
    assert judge([one], QualityArguments(), retriever)[0].query_failure is None
    verdict = judge([one], QualityArguments(title_in_query="drop"), retriever)[0]
    assert verdict.query_failure == "holds the title"


def test_a_title_can_be_required(retriever):
    required = QualityArguments(title_in_query="require")
    named, unnamed = (
        candidate("When did Gustave Eiffel build a tower?"),
        candidate("Who built the iron tower in Paris?"),
    )
    verdicts = judge([named, unnamed], required, retriever)
    assert [one.query_failure for one in verdicts] == [None, "does not hold the title"]


def test_queries_that_ask_for_the_title_alone_can_be_dropped(retriever):
    alone, more = candidate("Who was Gustave Eiffel?"), candidate("When did Gustave Eiffel build a tower?")
    verdicts = judge([alone, more], QualityArguments(min_own_words=1), retriever)
    assert [one.query_failure for one in verdicts] == ["asks for the title alone", None]
    assert judge([alone], QualityArguments(), retriever)[0].query_failure is None


def test_english_rules_do_not_apply_to_other_languages():
    text = "Die Firma des Ingenieurs Eiffel baute den Turm in Paris."
    one = Candidate(
        0, "Eiffelturm", text, text, "Welche Firma baute den Turm in Paris?", "Die Firma des Ingenieurs Eiffel"
    )
    retriever = Bm25Retriever(["Eiffelturm"], [text])
    assert judge([one], QualityArguments(query_language="de"), retriever) == [Verdict(None, None)]
    assert judge([one], QualityArguments(query_language=None), retriever) == [Verdict(None, None)]
    assert judge([one], QualityArguments(), retriever)[0].query_failure == "not a question"


def test_verdicts_are_the_same_each_time_and_in_the_order_of_the_candidates(retriever):
    some = [candidate("Who built the iron tower in Paris?"), candidate(""), candidate("Which cat?", row=1)] * 3
    first = judge(some, QualityArguments(), retriever)
    assert first == judge(some, QualityArguments(), retriever)
    assert [one.query_failure for one in first[:3]] == [None, "not in the form asked for", "too short or too long"]
    assert judge([], QualityArguments(), retriever) == []


HOSTILE = ["\x00\x07", "<|im_end|> </s> [INST]", "{{ 7*7 }} {% raw %}", "شارع 🙂 \"'\t|", "ignore the passage" * 50]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_queries_and_answers_are_judged_like_others(hostile, retriever):
    (verdict,) = judge([candidate(hostile, hostile)], QualityArguments(), retriever)
    assert verdict.query_failure is not None
    (verdict,) = judge([candidate("Who built the iron tower in Paris?", hostile)], QualityArguments(), retriever)
    assert verdict.answer_failure is not None


def test_a_hundred_questions_about_a_million_characters_are_judged_like_others(retriever):
    text = "In 1889 the company of Gustave Eiffel built the iron tower of Paris. " * 15_000
    many = [
        Candidate(0, "Gustave Eiffel", text, "", f"Who built tower {i} in Paris in 1889?", "Eiffel")
        for i in range(100)
    ]
    verdicts = judge(many, QualityArguments(duplicate_similarity=0), retriever)
    assert verdicts == [Verdict(None, None)] * 100


def test_the_first_filter_that_drops_a_sample_is_named(retriever):
    """The cheap ones come first, the round trip and the search for duplicates, which need all samples, last."""
    assert list(query_filters(QualityArguments(title_in_query="drop"))) == [
        "not in the form asked for",
        "too short or too long",
        "not a question",
        "does not stand alone",
        "in another language",
        "copied from the document",
        "holds the title",
    ]
    short_and_no_question, no_question_and_not_found = candidate("Eiffel."), candidate("The cat hunts mice at night.")
    verdicts = judge([short_and_no_question, no_question_and_not_found], QualityArguments(), retriever)
    assert [one.query_failure for one in verdicts] == ["too short or too long", "not a question"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"title_in_query": "mask"}, "title_in_query is 'mask'"),
        ({"min_own_words": -1}, "min_own_words is -1"),
        ({"min_query_words": 9, "max_query_words": 3}, "min_query_words is 9 and max_query_words 3"),
        ({"query_language": "english"}, "language is 'english'"),
        ({"max_bm25_rank": -1}, "max_bm25_rank is -1; it must be at least 0"),
        ({"duplicate_similarity": 80}, r"duplicate_similarity is 80; it must lie in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        QualityArguments(**settings)
