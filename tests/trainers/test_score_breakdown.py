import numpy as np
import pytest

from trainers.kilt_predictions import GoldQuery, Prediction
from trainers.metrics import load_metric
from trainers.score_breakdown import compare_groups, group_scores, kilt_result, query_groups, query_scores
from trainers.score_tables import comparison_table, examples_text, score_table


def gold_query(number, title, **fields):
    defaults = {
        "id": f"q{number}",
        "query": f"who built the {title}?",
        "answers": ["Gustave Eiffel"],
        "provenance": [[title]],
        "titles": [title],
        "source": "creak",
        "task": "open_qa",
        "answer_in_document": None,
    }
    return GoldQuery(**defaults | fields)


@pytest.fixture
def gold():
    return [
        gold_query(0, "Eiffel Tower", answer_in_document=True),
        gold_query(1, "Moon", query="what is it?", source="fever", answer_in_document=False),
        gold_query(2, "Paris", task=""),
        gold_query(3, "New York", query="", provenance=[], titles=[]),
    ]


@pytest.fixture
def predictions():
    return [
        Prediction("gustave eiffel", ["Eiffel Tower", "Moon"]),
        Prediction("Eiffel", ["Paris", "Moon"]),
        Prediction("", ["Paris"]),
        Prediction("Gustave Eiffel", []),
    ]


def test_means_of_the_query_scores_are_the_metrics(gold, predictions):
    scores = query_scores(gold, predictions, ks=[2, 1])
    assert all(values.shape == (4,) and values.dtype == np.float64 for values in scores.values())
    assert scores["em"].tolist() == [1, 0, 0, 1]
    assert scores["kilt_em"].tolist() == [1, 0, 0, 0]
    rankings, provenance = [one.docids for one in predictions], [one.provenance for one in gold]
    computed = load_metric("kilt_retrieval").compute(predictions=rankings, references=provenance, ks=[1, 2])
    computed |= load_metric("kilt_downstream").compute(
        predictions=[one._asdict() for one in predictions],
        references=[{"answers": one.answers, "provenance": one.provenance} for one in gold],
    )
    assert {name: values.mean() for name, values in scores.items()} == pytest.approx(computed, abs=1e-12)


def test_the_result_has_the_keys_of_the_official_scorer(gold, predictions):
    result = kilt_result(query_scores(gold, predictions, ks=[1, 5]))
    assert list(result) == ["downstream", "kilt", "retrieval"]
    assert list(result["downstream"]) == ["accuracy", "em", "f1", "rougel"]
    assert list(result["kilt"]) == ["KILT-accuracy", "KILT-em", "KILT-f1", "KILT-rougel"]
    names = ["Rprec", *(f"{name}@{k}" for name in ("precision", "recall", "success_rate") for k in (1, 5))]
    assert list(result["retrieval"]) == names
    assert (result["retrieval"]["Rprec"], result["retrieval"]["recall@5"]) == (1 / 2, 3 / 4)


def test_answers_are_not_scored_where_there_are_none(gold, predictions):
    unanswered = [one._replace(answer=None) for one in predictions]
    unlabelled = [one._replace(answers=[]) for one in gold]
    for result in (query_scores(gold, unanswered), query_scores(unlabelled, predictions)):
        assert kilt_result(result)["downstream"] is None and kilt_result(result)["kilt"] is None
        assert kilt_result(result)["retrieval"]["Rprec"] == 1 / 2


def test_empty_answers_score_zero_whatever_the_labels_as_in_the_official_scorer(gold, predictions):
    silent = [one._replace(answer=" ") for one in predictions]
    unlabelled = [one._replace(answers=[]) for one in gold]
    assert kilt_result(query_scores(unlabelled, silent))["downstream"]["em"] == 0


