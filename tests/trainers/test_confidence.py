import math
import random

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.features import SAMPLE_FEATURES, new_sample
from trainers.confidence import (
    ConfidenceArguments,
    confidence_score,
    filter_samples,
    refilter,
    rows_by_writer,
)

SIGNALS = {
    "docid_log_prob": math.log(0.5),
    "answer_log_prob": math.log(0.25),
    "round_trip_rank": 2,
    "docid_agreement": 1.0,
    "answer_agreement": 0.5,
}
ANY_ROUND_TRIP = {"max_round_trip_rank": 0}


def signals(**changes):
    return dict.fromkeys(SIGNALS) | {"score": None} | changes


def samples_with(*docid_probabilities, **fields):
    """Samples whose docid's log-probability alone decides the score."""
    return [
        new_sample(
            id=str(i),
            **{"query": "a query?", "answers": ["an answer"]} | fields,
            confidence={"docid_log_prob": math.log(probability), "round_trip_rank": 1},
        )
        for i, probability in enumerate(docid_probabilities)
    ]


def kept_ids(samples):
    return [sample["id"] for sample in samples if sample["kept"]]


def test_the_score_is_the_weighted_mean_of_the_signals():
    arguments = ConfidenceArguments(
        weight_docid=1, weight_answer=2, weight_round_trip=3, weight_docid_agreement=4, weight_answer_agreement=10
    )
    expected = (1 * 0.5 + 2 * 0.25 + 3 * (1 / 2) + 4 * 1.0 + 10 * 0.5) / 20
    assert confidence_score(SIGNALS, arguments) == pytest.approx(expected)


def test_missing_signals_are_left_out_of_the_mean():
    arguments = ConfidenceArguments(weight_docid=1, weight_round_trip=3)
    found = signals(docid_log_prob=math.log(0.5), round_trip_rank=1)
    assert confidence_score(found, arguments) == pytest.approx((0.5 + 3 * 1) / 4)


def test_a_source_that_is_not_found_counts_zero_and_is_no_missing_signal():
    arguments = ConfidenceArguments(weight_docid=1, weight_round_trip=3)
    lost = signals(docid_log_prob=math.log(0.5), round_trip_rank=0)
    assert confidence_score(lost, arguments) == pytest.approx(0.5 / 4)


def test_no_weighted_signal_is_an_error():
    with pytest.raises(ValueError, match="No signal"):
        confidence_score(signals(), ConfidenceArguments())
    with pytest.raises(ValueError, match="set a weight"):
        confidence_score(signals(docid_log_prob=-1.0), ConfidenceArguments(weight_docid=0))


@given(st.floats(-50, 0), st.floats(-50, 0), st.integers(0, 20), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 10))
def test_the_score_lies_between_0_and_1(docid, answer, rank, docid_agreement, answer_agreement, weight):
    found = signals(
        docid_log_prob=docid,
        answer_log_prob=answer,
        round_trip_rank=rank,
        docid_agreement=docid_agreement,
        answer_agreement=answer_agreement,
    )
    assert 0 <= confidence_score(found, ConfidenceArguments(weight_answer=weight)) <= 1


def test_the_best_fraction_is_kept_and_the_order_stays():
    samples = samples_with(0.1, 0.9, 0.5, 0.7)
    filtered = filter_samples(samples, ConfidenceArguments(keep_fraction=0.5))
    assert [sample["id"] for sample in filtered] == ["0", "1", "2", "3"]
    assert kept_ids(filtered) == ["1", "3"]
    assert all(sample["confidence"]["score"] is not None for sample in filtered)


def test_the_fraction_is_one_of_all_samples_and_never_rounds_to_none():
    assert kept_ids(filter_samples(samples_with(0.1, 0.9, 0.5), ConfidenceArguments(keep_fraction=0.01))) == ["1"]
    assert len(kept_ids(filter_samples(samples_with(0.1, 0.9, 0.5), ConfidenceArguments(keep_fraction=1.0)))) == 3


def test_of_what_leads_back_the_least_confident_fraction_can_be_kept():
    samples = samples_with(0.1, 0.9, 0.5, 0.7)
    samples[0]["confidence"]["round_trip_rank"] = 0
    assert kept_ids(filter_samples(samples, ConfidenceArguments(prefer="uncertain"))) == ["2", "3"]
    for without in ({"max_round_trip_rank": 0}, {"keep": "threshold"}):
        with pytest.raises(ValueError, match="what the round trip vouches for"):
            ConfidenceArguments(prefer="uncertain", **without)


