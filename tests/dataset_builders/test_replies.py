import pytest

from dataset_builders.replies import QUERY_AND_ANSWER, RANKING, ReplyForm


@pytest.mark.parametrize(
    ("reply", "query", "answer"),
    [
        (" Who built it?\nAnswer: Eiffel.", "Who built it?", "Eiffel"),
        ("Question: Who built it?\nAnswer: Eiffel\n", "Who built it?", "Eiffel"),
        (' Who?\nAnswer: "Iron"', "Who?", "Iron"),
        ("\n\nWho? \nAnswer:Iron \n\n", "Who?", "Iron"),
        ("Who is Mr. X?\nAnswer: Mr. Y", "Who is Mr. X?", "Mr. Y"),
        ('{"question": "Who built it?", "answer": "Eiffel."}', "Who built it?", "Eiffel"),
        ('\n{"answer": "يوهان 🗼",\n "question": " Who? "}\n', "Who?", "يوهان 🗼"),
    ],
)
def test_labelled_lines_and_json_are_read(reply, query, answer):
    assert QUERY_AND_ANSWER.parse(reply) == {"Question": query, "Answer": answer}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Who built it?",
        " Who built it? Answer: Eiffel",
        " Who built it?\nAnswer: Eiffel\nPassage: more",
        "Answer: Eiffel\nQuestion: Who built it?",
        " Who built it?\n\nAnswer: Eiffel",
        " Who built it?\nAnswer:",
        ' Who built it?\nAnswer: ""',
        "Question:\nAnswer: Eiffel",
        " Who?\rWho?\nAnswer: Eiffel",
        '{"question": "Who?"}',
        '{"question": "Who?", "answer": ""}',
        '{"question": "Who?", "answer": 1889}',
        '{"question": "Who?", "answer": "Eiffel", "more": "x"}',
        '{"Question": "Who?", "Answer": "Eiffel"}',
        '{"question": "Who?\\nWhere?", "answer": "Eiffel"}',
        '{"question": "Who?", "answer": "\\ud800"}',
        '{"question": "Who?", "answer": "Eiff',
        '{"question": "Who?", "answer": "Eiffel"} Passage: more',
        '{"question":' * 100_000,
    ],
)
def test_every_other_form_is_refused(reply):
    assert QUERY_AND_ANSWER.parse(reply) is None


def test_a_form_of_one_line_and_one_of_three():
    assert RANKING.parse(" Paris | Washington, D.C.") == {"Ranking": "Paris | Washington, D.C."}
    assert RANKING.parse("Ranking: 2, 1") == {"Ranking": "2, 1"}
    assert RANKING.parse("2\n1") is None
    three = ReplyForm(("A", "B (b)", "C"))
    assert three.parse("A: 1\nB (b): 2.\nC: 3") == {"A": "1", "B (b)": "2", "C": "3"}


def test_what_the_schema_asks_for_is_what_parse_reads():
    schema = QUERY_AND_ANSWER.json_schema()
    assert schema["required"] == list(schema["properties"]) == ["question", "answer"]
    assert schema["additionalProperties"] is False
