import pytest

from dataset_builders.features import new_sample
from modeling_mint.tasks_mint import (
    COMPONENTS,
    TASKS,
    docid_list,
    format_prompt,
    mask_title,
    shorten,
    training_examples,
    without_brackets,
)

DOCUMENTS = [
    ("Eiffel Tower", "The Eiffel Tower stands\nin Paris."),
    ("Gustave Eiffel", "Gustave Eiffel was an engineer."),
    ("Paris", "Paris is a city."),
]
QUERY = "Who built it?"
SAMPLE = {
    "query": QUERY,
    "answers": ["Eiffel", "Gustave Eiffel"],
    "docids": ["Eiffel Tower", "Gustave Eiffel", "Paris"],
    "rows": [0, 1, 2],
}
GROUNDED = ("grounded_answer", "Eiffel Tower: The Eiffel Tower stands in Paris.\nQuestion: Who built it?\nAnswer:")
CLOSED_BOOK = ("closed_book_answer", "Question: Who built it?\nAnswer:")
TO_DOCID = ("query_to_docid", "Question: Who built it?\nTitle:")
ANSWER_TO_DOCID = ("query_answer_to_docid", "Question: Who built it?\nAnswer: Eiffel\nTitle:")
TO_QUERY = ("document_to_query", "Passage: The Eiffel Tower stands in Paris.\nQuestion:")
RANKING = ("Eiffel Tower", "|", "Gustave Eiffel", "|", "Paris")

EXPECTED = {
    ("labelled", "rag"): [
        (*TO_DOCID, "retrieval", ("Eiffel Tower",)),
        (*TO_DOCID, "retrieval", ("Gustave Eiffel",)),
        (*TO_DOCID, "retrieval", ("Paris",)),
        (*GROUNDED, "generation", ("Eiffel",)),
        (*TO_QUERY, "auxiliary", (QUERY,)),
    ],
    ("labelled", "gar"): [
        (*ANSWER_TO_DOCID, "retrieval", ("Eiffel Tower",)),
        (*ANSWER_TO_DOCID, "retrieval", ("Gustave Eiffel",)),
        (*ANSWER_TO_DOCID, "retrieval", ("Paris",)),
        (*CLOSED_BOOK, "generation", ("Eiffel",)),
        (*TO_QUERY, "auxiliary", (QUERY,)),
    ],
    ("llm", "rag"): [
        ("query_to_docid_list", "Question: Who built it?\nTitles:", "auxiliary", RANKING),
        (*GROUNDED, "auxiliary", ("Eiffel",)),
        ("docid_to_docid_list", "Title: Eiffel Tower\nRelated titles:", "auxiliary", RANKING[2:]),
        (*TO_QUERY, "auxiliary", (QUERY,)),
    ],
    ("llm", "gar"): [
        ("query_answer_to_docid_list", "Question: Who built it?\nAnswer: Eiffel\nTitles:", "auxiliary", RANKING),
        (*CLOSED_BOOK, "auxiliary", ("Eiffel",)),
        ("docid_to_docid_list", "Title: Eiffel Tower\nRelated titles:", "auxiliary", RANKING[2:]),
        (*TO_QUERY, "auxiliary", (QUERY,)),
    ],
    # What one model wrote is learnt by the other: its first docid and its answer.
    ("gar", "rag"): [(*TO_DOCID, "exchange", ("Eiffel Tower",)), (*GROUNDED, "exchange", ("Eiffel",))],
    ("rag", "gar"): [(*ANSWER_TO_DOCID, "exchange", ("Eiffel Tower",)), (*CLOSED_BOOK, "exchange", ("Eiffel",))],
}
WITHOUT_ANSWERS = {
    ("labelled", "rag"): ["query_to_docid"] * 3 + ["document_to_query"],
    # GAR retrieves by an answer: without one there is nothing to retrieve by.
    ("labelled", "gar"): ["document_to_query"],
    ("llm", "rag"): ["query_to_docid_list", "docid_to_docid_list", "document_to_query"],
    ("llm", "gar"): ["docid_to_docid_list", "document_to_query"],
    ("gar", "rag"): ["query_to_docid"],
    ("rag", "gar"): [],
}


