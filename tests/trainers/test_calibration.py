import logging
import math
import random

import pytest

from dataset_builders.features import new_sample
from trainers.confidence import (
    KEEP_NONE,
    ConfidenceArguments,
    calibrate_temperature,
    calibrate_threshold,
    filter_samples,
    first_docid_is_right,
)

CALIBRATED = {"keep": "calibrated", "weight_answer": 0.0}


def replies(*scored):
    """Replies to labelled queries: (probability of the first docid, whether it is right)."""
    return [
        new_sample(
            query="a query?",
            answers=["an answer"],
            docids=["Paris" if is_right else "Moon", "Paris"],
            provenance=[["Texas"], ["Paris", "Eiffel"]],
            confidence={"docid_log_prob": math.log(probability)},
        )
        for probability, is_right in scored
    ]


def test_a_docid_is_right_if_any_evidence_has_it():
    right, wrong = replies((0.5, True), (0.5, False))
    assert first_docid_is_right(right) and not first_docid_is_right(wrong)
    assert not first_docid_is_right(right | {"docids": []}) and not first_docid_is_right(right | {"provenance": []})


def test_the_threshold_is_the_lowest_score_from_which_the_precision_is_reached():
    """12 right ones, then right and wrong in turn: the precision falls to 13/14, 14/16, 15/18, ..."""
    scored = [(0.9 - i / 100, True) for i in range(12)]
    scored += [(0.7 - i / 100, i % 2 == 1) for i in range(20)]
    dev = replies(*scored)
    random.Random(0).shuffle(dev)

    def threshold(target):
        return calibrate_threshold(dev, ConfidenceArguments(target_precision=target, **CALIBRATED))

    assert threshold(1.0) == pytest.approx(0.79)
    assert threshold(0.9) == pytest.approx(0.69)  # 13 of 14
    assert threshold(14 / 16) == pytest.approx(0.67)
    assert threshold(0.5) == pytest.approx(0.51)  # all of them: 22 of 32


def test_replies_of_one_score_are_accepted_together():
    arguments = ConfidenceArguments(target_precision=0.9, **CALIBRATED)
    assert calibrate_threshold(replies(*[(0.5, True)] * 18, (0.5, False), (0.5, False)), arguments) == pytest.approx(
        0.5
    )
    assert calibrate_threshold(replies(*[(0.5, True)] * 17, *[(0.5, False)] * 3), arguments) == KEEP_NONE


@pytest.mark.parametrize("scored", [[(0.9, True)] * 9, [(0.9, True)] * 9 + [(0.1, False)] * 9, []])
def test_without_a_trustworthy_threshold_nothing_is_kept_and_the_log_says_so(scored, caplog):
    arguments = ConfidenceArguments(**CALIBRATED, max_round_trip_rank=0)
    with caplog.at_level(logging.WARNING):
        threshold = calibrate_threshold(replies(*scored), arguments)
    assert threshold == KEEP_NONE
    assert f"No score of {len(scored)} labelled replies gives a precision of 0.9 on at least 10" in caplog.text
    certain = filter_samples(replies((1.0, True), (1.0, True)), arguments, threshold)
    assert [(sample["confidence"]["score"], sample["kept"]) for sample in certain] == [(1.0, False)] * 2


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
