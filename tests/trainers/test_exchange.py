import logging

import pytest

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint.tasks_mint import COMPONENTS
from trainers.exchange import exchange_samples
from trainers.task_examples import tokenize_examples

SCORES = [0.4, 0.8, 0.2, 0.8]
OPTIONS = {"labelled_share": 0.5, "max_pseudo_ratio": None, "weighting": "linear", "seed": "42-1-rag"}


@pytest.fixture
def kept(make_sample):
    return [
        make_sample(20 + i, "gar", id=str(i), confidence={"score": score, "docid_log_prob": -0.5})
        for i, score in enumerate(SCORES)
    ]


@pytest.fixture
def labelled(make_samples):
    return make_samples(range(10))


@pytest.fixture
def exchange(kept, labelled):
    return lambda **options: exchange_samples(kept, labelled, **OPTIONS | options)


def ids(samples, source="gar"):
    return [sample["id"] for sample in samples if sample["source"] == source]


@pytest.mark.parametrize(
    "weighting, weights",
    [("none", [1, 1, 1, 1]), ("linear", SCORES), ("rank", [0.5, 0.875, 0.25, 0.875])],
)
def test_partner_samples_are_weighted_and_labelled_ones_are_not(exchange, weighting, weights):
    samples = exchange(weighting=weighting)
    assert samples.features == SAMPLE_FEATURES
    assert [one["score"] for one in samples["confidence"]] == pytest.approx([*weights, None, None, None, None])
    assert samples["confidence"][0]["docid_log_prob"] == -0.5


def test_labelled_samples_have_their_share_of_the_whole(exchange):
    for share, number in ((0.0, 0), (0.2, 1), (0.5, 4), (0.6, 6)):
        samples = exchange(labelled_share=share)
        assert ids(samples) == ["0", "1", "2", "3"]
        assert len(set(ids(samples, "labelled"))) == number == len(samples) - 4


def test_too_few_labelled_samples_are_all_taken_and_said(exchange, caplog):
    with caplog.at_level(logging.WARNING):
        samples = exchange(labelled_share=0.8)
    assert len(ids(samples, "labelled")) == 10
    assert "Only 10 labelled samples, not 16: their share is 0.714, not 0.800" in caplog.text


def test_the_cap_takes_the_most_confident_in_their_order(exchange):
    assert ids(exchange(max_pseudo_ratio=0.2)) == ["1", "3"]
    assert ids(exchange(max_pseudo_ratio=0.1)) == ["1"]
    capped = exchange(max_pseudo_ratio=0.3, weighting="rank")
    assert ids(capped) == ["0", "1", "3"] and len(ids(capped, "labelled")) == 3
    assert [one["score"] for one in capped["confidence"]][:3] == pytest.approx([1 / 3, 2.5 / 3, 2.5 / 3])
    assert ids(exchange(max_pseudo_ratio=5.0)) == ["0", "1", "2", "3"]


def test_the_seed_decides_which_labelled_samples_are_drawn(exchange):
    assert exchange().to_list() == exchange().to_list()
    draws = {tuple(ids(exchange(seed=f"42-{iteration}-rag"), "labelled")) for iteration in range(5)}
    assert len(draws) > 1


def test_the_kept_samples_themselves_stay_as_they_are(exchange, kept):
    exchange(weighting="none")
    assert [sample["confidence"]["score"] for sample in kept] == SCORES


def test_what_leaves_nothing_to_learn_from_is_refused(exchange, labelled):
    with pytest.raises(ValueError, match="with 10 labelled samples, `max_pseudo_ratio` 0.05 allows none"):
        exchange(max_pseudo_ratio=0.05)
    with pytest.raises(ValueError, match="None of 0 kept samples"):
        exchange_samples([], labelled, **OPTIONS)
    with pytest.raises(ValueError, match="`weighting` is 'square'"):
        exchange(weighting="square")


def test_the_source_of_the_query_takes_the_first_place_where_it_is_asked_for(make_sample, labelled):
    def kept(number, rank):
        return make_sample(
            number,
            "gar",
            id=f"rank {rank}",
            docids=["a", "b", "c"],
            rows=[4, 5, 6],
            confidence={"score": 0.5, "round_trip_rank": rank},
        )

    samples = [kept(20, 1), kept(21, 3), kept(22, 0)]
    first = exchange_samples(samples, labelled, **OPTIONS)
    assert [one["docids"] for one in first][:3] == 3 * [["a", "b", "c"]]
    source = exchange_samples(samples, labelled, docid_target="source", **OPTIONS)
    assert ids(source) == ["rank 1", "rank 3"]
    assert [(one["docids"], one["rows"]) for one in source][:2] == [
        (["a", "b", "c"], [4, 5, 6]),
        (["c", "a", "b"], [6, 4, 5]),
    ]


def test_an_unknown_docid_target_is_refused(exchange):
    with pytest.raises(ValueError, match="`docid_target` is 'gold'"):
        exchange(docid_target="gold")


def test_what_a_label_asks_of_another_document_teaches_retrieval_alone(kept, labelled, processor):
    written = [sample | {"iteration": 1} for sample in kept]
    for query_source, tasks in (("written", {"query_to_docid", "grounded_answer"}), ("labelled", {"query_to_docid"})):
        samples = exchange_samples(written, labelled, query_source=query_source, **OPTIONS)
        examples = tokenize_examples(samples, "rag", processor)
        of_partner = [one for one in examples if COMPONENTS[one["component"]] == "exchange"]
        assert {one["task"] for one in of_partner} == tasks
        assert [one["weight"] for one in of_partner if one["task"] == "query_to_docid"] == pytest.approx(SCORES)
        assert "grounded_answer" in {one["task"] for one in examples}  # of the labels