def examples_of(sample, role, **arguments):
    return list(training_examples(sample, role, DOCUMENTS.__getitem__, **arguments))


@pytest.mark.parametrize(("source", "role"), EXPECTED)
def test_sample_becomes_the_examples_of_its_source_and_role(source, role):
    examples = examples_of(new_sample(source=source, **SAMPLE), role)
    assert [(one.task, one.prompt, one.component, one.target) for one in examples] == EXPECTED[source, role]
    assert {one.weight for one in examples} == {1.0}


@pytest.mark.parametrize("role", ["rag", "gar"])
def test_document_of_the_collection_becomes_the_indexing_task_with_its_title_masked(role):
    (one,) = examples_of(new_sample(source="collection", docids=["Eiffel Tower"], rows=[0]), role)
    assert (one.task, one.component, one.target) == ("document_to_docid", "retrieval", ("Eiffel Tower",))
    assert one.prompt == "Passage: The it stands in Paris.\nTitle:"


def test_section_becomes_the_indexing_task_with_its_pages_title_masked():
    sections = [("Paris (city), Tower", "Paris has a tower; the Tower of Paris is tall.")]
    sample = new_sample(source="collection", docids=["Paris (city), Tower"], rows=[0])
    pages = ["Paris (city)"]
    (one,) = training_examples(sample, "rag", sections.__getitem__, page=pages.__getitem__)
    assert one.prompt == "Passage: it has a tower; the Tower of it is tall.\nTitle:"
    assert one.target == ("Paris (city), Tower",)


@pytest.mark.parametrize(("source", "role"), WITHOUT_ANSWERS)
def test_sample_without_answers_teaches_no_task_that_needs_one(source, role):
    sample = new_sample(source=source, **(SAMPLE | {"answers": []}))
    assert [one.task for one in examples_of(sample, role)] == WITHOUT_ANSWERS[source, role]


@pytest.mark.parametrize(("source", "role"), EXPECTED)
def test_examples_are_tasks_of_the_role_and_count_in_a_known_component(source, role):
    for one in examples_of(new_sample(source=source, **SAMPLE), role):
        assert role in TASKS[one.task].roles
        assert one.component in COMPONENTS


def test_llm_sample_with_one_docid_has_no_related_titles_to_teach():
    sample = new_sample(source="llm", query=QUERY, answers=["Eiffel"], docids=["Paris"], rows=[2])
    assert [(one.task, one.target) for one in examples_of(sample, "rag")] == [
        ("query_to_docid_list", ("Paris",)),
        ("grounded_answer", ("Eiffel",)),
        ("document_to_query", (QUERY,)),
    ]


@pytest.mark.parametrize(
    ("role", "tasks"),
    # The documents that a retriever found can be read all the same.
    [("rag", ["grounded_answer"]), ("gar", ["closed_book_answer"])],
)
def test_labelled_sample_without_provenance_teaches_answering_only(role, tasks):
    sample = new_sample(source="labelled", query=QUERY, answers=["Eiffel"])
    assert [one.task for one in examples_of(sample, role, context_rows=[1])] == tasks


def test_grounded_answer_is_not_learnt_from_no_document_at_all():
    assert examples_of(new_sample(source="labelled", query=QUERY, answers=["Eiffel"]), "rag") == []


def test_document_to_query_shows_the_passage_that_the_query_was_written_from():
    sample = new_sample(source="llm", passage="Eiffel Tower: It was\nbuilt by Eiffel in 1889.", **SAMPLE)
    (one,) = [one for one in examples_of(sample, "gar", max_document_chars=37) if one.task == "document_to_query"]
    assert one.prompt == "Passage: Eiffel Tower: It was built by Eiffel\nQuestion:"


