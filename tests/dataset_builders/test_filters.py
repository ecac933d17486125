import pytest

from dataset_builders.filters import answer_failure, query_failure

TITLE = "Gustave Eiffel"
TEXT = (
    "Gustave Eiffel was a French engineer. In 1889 his company built, for the world's fair, an iron tower that "
    "became the symbol of the city of Paris."
)


@pytest.mark.parametrize(
    ("query", "answer", "failure"),
    [
        ("Which engineer's company built the tower in Paris?", "Gustave Eiffel", None),
        ("In which year did the company of Eiffel build the tower?", "1889", None),
        ("", "", "not in the form asked for"),
        ("The engineer Gustave Eiffel built the tower.", "iron", "not a question"),
        ("Who was Eiffel?", "engineer", "not a question"),
        ("Which engineer built it? Which city of Paris?", "iron", "not a question"),
        ("Which tower is mentioned in the passage?", "iron", "does not stand alone"),
        ("What was built in Paris? A) iron tower B) fair?", "iron tower", "not a question"),
        ("What was built in Paris A) iron tower B) fair?", "iron tower", "does not stand alone"),
        ("What is the best food for small cats?", "iron", "not about the document"),
        ("Who built the iron tower in Paris?", "word " * 13, "answer missing or too long"),
        ("Who built the iron tower in Paris?", "Thomas Edison", "answer not in the document"),
        ("Who built the iron tower in Paris?", "ngineer", "answer not in the document"),
        ("Which engineer was Gustave Eiffel of Paris?", "gustave eiffel", "answer in the query"),
        (
            "What iron tower that became the symbol of the city of Paris is French?",
            "1889",
            "copied from the document",
        ),
    ],
)
def test_each_filter_drops_what_it_is_for(query, answer, failure):
    assert (query_failure(query, TITLE, TEXT) or answer_failure(query, answer, TEXT)) == failure
