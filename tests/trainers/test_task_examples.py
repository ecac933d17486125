import random
from collections import Counter

import pytest
import torch
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint import format_prompt
from modeling_mint.tasks_mint import COMPONENTS
from tests.tiny import TITLES
from trainers.task_examples import EXAMPLE_FEATURES, grounding_rows, tokenize_examples

BM25_ROWS = [7, 8, 9, 10]  # what the fixture `bm25` returns for every query


def dataset(*samples):
    return Dataset.from_list(list(samples), features=SAMPLE_FEATURES)


def tasks_and_components(examples):
    pairs = zip(examples["task"], examples["component"], strict=True)
    return sorted((task, COMPONENTS[component]) for task, component in pairs)


@pytest.fixture
def read_rows(processor):
    """Rows of the documents that a `grounded_answer` example reads, found by rebuilding its prompt."""

    def read(example, sample, candidates):
        for rows in candidates:
            documents = processor.context(rows)
            prompt = format_prompt("grounded_answer", query=sample["query"], documents=documents)
            if processor.encode_example(prompt, ())[0] == example["prompt_ids"]:
                return rows
        raise AssertionError(processor.tokenizer.decode(example["prompt_ids"]))

    return read


@pytest.mark.parametrize(
    "role, source, expected",
    [
        (
            "rag",
            "labelled",
            {"query_to_docid": "retrieval", "grounded_answer": "generation", "document_to_query": "auxiliary"},
        ),
        (
            "gar",
            "labelled",
            {
                "query_answer_to_docid": "retrieval",
                "closed_book_answer": "generation",
                "document_to_query": "auxiliary",
            },
        ),
        (
            "rag",
            "llm",
            {
                "query_to_docid_list": "auxiliary",
                "grounded_answer": "auxiliary",
                "docid_to_docid_list": "auxiliary",
                "document_to_query": "auxiliary",
            },
        ),
        (
            "gar",
            "llm",
            {
                "query_answer_to_docid_list": "auxiliary",
                "closed_book_answer": "auxiliary",
                "docid_to_docid_list": "auxiliary",
                "document_to_query": "auxiliary",
            },
        ),
        ("rag", "gar", {"query_to_docid": "exchange", "grounded_answer": "exchange"}),
        ("gar", "rag", {"query_answer_to_docid": "exchange", "closed_book_answer": "exchange"}),
        ("rag", "collection", {"document_to_docid": "retrieval"}),
        ("gar", "collection", {"document_to_docid": "retrieval"}),
    ],
)
def test_a_sample_becomes_the_tasks_of_its_source_and_role(processor, make_sample, role, source, expected):
    docids = {"docids": [TITLES[2], TITLES[5]], "rows": [2, 5]} if source in ("llm", "rag", "gar") else {}
    examples = tokenize_examples(dataset(make_sample(2, source, **docids)), role, processor)
    assert tasks_and_components(examples) == sorted(expected.items())
    assert examples.features == EXAMPLE_FEATURES


def test_the_target_of_a_docid_is_its_path_in_the_trie(processor, make_samples):
    rows = list(range(len(TITLES)))
    examples = tokenize_examples(make_samples(rows), "rag", processor, task_rates={"grounded_answer": 0})
    targets = [example["target_ids"] for example in examples if example["task"] == "query_to_docid"]
    assert len(targets) == len(rows)
    for row, target in zip(rows, targets, strict=True):
        leaf = processor.trie.walk(torch.tensor([target])).item()
        assert processor.trie.rows(leaf) == [row]


def test_length_is_that_of_prompt_and_target(examples):
    for example in examples:
        assert example["length"] == len(example["prompt_ids"]) + len(example["target_ids"])


def test_only_samples_with_a_score_are_weighted(processor, make_sample):
    samples = dataset(make_sample(2), make_sample(5, "gar", confidence={"score": 0.25}))
    examples = tokenize_examples(samples, "rag", processor)
    weights = {COMPONENTS[example["component"]]: example["weight"] for example in examples}
    assert weights == {"retrieval": 1.0, "generation": 1.0, "auxiliary": 1.0, "exchange": 0.25}


def test_rates_leave_out_repeat_and_draw(processor, make_samples):
    samples = make_samples(range(40))
    rates = {"query_to_docid": 3, "grounded_answer": 0.5, "document_to_query": 0}
    counts = Counter(tokenize_examples(samples, "rag", processor, task_rates=rates)["task"])
    assert counts["query_to_docid"] == 120 and counts["document_to_query"] == 0
    assert counts["grounded_answer"] == 20


def test_a_rate_between_two_counts_draws_the_rest(processor, make_samples):
    rates = {"query_to_docid": 2.5, "grounded_answer": 0, "document_to_query": 0}
    examples = tokenize_examples(make_samples(range(40)), "rag", processor, task_rates=rates)
    copies = Counter(tuple(target) for target in examples["target_ids"])
    assert Counter(copies.values()) == {2: 20, 3: 20}


def test_a_temperature_evens_the_tasks_out_and_leaves_their_total(processor, make_sample):
    """4 bare documents among 36 questions, each with three tasks: 4 and 3 times 36 examples."""
    samples = dataset(*[make_sample(i) for i in range(36)], *[make_sample(i, "collection") for i in range(36, 40)])
    examples = tokenize_examples(samples, "rag", processor, task_sampling="temperature", sampling_temperature=2.0)
    assert Counter(examples["task"]) == {
        "query_to_docid": 34,
        "grounded_answer": 34,
        "document_to_query": 33,
        "document_to_docid": 11,
    }


