import doctest
import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from trainers.metrics import METRIC_NAMES, load_metric

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kilt_retrieval():
    return load_metric("kilt_retrieval")


@pytest.fixture(scope="module")
def kilt_downstream():
    return load_metric("kilt_downstream")


def retrieval(metric, ranking, provenance, ks=(1, 2, 3, 5)):
    return metric.compute(predictions=[ranking], references=[provenance], ks=list(ks))


def downstream(metric, answer, answers, docids=("A",), provenance=(("A",),)):
    return metric.compute(
        predictions=[{"answer": answer, "docids": list(docids)}],
        references=[{"answers": list(answers), "provenance": [list(titles) for titles in provenance]}],
    )


def at(scores, name, ks):
    return [scores[f"{name}@{k}"] for k in ks]


# Retrieval


def test_one_gold_title_at_the_second_place(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["B", "A", "C"], [["A"]])
    assert scores["r_precision"] == 0.0
    assert at(scores, "precision", [1, 2, 3, 5]) == [0.0, 1 / 2, 1 / 3, 1 / 5]
    assert at(scores, "recall", [1, 2, 3, 5]) == [0.0, 1.0, 1.0, 1.0]
    assert at(scores, "success_rate", [1, 2, 3, 5]) == [0.0, 1.0, 1.0, 1.0]
    assert scores["mrr"] == 1 / 2


def test_r_precision_is_that_of_the_best_evidence_set_by_its_own_size(kilt_retrieval):
    sets = [["A"], ["B", "C", "D"]]
    assert retrieval(kilt_retrieval, ["B", "X", "C", "A"], sets)["r_precision"] == 2 / 3
    assert retrieval(kilt_retrieval, ["A", "B", "C", "D"], sets)["r_precision"] == 1.0


def test_r_precision_divides_by_the_size_of_the_set_when_the_ranking_is_shorter(kilt_retrieval):
    assert retrieval(kilt_retrieval, ["A"], [["A", "B"]])["r_precision"] == 1 / 2