def test_a_threshold_keeps_what_reaches_it():
    samples = samples_with(0.5, 0.5, 0.5)
    for sample, rank in zip(samples, (3, 2, 1), strict=True):
        sample["confidence"]["round_trip_rank"] = rank
    by_rank = {"weight_docid": 0, "keep": "threshold"} | ANY_ROUND_TRIP
    # Scores 1/3, 1/2 and 1.
    assert kept_ids(filter_samples(samples, ConfidenceArguments(keep_threshold=0.5, **by_rank))) == ["1", "2"]
    assert kept_ids(filter_samples(samples[:2], ConfidenceArguments(keep_threshold=0.6, **by_rank))) == []


def test_a_sample_that_does_not_find_its_source_is_dropped_whatever_its_score():
    samples = samples_with(0.1, 0.9, 0.8, 0.5)
    for sample, rank in zip(samples, (1, 0, 2, 1), strict=True):
        sample["confidence"]["round_trip_rank"] = rank
    everything = {"keep_fraction": 1.0}
    assert kept_ids(filter_samples(samples, ConfidenceArguments(**everything))) == ["0", "3"]
    assert kept_ids(filter_samples(samples, ConfidenceArguments(max_round_trip_rank=2, **everything))) == [
        "0",
        "2",
        "3",
    ]
    assert len(kept_ids(filter_samples(samples, ConfidenceArguments(**ANY_ROUND_TRIP, **everything)))) == 4


@pytest.mark.parametrize("empty", [{"query": ""}, {"answers": []}, {"answers": [""]}])
def test_a_sample_without_query_or_answer_is_never_kept(empty):
    for rule in ({"keep_fraction": 1.0}, {"keep": "threshold", "keep_threshold": 0.0}):
        assert kept_ids(filter_samples(samples_with(1.0, **empty), ConfidenceArguments(**rule))) == []


def test_of_equal_scores_the_first_are_kept():
    assert kept_ids(filter_samples(samples_with(*[0.5] * 6), ConfidenceArguments(keep_fraction=0.5))) == [
        "0",
        "1",
        "2",
    ]


def test_filtering_again_gives_the_same_and_leaves_its_input_alone():
    samples = samples_with(0.1, 0.9, 0.5, 0.7)
    once = filter_samples(samples, ConfidenceArguments(keep_fraction=0.5))
    assert all(sample["confidence"]["score"] is None and sample["kept"] for sample in samples)
    assert filter_samples(once, ConfidenceArguments(keep_fraction=0.5)) == once
    assert len(kept_ids(filter_samples(once, ConfidenceArguments(keep_fraction=1.0)))) == 4


def test_a_sample_without_round_trip_is_dropped_where_one_is_asked_for():
    samples = samples_with(0.5, 0.5)
    samples[0]["confidence"]["round_trip_rank"] = None
    assert kept_ids(filter_samples(samples, ConfidenceArguments(keep_fraction=1.0))) == ["1"]
    assert len(kept_ids(filter_samples(samples, ConfidenceArguments(keep_fraction=1.0, **ANY_ROUND_TRIP)))) == 2


def test_no_samples_give_none():
    assert filter_samples([], ConfidenceArguments()) == []


@pytest.fixture
def written():
    """What each model wrote in each of two iterations, 40 samples each, by (iteration, source)."""
    rng = random.Random(0)

    def sample(iteration, source, number):
        return new_sample(
            id=f"{source}-{iteration}-{number}",
            query="a query?",
            answers=["an answer"] if rng.random() < 0.9 else [""],
            source=source,
            iteration=iteration,
            confidence={
                # Log-probabilities as a search gives them, in float64; every other one as good as equal.
                "docid_log_prob": -rng.random() if number % 2 else -0.3 - number * 1e-12,
                "answer_log_prob": -2 * rng.random() if number % 2 else -0.3,
                "round_trip_rank": rng.choice([0, 1, 1, 2]),
                "docid_agreement": rng.choice([0.0, 0.5, 1.0]) if number % 2 else 1.0,
                "answer_agreement": rng.random() if number % 2 else 1.0,
            },
        )

    writers = [(iteration, source) for iteration in (1, 2) for source in ("gar", "rag")]
    return {writer: [sample(*writer, number) for number in range(40)] for writer in writers}


def as_dataset(groups):
    return Dataset.from_list([sample for group in groups for sample in group], features=SAMPLE_FEATURES)


