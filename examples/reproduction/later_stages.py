"""
The rows that go on where the others end, or from published adapters. Each takes the [`Rows`] and gives folders of
adapters by role.
"""

from pathlib import Path

from datasets import Dataset, concatenate_datasets
from settings import (
    FEW_LABELS,
    RATES_BESIDE_SENTENCES,
    RATES_OF_BRIEF_READING,
    RATES_OF_QUERIES,
    RATES_OF_READING,
    RATES_OF_REMEMBERING,
    RATES_OF_REPETITION,
    RATES_OF_SUBSTITUTION,
    SENTENCES,
    repeated,
    title_substitutions,
)

from dataset_builders.sentence_queries import sentence_queries
from trainers.task_examples import tokenize_examples


def substituted(rows) -> dict[str, Path]:
    """
    The warm-up's last stage, or that of published adapters: the labels, and copies of them that ask about other
    articles.
    """

    def examples(role: str) -> Dataset:
        copies = title_substitutions(len(rows.data.train))
        labels = rows.examples(rows.data.train, role, RATES_OF_SUBSTITUTION, title_substitutions=copies)
        brief = rows.examples(rows.data.train, role, RATES_OF_BRIEF_READING, rows.data.brief_processor)
        return concatenate_datasets([labels, rows.reading_examples(role), brief])

    return rows.train_roles("substituted", rows.started_from("auxiliary"), examples, 5e-4)


def whole_collection(rows) -> dict[str, Path]:
    """
    The first iteration, or published adapters, gone on with the articles that the other rows know of by their titles
    only, and the labels again.
    """
    known = set(rows.data.index_rows)
    others = [row for row in range(len(rows.data.processor.collection)) if row not in known]

    def examples(role: str) -> Dataset:
        articles = tokenize_examples(rows.data.bare_articles(others), role, rows.data.brief_processor)
        labels = rows.examples(rows.data.train, role, RATES_OF_REPETITION)
        return concatenate_datasets([articles, labels, rows.reading_examples(role)])

    return rows.train_roles("whole-collection", rows.started_from("co-training-1"), examples, 5e-4)


def query_likelihood(rows) -> dict[str, Path]:
    """
    The whole collection's models, or published adapters, gone on with the queries of all labels, to rank by them
    too (`document_to_query`), and some of the labels again: others than in the stages before.
    """

    def examples(role: str) -> Dataset:
        return rows.examples(rows.data.train, role, RATES_OF_QUERIES, seed=rows.settings.seed + 1)

    return rows.train_roles("query-likelihood", rows.started_from("whole-collection"), examples, 5e-4)


def grounded(rows) -> dict[str, Path]:
    """
    The models that read before they rank, or published adapters, RAG's gone on with the answers of all labels,
    which the stages before gave it a third of, or few ones twice; GAR, which has seen them several times, is as it
    was. Few labels have no stage between it and co-training.
    """
    number = len(rows.data.train)
    remembered, read = repeated(RATES_OF_REMEMBERING, number), repeated(RATES_OF_READING, number)

    def examples(role: str) -> Dataset:
        seed = rows.settings.seed + 2
        retrieval = rows.examples(rows.data.train, role, remembered, seed=seed)
        answers = rows.examples(rows.data.train, role, read, rows.data.brief_processor, retrieved_share=0.2, seed=seed)
        return concatenate_datasets([retrieval, answers, rows.reading_examples(role)])

    start = rows.started_from("co-training-1" if number < FEW_LABELS else "query-likelihood")
    return start | rows.train_roles("grounded", {"rag": start["rag"]}, examples, 5e-4)


def sentences(rows) -> dict[str, Path]:
    """
    The models that were trained longest, or published adapters, gone on with sentences of all articles as queries, and
    some of the labels again. A sentence of an article is a claim that the article supports.
    """
    processor = rows.data.processor
    queries = sentence_queries(
        processor.collection, range(len(processor.collection)), SENTENCES, answer="SUPPORTS", seed=rows.settings.seed
    )

    def examples(role: str) -> Dataset:
        seed = rows.settings.seed + 3
        labels = rows.examples(rows.data.train, role, RATES_BESIDE_SENTENCES, seed=seed)
        answers = rows.examples(
            rows.data.train,
            role,
            RATES_OF_BRIEF_READING,
            rows.data.brief_processor,
            retrieved_share=0.2,
            seed=seed,
        )
        return concatenate_datasets([rows.examples(queries, role, {}), labels, answers])

    return rows.train_roles("sentences", rows.started_from("grounded"), examples, 5e-4)


def recalibrated(rows) -> dict[str, Path]:
    """The models that were trained longest, or published adapters, as they are: calibrated and judged anew."""
    return rows.started_from("sentences")


def co_trained(rows) -> dict[str, Path]:
    """The models that were trained longest, or published adapters, after one iteration of co-training."""
    return rows.co_training("grounded", rows.started_from("grounded"), 1)


LATER_STAGES = {
    "substituted": substituted,
    "whole-collection": whole_collection,
    "query-likelihood": query_likelihood,
    "grounded": grounded,
    "sentences": sentences,
    "recalibrated": recalibrated,
    "co-trained": co_trained,
}
