import pytest

from trainers.query_weight import PRIOR_MEAN, PRIOR_STD, WEIGHTS, calibrate_query_weight


def test_texts_count_as_much_as_they_tell_relevant_documents_from_others():
    scores = [[-1.0, -1.2], [-0.8, -1.1], [-1.0, -0.9]]
    right = [[False, True], [False, True], [True, False]]
    telling = [[-30.0, -20.0], [-25.0, -18.0], [-20.0, -26.0]]
    misleading = [[-20.0, -30.0], [-18.0, -25.0], [-26.0, -20.0]]
    assert calibrate_query_weight(scores, telling, right) > 0.2
    known = [[one[1], one[0]] for one in scores]
    assert calibrate_query_weight(known, misleading, right) == 0.0


def test_the_weight_is_found_that_the_relevance_was_drawn_with():
    weight, scores, log_probs, right = 0.25, [], [], []
    for first in range(-12, 13):
        for second in range(-40, 41, 4):
            scores.append([float(first), 0.0])
            log_probs.append([float(second), 0.0])
            right.append([first + weight * second > 0, first + weight * second <= 0])
    assert calibrate_query_weight(scores, log_probs, right) == pytest.approx(weight, abs=0.05)


def test_one_query_does_not_decide_alone():
    for log_probs in ([-40.0, -20.0], [-20.0, -40.0]):
        weight = calibrate_query_weight([[-1.0, -1.2]], [log_probs], [[False, True]])
        assert weight == pytest.approx(PRIOR_MEAN, abs=PRIOR_STD)
    assert calibrate_query_weight([[-1.0, -1.2]], [[-20.0, -40.0]], [[False, True]]) < PRIOR_MEAN


def test_nothing_is_read_where_nothing_can_be_learnt():
    assert calibrate_query_weight([], [], []) == 0.0
    assert calibrate_query_weight([[-1.0, -2.0]], [[-9.0, -5.0]], [[False, False]]) == 0.0
    assert WEIGHTS[0] == 0