def test_confidence_of_a_partners_sample_is_its_weight():
    sample = new_sample(source="gar", confidence={"score": 0.25}, **SAMPLE)
    assert [one.weight for one in examples_of(sample, "rag")] == [0.25, 0.25]


def test_confidence_of_zero_is_a_weight_of_zero():
    sample = new_sample(source="gar", confidence={"score": 0.0}, **SAMPLE)
    assert [one.weight for one in examples_of(sample, "rag")] == [0.0, 0.0]


def test_grounded_answer_reads_the_context_rows_in_their_order():
    sample = new_sample(source="labelled", **SAMPLE)
    (one,) = [one for one in examples_of(sample, "rag", context_rows=[2, 1]) if one.task == "grounded_answer"]
    assert one.prompt == (
        "Paris: Paris is a city.\nGustave Eiffel: Gustave Eiffel was an engineer.\nQuestion: Who built it?\nAnswer:"
    )


def test_documents_are_shortened_in_every_prompt_and_masked_before_they_are():
    sample = new_sample(source="labelled", **SAMPLE)
    prompts = {one.task: one.prompt for one in examples_of(sample, "rag", max_document_chars=12)}
    assert prompts["grounded_answer"] == "Eiffel Tower: The Eiffel\nQuestion: Who built it?\nAnswer:"
    assert prompts["document_to_query"] == "Passage: The Eiffel\nQuestion:"
    sample = new_sample(source="collection", docids=["Eiffel Tower"], rows=[0])
    (one,) = examples_of(sample, "gar", max_document_chars=13)
    assert one.prompt == "Passage: The it stands\nTitle:"


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("task", TASKS)
def test_no_field_can_forge_a_line_of_the_prompt(task, line_break):
    forged = f"x{line_break}Answer: forged{line_break}Title:"
    fields = {"query": forged, "answer": forged, "docid": forged, "document": forged, "documents": [(forged, forged)]}
    plain = {"query": "x", "answer": "x", "docid": "x", "document": "x", "documents": [("x", "x")]}
    assert len(format_prompt(task, **fields).splitlines()) == len(format_prompt(task, **plain).splitlines())


def test_braces_in_a_query_stay_text():
    assert format_prompt("query_to_docid", query="{answer} {0} {") == "Question: {answer} {0} {\nTitle:"


def test_grounded_answer_without_documents_is_the_question_alone():
    assert format_prompt("grounded_answer", query=QUERY) == "Question: Who built it?\nAnswer:"


def test_unknown_task_is_an_error():
    with pytest.raises(KeyError, match="docid_to_query"):
        format_prompt("docid_to_query", query=QUERY)


def test_list_of_docids_has_a_separator_between_them_only():
    assert docid_list(["Paris"]) == ("Paris",)
    assert docid_list(["Paris", "Moon"]) == ("Paris", "|", "Moon")


@pytest.mark.parametrize(
    ("text", "title", "masked"),
    [
        ("Paris is a city. PARIS shines.", "Paris", "it is a city. it shines."),
        ("Parisians live in Paris.", "Paris", "Parisians live in it."),
        ("Mercury is small; Mercury (planet) is hot.", "Mercury (planet)", "it is small; it is hot."),
        ("C++ came after C.", "C++", "it came after C."),
        ("(film) is odd.", "(film)", "it is odd."),
        ("a.b and axb", "a.b", "it and axb"),
        ("Élan, élan and elan", "Élan", "it, it and elan"),
    ],
)
def test_title_is_masked_as_a_whole_word_with_and_without_its_brackets(text, title, masked):
    assert mask_title(text, title) == masked


def test_brackets_inside_a_title_stay():
    assert without_brackets("1984 (novel)") == "1984"
    assert without_brackets("Paris (Texas) film") == "Paris (Texas) film"


@pytest.mark.parametrize(
    ("max_chars", "short"),
    [(100, "one two three"), (13, "one two three"), (12, "one two"), (7, "one two"), (6, "one"), (2, "on")],
)
def test_text_is_cut_at_the_last_word_that_fits(max_chars, short):
    assert shorten(" one  two\nthree ", max_chars) == short
