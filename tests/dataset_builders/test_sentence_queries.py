"""Sentences of documents become queries that name their document as people do, and teach nothing but to find it."""

import pytest
from datasets import Dataset

from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, SECTION_COLLECTION_FEATURES
from dataset_builders.sentence_queries import MAX_CHARS, sentence_queries
from modeling_mint.tasks_mint import training_examples

CHADWICK = (
    "Sir James Chadwick was a British experimental physicist. "
    "In 1941 he wrote a report on atomic bombs. "
    "He was knighted in Britain in 1945 for his work. "
    "He died in 1974."
)
NAIL = "A nail is a protective plate at the tip of a finger. Nails are made of a tough protein called keratin."
BAMBOO = "Bamboo grows faster than any other plant. Bamboo is eaten by pandas and by some lemurs."
DOCUMENTS = {"James Chadwick": CHADWICK, "Nail (anatomy)": NAIL, "Bamboo": BAMBOO, "Void": "", "Stub": "A stub."}
SEEDS = range(30)


@pytest.fixture(scope="module")
def collection():
    documents = [{"title": title, "text": text, "related": [], "metadata": "{}"} for title, text in DOCUMENTS.items()]
    return Dataset.from_list(documents, features=COLLECTION_FEATURES)


def drawn(collection, row, per_document=4):
    """The queries of one document under several seeds, whatever their letter case."""
    return {query for seed in SEEDS for query in sentence_queries(collection, [row], per_document, seed=seed)["query"]}


def test_last_name_takes_the_place_of_the_title_and_of_a_pronoun_that_begins_the_sentence(collection):
    queries = drawn(collection, 0)
    assert "Sir Chadwick was a British experimental physicist." in queries
    assert "Chadwick was knighted in Britain in 1945 for his work." in queries
    assert "In 1941 he wrote a report on atomic bombs." in queries


def test_some_sentences_have_the_title_masked_and_none_has_it_in_full(collection):
    queries = drawn(collection, 0)
    assert "Sir it was a British experimental physicist." in queries
    assert "He was knighted in Britain in 1945 for his work." in queries
    assert not [query for query in queries if "james chadwick" in query.lower()]


def test_title_in_brackets_is_asked_for_without_them(collection):
    queries = drawn(collection, 1)
    assert {
        "A Nail is a protective plate at the tip of a finger.",
        "Nails are made of a tough protein called keratin.",
    } <= queries


def test_title_without_another_form_is_always_masked(collection):
    assert not [query for query in drawn(collection, 2) if "bamboo" in query.lower()]


def test_some_queries_are_in_small_letters_and_some_are_not(collection):
    small = [query for query in drawn(collection, 0) if query == query.lower()]
    assert small and len(small) < len(drawn(collection, 0))


def test_first_sentence_is_taken_and_others_at_random_up_to_the_number(collection):
    taken = {tuple(sentence_queries(collection, [0], 2, seed=seed)["id"]) for seed in SEEDS}
    assert taken == {("sentence-0-0", "sentence-0-1"), ("sentence-0-0", "sentence-0-2")}


def test_documents_without_a_sentence_of_some_length_give_none(collection):
    made = sentence_queries(collection, [3, 4], 2)
    assert len(made) == 0 and made.features == SAMPLE_FEATURES


def test_long_sentences_are_cut_at_a_word():
    document = {"title": "Pi", "text": "Its digits are " + "three " * 100 + ".", "related": [], "metadata": "{}"}
    (query,) = sentence_queries(Dataset.from_list([document], features=COLLECTION_FEATURES), [0], 1)["query"]
    assert MAX_CHARS - len("three") <= len(query) <= MAX_CHARS and query.endswith("three")


def test_section_is_asked_for_with_its_page_masked():
    section = {"title": "Jazz > Origins", "page": "Jazz", "text": "The origins of jazz lie in blues and ragtime."}
    sections = Dataset.from_list([section | {"related": [], "metadata": "{}"}], features=SECTION_COLLECTION_FEATURES)
    made = sentence_queries(sections, [0], 1)
    assert made["query"][0].lower() == "the origins of it lie in blues and ragtime."
    assert made["docids"][:] == [["Jazz > Origins"]]


@pytest.mark.parametrize(
    ("role", "answer", "tasks"),
    [("rag", "SUPPORTS", ["query_to_docid"]), ("gar", "SUPPORTS", ["query_answer_to_docid"]), ("gar", "", [])],
)
def test_sentence_teaches_its_document_and_no_answer(collection, role, answer, tasks):
    (sample,) = sentence_queries(collection, [2], 1, answer=answer)
    assert (sample["docids"], sample["rows"], sample["provenance"]) == (["Bamboo"], [2], [["Bamboo"]])

    def document(row):
        return collection["title"][row], collection["text"][row]

    assert [one.task for one in training_examples(sample, role, document)] == tasks


def test_same_seed_gives_the_same_queries(collection):
    one, other, another = (sentence_queries(collection, range(5), 2, seed=seed)["query"][:] for seed in (1, 1, 2))
    assert one == other != another


def test_number_of_sentences_below_one_is_refused(collection):
    with pytest.raises(ValueError, match="`per_document` is 0"):
        sentence_queries(collection, [0], 0)