def test_answers_or_labels_of_some_queries_only_are_refused(gold, predictions):
    with pytest.raises(ValueError, match="1 of 4 predictions have no 'answer' .* 'q2'"):
        query_scores(gold, [*predictions[:2], Prediction(None, []), predictions[3]])
    with pytest.raises(ValueError, match="query 'q1': no reference answer to compare 'Eiffel' with"):
        query_scores([gold[0], gold[1]._replace(answers=[]), *gold[2:]], predictions)


def test_queries_are_grouped_by_what_makes_them_easy_or_hard(gold):
    train = [gold_query(9, "Moon"), gold_query(8, "Parish")]
    assert {name: positions.tolist() for name, positions in query_groups(gold, train).items()} == {
        "all": [0, 1, 2, 3],
        "source creak": [0, 2, 3],
        "source fever": [1],
        "task open_qa": [0, 1, 3],
        "title in query": [0, 2],
        "title not in query": [1],
        "page seen in training": [1],
        "page not seen in training": [0, 2],
        "answer in document": [0],
        "answer not in document": [1],
    }
    assert "page seen in training" not in query_groups(gold)


def test_scores_of_a_group_are_those_of_its_queries(gold, predictions):
    scores, groups = query_scores(gold, predictions), query_groups(gold)
    by_group = group_scores(scores, groups, num_resamples=50)
    assert by_group["all"]["queries"] == 4
    assert by_group["all"]["scores"]["em"]["mean"] == 1 / 2
    assert by_group["title in query"]["scores"]["em"]["mean"] == 1 / 2
    assert by_group["title not in query"]["scores"]["em"] == {"mean": 0, "low": 0, "high": 0}
    two_seeds = {name: np.stack([values, values]) for name, values in scores.items()}
    assert group_scores(two_seeds, groups, num_resamples=50) == by_group


def test_systems_are_compared_in_each_group(gold, predictions):
    better = query_scores(gold, [one._replace(answer="Gustave Eiffel") for one in predictions])
    worse = query_scores(gold, predictions)
    compared = compare_groups(better, worse, query_groups(gold), num_resamples=200)
    em = compared["all"]["differences"]["em"]
    assert (em["first"], em["second"], em["difference"]) == (1.0, 0.5, 0.5)
    assert compared["title not in query"]["differences"]["em"]["share_positive"] == 1
    assert compared["answer in document"]["differences"]["em"]["share_positive"] == 0
    table = comparison_table(compared)
    assert "| all | 4 | EM | 100.0 | 50.0 | 50.0 [" in table
    assert table.count("\n") == 2 + len(compared) * 9


def test_tables_show_a_dash_where_a_system_has_no_answers(gold, predictions):
    groups = {"all": np.arange(4)}
    with_answers = group_scores(query_scores(gold, predictions), groups, num_resamples=10)
    without = group_scores(query_scores(gold, [one._replace(answer=None) for one in predictions]), groups)
    lines = score_table({"rag": with_answers, "bm25": without}).split("\n")
    assert lines[0].startswith("| system | queries | n | R-precision | recall@1 | recall@10 | accuracy | EM |")
    assert lines[3].startswith("| bm25 | all | 4 | 50.0 [") and lines[3].endswith("| – | – | – | – | – | – |")


def test_examples_come_evenly_from_the_three_kinds_and_stay_plain_text(gold, predictions):
    gold = [gold_query(number, "*Moon*") for number in range(30)]
    kinds = [("Gustave Eiffel", "*Moon*"), ("Gustave Eiffel", "Paris"), ("<b>", "*Moon*")]
    predictions = [Prediction(answer, [found]) for answer, found in kinds for _ in range(10)]
    titles = [one.docids for one in predictions]
    text = examples_text(gold, predictions, titles, query_scores(gold, predictions))
    parts = text.split("## ")[1:]
    assert [part.split("\n")[0] for part in parts] == [
        "Right: 10 of 30",
        "Wrong retrieval: 10 of 30",
        "Wrong answer: 10 of 30",
    ]
    assert [part.count("- predicted:") for part in parts] == [7, 7, 6]
    assert "- predicted: \\<b>" in parts[2] and "- found: \\*Moon\\*" in parts[2]