@pytest.mark.parametrize(
    "arguments",
    [
        ConfidenceArguments(keep_fraction=0.3),
        ConfidenceArguments(keep="threshold", keep_threshold=0.7, max_round_trip_rank=2),
        ConfidenceArguments(weight_answer=0, weight_docid_agreement=3, **ANY_ROUND_TRIP),
    ],
    ids=["fraction", "threshold", "weights"],
)
def test_refiltering_stored_samples_gives_what_co_training_would_have_kept_and_scored(written, arguments):
    before = as_dataset(filter_samples(group, ConfidenceArguments()) for group in written.values())
    expected = as_dataset(filter_samples(group, arguments) for group in written.values())
    again = refilter(before, arguments)
    assert again.features == SAMPLE_FEATURES
    assert again.to_list() == expected.to_list()
    assert again["kept"][:] != before["kept"][:]
    assert refilter(again, ConfidenceArguments()).to_list() == before.to_list()


def test_refiltering_takes_the_best_of_each_model_and_iteration_in_whatever_order_they_are_stored(written):
    arguments = ConfidenceArguments(keep_fraction=0.25, **ANY_ROUND_TRIP)
    expected = {sample["id"]: sample for group in written.values() for sample in filter_samples(group, arguments)}
    mixed = as_dataset(written.values()).select([row for start in range(40) for row in range(start, 160, 40)])
    again = refilter(mixed, arguments)
    assert again["id"][:] == mixed["id"][:]
    assert kept_ids(again) == [id for id in again["id"] if expected[id]["kept"]]
    writers = rows_by_writer(again)
    assert list(writers) == [(1, "gar"), (1, "rag"), (2, "gar"), (2, "rag")]
    assert all(sum(again.select(rows)["kept"]) == 10 for rows in writers.values())


def test_samples_without_signals_cannot_be_refiltered():
    labelled = Dataset.from_list([new_sample(id="1", source="labelled")], features=SAMPLE_FEATURES)
    with pytest.raises(ValueError, match="No signal"):
        refilter(labelled, ConfidenceArguments())


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": "best"},
        {"prefer": "sure"},
        {"keep_fraction": 0.0},
        {"keep_fraction": 1.5},
        {"keep_threshold": 1.5},
        {"keep_threshold": math.nan},
        {"target_precision": 0.0},
        {"max_round_trip_rank": -1},
        {"weight_docid": -1.0},
        {"weight_answer": math.nan},
    ],
)
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is"):
        ConfidenceArguments(**wrong)


def test_a_rule_without_any_signal_is_refused():
    only_round_trip = dict.fromkeys(
        ("weight_docid", "weight_answer", "weight_docid_agreement", "weight_answer_agreement"), 0.0
    )
    ConfidenceArguments(**only_round_trip)
    for rule in ({"keep": "calibrated"}, {"weight_round_trip": 0.0}):
        with pytest.raises(ValueError, match="No signal that `keep` '.*' may use has a weight"):
            ConfidenceArguments(**only_round_trip | rule)


CALIBRATED = {"keep": "calibrated", "weight_answer": 0.0}


def test_the_calibrated_rule_keeps_from_its_threshold_and_scores_without_the_round_trip():
    samples = samples_with(0.5, 0.7, 0.9)
    samples[2]["confidence"]["round_trip_rank"] = 0
    filtered = filter_samples(samples, ConfidenceArguments(**CALIBRATED, **ANY_ROUND_TRIP), 0.6)
    assert [one["confidence"]["score"] for one in filtered] == pytest.approx([0.5, 0.7, 0.9])
    assert kept_ids(filtered) == ["1", "2"]
    assert kept_ids(filter_samples(samples, ConfidenceArguments(**CALIBRATED), 0.6)) == ["1"]
    with pytest.raises(ValueError, match="there is no `threshold`: find it with calibrate_threshold"):
        filter_samples(samples, ConfidenceArguments(**CALIBRATED))


def test_a_calibrated_run_is_refiltered_by_its_threshold_without_the_round_trip(written):
    found = as_dataset(
        filter_samples(group, ConfidenceArguments(keep="calibrated"), 0.6) for group in written.values()
    )
    again = refilter(found, ConfidenceArguments(keep="threshold", keep_threshold=0.6, weight_round_trip=0))
    assert any(found["kept"]) and again.to_list() == found.to_list()
    with pytest.raises(ValueError, match="Use `keep` 'threshold' with `weight_round_trip` 0"):
        refilter(found, ConfidenceArguments(keep="calibrated"))
