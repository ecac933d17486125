import numpy as np
import pytest
from datasets import Dataset

from dataset_builders.bm25 import Bm25Retriever, related_rows
from dataset_builders.features import COLLECTION_FEATURES


@pytest.fixture
def retriever(documents):
    return Bm25Retriever([title for title, _ in documents], [text for _, text in documents])


def collection(*documents):
    records = [{"title": t, "text": x, "related": r, "metadata": "{}"} for t, x, r in documents]
    return Dataset.from_list(records, features=COLLECTION_FEATURES)


def test_stems_match_and_the_best_document_comes_first(retriever):
    rows, scores = retriever.retrieve(["which engineers are French?", "designing a tower of iron"], k=2)
    assert rows[:, 0].tolist() == [2, 0]
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_documents_than_there_are_and_queries_without_a_known_word(retriever):
    rows, scores = retriever.retrieve(["zzz", ""], k=50)
    assert rows.shape == (2, 5) and sorted(rows[0].tolist()) == [0, 1, 2, 3, 4]
    assert scores.max() == 0
    assert retriever.retrieve([], k=3)[0].shape == (0, 3)


def test_a_document_is_not_its_own_neighbour(retriever):
    neighbours = retriever.neighbours([3, 4, 0], k=2)
    assert neighbours[0, 0] == 4 and neighbours[1, 0] == 3
    assert all(row not in found for row, found in zip([3, 4, 0], neighbours.tolist(), strict=True))
    assert retriever.neighbours([0], k=50).shape == (1, 4)


def test_an_empty_collection_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Bm25Retriever([], [])


def test_links_of_the_corpus_come_before_neighbours_and_unknown_ones_do_not_count():
    documents = collection(
        ("Cat", "small animal", ["Paris", "Nowhere", "Cat", "Paris"]),
        ("Mouse", "small animal", ["Nowhere"]),
        ("Paris", "city", []),
        ("Dog", "an animal", []),
    )
    cat, mouse = related_rows(documents, [0, 1], num_related=2)
    assert cat == [2]
    assert mouse[0] == 0 and len(mouse) == 2


def test_no_title_is_related_twice():
    documents = collection(("Cat", "small animal", []), ("Dog", "small animal", []), ("Dog", "small animal too", []))
    assert len(related_rows(documents, [0], num_related=2)[0]) == 1
    assert related_rows(documents, [1], num_related=2) == [[0]]


def test_neighbours_of_a_long_document_are_those_of_its_beginning():
    filler = "zebra " * 200_000
    titles, texts = ["Cat", "Mouse", "Zebra"], ["small animal " * 500 + filler, "small animal", "zebra"]
    retriever = Bm25Retriever(titles, texts)
    assert retriever.neighbours([0], k=2).tolist() == [[1, 2]]


def test_a_retriever_can_be_shared():
    documents = collection(("Cat", "small animal", []), ("Dog", "small animal", []), ("Paris", "city", []))
    shared = Bm25Retriever(documents["title"][:], documents["text"][:])
    assert related_rows(documents, [0, 2], 1, shared) == related_rows(documents, [0, 2], 1)
    assert related_rows(documents, [0, 2], 0, shared) == [[], []]
