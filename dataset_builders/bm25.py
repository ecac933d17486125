"""BM25: the retriever there is before any model is trained, the baseline, and the measure of related documents."""

import bm25s
import numpy as np
import Stemmer
from datasets import Dataset

NEIGHBOUR_QUERY_WORDS = 1000
"""Words at the beginning of a document that its neighbours are looked for with; more only cost time."""


class Bm25Retriever:
    """
    BM25 over a collection held in memory, on English Snowball stems of "title. text".

    Args:
        titles (`list[str]`):
            Titles of the documents, by row.
        texts (`list[str]`):
            Texts of the documents, by row.

    Raises:
        `ValueError`: if the collection is empty.

    Example:

    ```python
    >>> retriever = Bm25Retriever(["Cat", "Dog"], ["Cats chase mice.", "Dogs chase cats."])
    >>> rows, scores = retriever.retrieve(["who chases mice?"], k=1)
    >>> rows.tolist()
    [[0]]
    ```
    """

    def __init__(self, titles: list[str], texts: list[str]):
        if not titles:
            raise ValueError("BM25 needs at least one document, the collection is empty.")
        self._stemmer = Stemmer.Stemmer("english")
        self._documents = [f"{title}. {text}" for title, text in zip(titles, texts, strict=True)]
        self._index = bm25s.BM25(backend="numpy")
        self._index.index(self._stems(self._documents), show_progress=False)

    def _stems(self, texts: list[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)

    @property
    def nbytes(self) -> int:
        """Bytes (`int`) of the index: its postings, and its stems as UTF-8."""
        arrays = (self._index.scores[name].nbytes for name in ("data", "indices", "indptr"))
        return sum(arrays) + sum(len(stem.encode()) for stem in self._index.vocab_dict)

    def retrieve(self, queries: list[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Finds the documents that score best.

        Args:
            queries (`list[str]`):
                The queries.
            k (`int`):
                Documents to return per query; all of them if there are fewer.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: rows (int64) and BM25 scores (float32), both of shape
            `(len(queries), min(k, number of documents))`, best first. A document that shares no stem with the query
            scores 0.
        """
        k = min(k, len(self._documents))
        if not queries:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        rows, scores = self._index.retrieve(self._stems(queries), k=k, show_progress=False, backend_selection="numpy")
        return rows.astype(np.int64), scores

    def neighbours(self, rows: list[int], k: int) -> np.ndarray:
        """
        Finds the documents nearest to given ones, whose title and first [`NEIGHBOUR_QUERY_WORDS`] words are the query.

        Args:
            rows (`list[int]`):
                Rows of the documents.
            k (`int`):
                Neighbours to return per document; all others if there are fewer.

        Returns:
            `np.ndarray`: rows (int64) of shape `(len(rows), min(k, number of documents - 1))`, nearest first. A
            document is not its own neighbour.
        """
        k = min(k, len(self._documents) - 1)
        queries = [
            " ".join(self._documents[row].split(maxsplit=NEIGHBOUR_QUERY_WORDS)[:NEIGHBOUR_QUERY_WORDS])
            for row in rows
        ]
        found, _ = self.retrieve(queries, k + 1)
        others = np.empty((len(rows), k), dtype=np.int64)
        for i, row in enumerate(rows):
            others[i] = found[i][found[i] != row][:k]
        return others


def related_rows(
    collection: Dataset, rows: list[int], num_related: int, retriever: Bm25Retriever | None = None
) -> list[list[int]]:
    """
    Finds the documents related to given ones: those that the corpus links to, or the nearest neighbours under BM25
    where it links to none in the collection.

    Args:
        collection ([`~datasets.Dataset`]):
            Documents with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`].
        rows (`list[int]`):
            Rows of the documents.
        num_related (`int`):
            Most related documents to return for each.
        retriever ([`Bm25Retriever`], *optional*):
            Over this collection. Defaults to one that is made here where it is needed.

    Returns:
        `list[list[int]]`: for each document the rows of the related ones, nearest first, no title twice, its own
        never among them.
    """
    titles = collection["title"][:]
    row_of_title = {title: row for row, title in reversed(list(enumerate(titles)))}
    links = [
        [row_of_title[title] for title in related if title in row_of_title]
        for related in collection.select(rows)["related"]
    ]
    related = [_distinct(titles, row, candidates)[:num_related] for row, candidates in zip(rows, links, strict=True)]
    unlinked = [i for i, candidates in enumerate(related) if not candidates]
    if unlinked and num_related:
        retriever = retriever or Bm25Retriever(titles, collection["text"][:])
        # Twice as many, since equal titles count once.
        neighbours = retriever.neighbours([rows[i] for i in unlinked], 2 * num_related)
        for i, candidates in zip(unlinked, neighbours.tolist(), strict=True):
            related[i] = _distinct(titles, rows[i], candidates)[:num_related]
    return related


def _distinct(titles: list[str], row: int, candidates: list[int]) -> list[int]:
    """Keeps the first of equal titles, and none equal to that of `row`."""
    seen = {titles[row]}
    distinct = []
    for candidate in candidates:
        if titles[candidate] not in seen:
            seen.add(titles[candidate])
            distinct.append(candidate)
    return distinct