def test_substituted_titles_are_examples_of_retrieval_beside_the_others_and_of_their_loss(processor, make_sample):
    samples = dataset(make_sample(2), make_sample(5, "gar", iteration=1, confidence={"score": 0.25}))
    plain = tokenize_examples(samples, "gar", processor)
    more = tokenize_examples(samples, "gar", processor, title_substitutions=3)
    assert more.to_list()[: len(plain)] == plain.to_list()
    made = more.select(range(len(plain), len(more)))
    assert set(made["task"]) == {"query_answer_to_docid"}
    found = Counter((COMPONENTS[one["component"]], one["weight"]) for one in made)
    assert found == {("retrieval", 1.0): 3, ("exchange", 0.25): 3}
    assert len({tuple(target) for target in made["target_ids"]}) > 3
    assert not {tuple(target) for target in made["target_ids"]} & {tuple(target) for target in plain["target_ids"][:1]}


def test_wrong_task_sampling_is_refused(processor, make_samples):
    with pytest.raises(ValueError, match="the task 'query_to_title'"):
        tokenize_examples(make_samples([2]), "rag", processor, task_rates={"query_to_title": 3})
    with pytest.raises(ValueError, match="`task_sampling` is 'even'"):
        tokenize_examples(make_samples([2]), "rag", processor, task_sampling="even")


def test_the_seed_decides_all_draws(processor, make_samples, bm25):
    def draw(seed):
        rates = {"document_to_query": 0.5}
        return tokenize_examples(
            make_samples(range(30)), "rag", processor, retriever=bm25, task_rates=rates, seed=seed
        ).to_list()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_without_a_retriever_labelled_answers_are_read_from_their_gold_document(processor, make_sample, read_rows):
    sample = make_sample(3)
    examples = tokenize_examples(dataset(sample), "rag", processor)
    grounded = examples.filter(lambda task: task == "grounded_answer", input_columns="task")[0]
    assert read_rows(grounded, sample, [[3]]) == [3]


def test_all_retrieved_contexts_are_the_retrievers_own_and_hold_no_gold(processor, make_sample, bm25, read_rows):
    samples = [make_sample(row) for row in (2, 3, 16)]
    examples = tokenize_examples(dataset(*samples), "rag", processor, retriever=bm25, retrieved_share=1.0)
    grounded = [example for example in examples if example["task"] == "grounded_answer"]
    for example, sample in zip(grounded, samples, strict=True):
        assert read_rows(example, sample, [BM25_ROWS[:2]]) == BM25_ROWS[:2]


def test_no_retrieved_contexts_all_hold_gold_at_a_random_place(processor, make_sample, bm25, read_rows):
    samples = [make_sample(row) for row in range(11, 31)]
    examples = tokenize_examples(dataset(*samples), "rag", processor, retriever=bm25, retrieved_share=0.0)
    places = set()
    for example, sample in zip(
        [example for example in examples if example["task"] == "grounded_answer"], samples, strict=True
    ):
        gold = sample["rows"][0]
        places.add(read_rows(example, sample, [[gold, 7], [7, gold]]).index(gold))
    assert places == {0, 1}


def test_partner_samples_are_read_with_what_their_writer_retrieved(processor, make_sample, bm25, read_rows):
    docids = {"docids": [TITLES[row] for row in (20, 5, 6)], "rows": [20, 5, 6], "provenance": [[TITLES[5]]]}
    sample = make_sample(5, "gar", **docids)
    for retriever in (None, bm25):
        examples = tokenize_examples(dataset(sample), "rag", processor, retriever=retriever, retrieved_share=0.0)
        grounded = examples.filter(lambda task: task == "grounded_answer", input_columns="task")[0]
        assert read_rows(grounded, sample, [[20, 5]]) == [20, 5]


def test_gar_reads_no_documents(processor, make_samples, bm25):
    samples = make_samples(range(4))
    with_retriever = tokenize_examples(samples, "gar", processor, retriever=bm25).to_list()
    assert with_retriever == tokenize_examples(samples, "gar", processor).to_list()


def test_no_samples_give_an_empty_dataset(processor, make_samples):
    examples = tokenize_examples(make_samples([2]).select([]), "rag", processor)
    assert len(examples) == 0 and examples.features == EXAMPLE_FEATURES


def test_grounding_keeps_the_retrievers_order_and_the_number_of_documents():
    rng = random.Random(0)
    assert grounding_rows([3], [9, 3, 5], 2, True, rng) == [9, 3]
    for _ in range(20):
        rows = grounding_rows([3], [9, 3, 5], 3, False, rng)
        assert sorted(rows) == [3, 5, 9] and [row for row in rows if row != 3] == [9, 5]
    assert grounding_rows([3, 4], [], 2, False, rng) == [3]
    assert grounding_rows([3], [9, 5], 1, False, rng) == [3]


def test_a_question_without_provenance_reads_what_the_retriever_returned():
    assert grounding_rows([], [9, 5, 3], 2, False, random.Random(0)) == [9, 5]
