import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.features import new_sample
from trainers.confidence import ConfidenceArguments, calibrate_temperature, confidence_score, filter_samples

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
    assert 0 <= confidence_score(found, ConfidenceArguments(weight_answer=weight)) <= 1 + 1e-9


def test_the_best_fraction_is_kept_and_the_order_stays():
    samples = samples_with(0.1, 0.9, 0.5, 0.7)
    filtered = filter_samples(samples, ConfidenceArguments(keep_fraction=0.5))
    assert [sample["id"] for sample in filtered] == ["0", "1", "2", "3"]
    assert kept_ids(filtered) == ["1", "3"]
    assert all(sample["confidence"]["score"] is not None for sample in filtered)


def test_the_fraction_is_one_of_all_samples_and_never_rounds_to_none():
    assert kept_ids(filter_samples(samples_with(0.1, 0.9, 0.5), ConfidenceArguments(keep_fraction=0.01))) == ["1"]
    assert len(kept_ids(filter_samples(samples_with(0.1, 0.9, 0.5), ConfidenceArguments(keep_fraction=1.0)))) == 3


def test_a_threshold_keeps_what_reaches_it():
    arguments = ConfidenceArguments(keep="threshold", keep_threshold=0.75, weight_docid=1, weight_round_trip=1)
    # Scores (0.4 + 1) / 2, (0.5 + 1) / 2 and (0.9 + 1) / 2.
    assert kept_ids(filter_samples(samples_with(0.4, 0.5, 0.9), arguments)) == ["1", "2"]
    assert kept_ids(filter_samples(samples_with(0.4, 0.3), arguments)) == []


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


def test_no_samples_give_none():
    assert filter_samples([], ConfidenceArguments()) == []


@pytest.mark.parametrize("wrong", [{"keep": "best"}, {"keep_fraction": 0.0}, {"keep_fraction": 1.5}])
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is"):
        ConfidenceArguments(**wrong)


def test_calibration_raises_the_temperature_of_an_underconfident_model_and_lowers_that_of_an_overconfident_one():
    """`exp(log_prob / T)`: since log-probabilities are negative, a higher T means more confidence."""
    half_right = [True, False] * 50
    assert calibrate_temperature([math.log(0.99)] * 100, half_right) < 1
    assert calibrate_temperature([math.log(0.01)] * 100, half_right) > 1


def test_calibration_leaves_a_calibrated_model_and_recovers_a_known_temperature():
    probabilities = [i / 10 for i in range(1, 10) for _ in range(10)]
    correct = [j < i for i in range(1, 10) for j in range(10)]
    log_probs = [math.log(probability) for probability in probabilities]
    assert calibrate_temperature(log_probs, correct) == pytest.approx(1.0)
    for factor in (0.25, 4.0):
        recovered = calibrate_temperature([factor * value for value in log_probs], correct)
        assert recovered == pytest.approx(factor, rel=0.07)


def test_calibration_without_answers_is_neutral():
    assert calibrate_temperature([], []) == 1.0