def test_an_evidence_set_of_two_counts_once_both_titles_are_found(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A", "X", "B"], [["A", "B"]])
    # A gives up its place when B completes the set, so X is first and the set second.
    assert at(scores, "recall", [1, 2, 3]) == [0.0, 1.0, 1.0]
    assert at(scores, "precision", [1, 2]) == [0.0, 1 / 2]
    assert scores["mrr"] == 1 / 2


def test_an_incomplete_evidence_set_counts_for_r_precision_only_and_holds_its_last_place(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A", "B", "D"], [["A", "B", "C"], ["D"]])
    assert scores["r_precision"] == 2 / 3
    # {A, B, C} is never complete; its two titles share one place, so D stands at the second.
    assert at(scores, "recall", [1, 2]) == [0.0, 1 / 2]
    assert scores["mrr"] == 1 / 2


def test_a_title_of_two_evidence_sets_takes_a_place_in_each(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A", "B"], [["A"], ["A", "B"]])
    assert at(scores, "precision", [1, 2]) == [1.0, 1.0]
    assert at(scores, "recall", [1, 2]) == [1 / 2, 1.0]


def test_recall_is_over_distinct_evidence_sets(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A", "X"], [["A"], ["A", "A"], ["B", "C"], ["C", "B"]])
    assert scores["recall@5"] == 1 / 2


def test_repeated_titles_count_at_their_first_place_only(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["X", " X ", "X", "A"], [["A"]])
    assert at(scores, "success_rate", [1, 2]) == [0.0, 1.0]
    assert retrieval(kilt_retrieval, ["A", "A", "B"], [["A", "B"]])["r_precision"] == 1.0


def test_outer_whitespace_is_ignored_and_letter_case_is_not(kilt_retrieval):
    assert retrieval(kilt_retrieval, [" A"], [["A "]])["r_precision"] == 1.0
    assert retrieval(kilt_retrieval, ["a"], [["A"]])["r_precision"] == 0.0


def test_a_missing_prediction_scores_zero_and_stays_in_the_mean(kilt_retrieval):
    scores = kilt_retrieval.compute(predictions=[[], ["A"]], references=[[["A"]], [["A"]]], ks=[1])
    assert set(scores.values()) == {1 / 2}


def test_a_query_without_provenance_scores_zero(kilt_retrieval):
    assert set(retrieval(kilt_retrieval, ["A"], []).values()) == {0.0}
    assert set(retrieval(kilt_retrieval, ["A"], [[]]).values()) == {0.0}


def test_an_empty_evidence_set_is_never_found_but_counts_in_recall(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A"], [["A"], []])
    assert (scores["recall@5"], scores["r_precision"]) == (1 / 2, 1.0)


def test_provenance_without_an_id_is_skipped_by_r_precision_and_keeps_its_set_incomplete(kilt_retrieval):
    scores = retrieval(kilt_retrieval, ["A"], [["A", None]])
    assert (scores["r_precision"], scores["recall@5"]) == (1.0, 0.0)


def test_scores_are_means_over_queries(kilt_retrieval):
    scores = kilt_retrieval.compute(
        predictions=[["A", "B"], ["X", "C"], ["Y"]], references=[[["A"]], [["C"]], [["D"]]], ks=[2]
    )
    assert scores["r_precision"] == pytest.approx(1 / 3)
    assert scores["precision@2"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert scores["recall@2"] == pytest.approx(2 / 3)
    assert scores["mrr"] == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_ks_default_to_one_five_ten_and_repeats_change_nothing(kilt_retrieval):
    inputs = {"predictions": [["A"]], "references": [[["A"]]]}
    assert "recall@10" in kilt_retrieval.compute(**inputs)
    assert kilt_retrieval.compute(**inputs, ks=[5, 5])["recall@5"] == 1.0


@pytest.mark.parametrize("ks", [[0], [-1, 5], ["1"], [2.0]])
def test_ks_that_are_not_positive_integers_are_refused(kilt_retrieval, ks):
    with pytest.raises(ValueError, match="ks must be positive integers"):
        kilt_retrieval.compute(predictions=[["A"]], references=[[["A"]]], ks=ks)


def test_a_string_in_the_place_of_a_ranking_is_refused(kilt_retrieval):
    with pytest.raises(ValueError, match="expected a list"):
        kilt_retrieval.compute(predictions=["Eiffel Tower"], references=[[["Eiffel Tower"]]])


# Downstream


def test_exact_answer_with_the_right_provenance(kilt_downstream):
    scores = downstream(kilt_downstream, "Paris", ["Paris"])
    rougel = 2 * 1 / (2 + 1e-8)  # the package keeps its denominator above 0 in this way
    assert scores["rougel"] == scores["kilt_rougel"] == pytest.approx(rougel, abs=1e-12)
    assert {scores[f"{prefix}{name}"] for prefix in ("", "kilt_") for name in ("accuracy", "em", "f1")} == {1.0}


def test_em_normalizes_case_punctuation_articles_and_whitespace_and_accuracy_does_not(kilt_downstream):
    scores = downstream(kilt_downstream, "The  Eiffel-Tower, a U.S. icon!", ["eiffeltower us icon"])
    assert (scores["accuracy"], scores["em"], scores["f1"]) == (0.0, 1.0, 1.0)


def test_articles_are_removed_as_words_and_only_ascii_punctuation_is(kilt_downstream):
    assert downstream(kilt_downstream, "Theatre an Atlas", ["Theatre Atlas"])["em"] == 1.0
    assert downstream(kilt_downstream, "«Paris»", ["Paris"])["em"] == 0.0


def test_punctuation_goes_before_articles(kilt_downstream):
    # "a.n" turns into the article "an" and goes; the hyphen of "the-end" goes first, so no article is left in it.
    assert downstream(kilt_downstream, "a.n end", ["end"])["em"] == 1.0
    assert downstream(kilt_downstream, "the-end", ["end"])["em"] == 0.0


def test_f1_counts_shared_words_with_repetition(kilt_downstream):
    # 2 words shared, of 3 in the answer and 4 in the reference: 2 * (2/3 * 2/4) / (2/3 + 2/4) = 4/7
    scores = downstream(kilt_downstream, "red red blue", ["red blue green green"])
    assert scores["f1"] == pytest.approx(4 / 7)


def test_answers_of_articles_only_match_exactly_and_have_no_f1(kilt_downstream):
    scores = downstream(kilt_downstream, "The", ["a"])
    assert (scores["em"], scores["f1"]) == (1.0, 0.0)


def test_rougel_is_on_raw_text(kilt_downstream):
    # Longest common subsequence "is in France" = 3 words; "paris" and "Paris" differ: P = 3/4, R = 3/5.
    scores = downstream(kilt_downstream, "paris is in France", ["Paris is now in France"])
    assert scores["rougel"] == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), abs=1e-7)


def test_rougel_of_full_stops_only_is_zero(kilt_downstream):
    scores = downstream(kilt_downstream, "...", ["..."])
    assert (scores["accuracy"], scores["em"], scores["rougel"]) == (1.0, 1.0, 0.0)


def test_each_score_takes_its_best_reference_answer(kilt_downstream):
    scores = downstream(kilt_downstream, "New York", ["NYC", "new york", "New York City", "", " "])
    assert (scores["accuracy"], scores["em"], scores["f1"]) == (0.0, 1.0, 1.0)
    assert scores["rougel"] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3), abs=1e-7)


def test_outer_whitespace_of_answers_is_ignored(kilt_downstream):
    assert downstream(kilt_downstream, " Paris ", ["Paris\n"])["accuracy"] == 1.0


@pytest.mark.parametrize(
    "docids, provenance, right",
    [
        (["A", "B"], [["A"]], True),
        (["B", "A"], [["A"]], False),
        (["B", "A", "C"], [["A", "B"]], True),
        (["A", "C", "B"], [["A", "B"]], False),
        (["A", "A", "B"], [["A", "B"]], True),
        (["A"], [["A", "B"], ["A"]], True),
        (["A"], [["A", "B"]], False),
        ([], [["A"]], False),
        ([], [[]], False),
        (["A"], [], False),
        (["A"], [["A", None]], True),
    ],
)
def test_kilt_scores_count_only_where_r_precision_is_one(kilt_downstream, kilt_retrieval, docids, provenance, right):
    scores = downstream(kilt_downstream, "Paris", ["Paris"], docids, provenance)
    assert (scores["em"], scores["kilt_em"], scores["kilt_accuracy"]) == (1.0, right, right)
    assert scores["kilt_f1"] == scores["f1"] * right
    assert scores["kilt_rougel"] == scores["rougel"] * right
    assert (retrieval(kilt_retrieval, docids, provenance)["r_precision"] == 1.0) == right


def test_an_empty_answer_scores_zero_and_stays_in_the_mean(kilt_downstream):
    scores = kilt_downstream.compute(
        predictions=[{"answer": " ", "docids": ["A"]}, {"answer": "Paris", "docids": ["A"]}],
        references=[{"answers": [], "provenance": [["A"]]}, {"answers": ["Paris"], "provenance": [["A"]]}],
    )
    assert scores["em"] == scores["kilt_f1"] == 1 / 2


def test_an_answer_without_a_reference_answer_is_refused_with_its_place(kilt_downstream):
    with pytest.raises(ValueError, match=r"references\[0\]: no reference answer to compare 'Paris' with"):
        downstream(kilt_downstream, "Paris", [" "])


# Both


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_unequal_numbers_and_nothing_to_score_are_refused(name):
    metric = load_metric(name)
    row = {
        "kilt_retrieval": (["A"], [["A"]]),
        "kilt_downstream": ({"answer": "x", "docids": ["A"]}, {"answers": ["x"], "provenance": [["A"]]}),
    }[name]
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(2\) and references \(1\)"):
        metric.compute(predictions=[row[0]] * 2, references=[row[1]])
    with pytest.raises(ValueError, match="no predictions to score"):
        load_metric(name).compute(predictions=[], references=[])


def test_batches_add_up_to_one_result(kilt_retrieval):
    kilt_retrieval.add_batch(predictions=[["A"]], references=[[["A"]]])
    kilt_retrieval.add(prediction=["X"], reference=[["A"]])
    assert kilt_retrieval.compute(ks=[1])["r_precision"] == 1 / 2


def test_unknown_metric_name_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'rouge': choose one of kilt_retrieval, kilt_downstream"):
        load_metric("rouge")


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_documented_example_runs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = load_metric(name).inputs_description
    example = doctest.DocTestParser().get_doctest(text, {"evaluate": evaluate}, name, name, 0)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted == 3 and result.failed == 0


def test_folders_alone_load_offline_in_a_fresh_process(tmp_path):
    shutil.copytree(ROOT / "trainers" / "metrics", tmp_path / "alone")
    script = f"import evaluate; print([evaluate.load('alone/' + name).name for name in {METRIC_NAMES}])"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(list(METRIC_NAMES))
