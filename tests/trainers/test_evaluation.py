import json
import math

import pytest
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES, SECTION_COLLECTION_FEATURES, new_sample
from modeling_mint import STRATEGIES
from modeling_mint.strategies_mint import StrategyInference
from tests.tiny import TITLES
from trainers.evaluation import (
    METRICS,
    evaluate_role,
    evaluate_strategies,
    predict_role,
    score_predictions,
    score_role,
    score_rows,
    title_in_query,
)

OPTIONS = {"k": 5, "num_beams": 6, "batch_size": 4, "max_new_tokens": 6}


@pytest.fixture
def questions(make_sample):
    """Two questions with their title inside, one without."""
    samples = [
        make_sample(2, query="Who built the Eiffel Tower?", answers=["Gustave Eiffel", "Eiffel"]),
        make_sample(7, query="Is Paris, Texas a road movie?", answers=["yes"]),
        make_sample(36, query="Which programme went to the moon?", answers=["Apollo"]),
    ]
    return Dataset.from_list(samples, features=SAMPLE_FEATURES)


@pytest.fixture
def models(make_model):
    return {"rag": make_model("rag", 0), "gar": make_model("gar", 1)}


def test_a_title_in_the_query_is_seen_with_and_without_its_brackets(make_sample):
    assert title_in_query(make_sample(7, query="is Paris, Texas (film) old?"))
    assert title_in_query(make_sample(7, query="is paris, texas old?"))
    assert not title_in_query(make_sample(7, query="is Paris in Texas?"))
    assert not title_in_query(make_sample(36, query="what is the apollonian style?"))


def test_scores_of_each_subset_are_right(questions):
    docids = [["Eiffel Tower", "Paris"], ["Paris", "Paris, Texas (film)"], ["Moon"]]
    answers = ["the gustave eiffel", "yes", "Apollo 11"]
    rows = {row["subset"]: row for row in score_predictions(questions, docids, answers)}
    assert list(rows) == ["all", "title_in_query", "title_not_in_query"]
    assert [row["queries"] for row in rows.values()] == [3, 2, 1]
    inside, outside = rows["title_in_query"], rows["title_not_in_query"]
    assert (inside["r_precision"], inside["recall@5"]) == (1 / 2, 1.0)
    assert (inside["em"], inside["f1"]) == (1.0, 1.0)
    assert (inside["kilt_em"], inside["kilt_f1"]) == (1 / 2, 1 / 2)
    assert (outside["r_precision"], outside["recall@5"], outside["em"], outside["kilt_f1"]) == (0.0, 0.0, 0.0, 0.0)
    assert outside["f1"] == pytest.approx(2 / 3)  # one word of two is right
    for name in METRICS:
        assert rows["all"][name] == pytest.approx((2 * inside[name] + outside[name]) / 3)


def test_without_answers_there_are_no_answer_scores(questions):
    row = score_predictions(questions, [["Eiffel Tower"], [], []])[0]
    assert row["r_precision"] == pytest.approx(1 / 3)
    assert [row[name] for name in ("em", "f1", "kilt_em", "kilt_f1")] == [None] * 4


def test_an_empty_subset_has_no_row(questions):
    rows = score_predictions(questions.select([2]), [["Apollo"]], ["Apollo"])
    assert [(row["subset"], row["kilt_em"]) for row in rows] == [("all", 1.0), ("title_not_in_query", 1.0)]


def test_every_strategy_is_run_and_scored(questions, processor, models):
    rows, predictions = evaluate_strategies(questions, processor, STRATEGIES, **models, **OPTIONS)
    assert [(row["system"], row["subset"]) for row in rows] == [
        (strategy, subset) for strategy in STRATEGIES for subset in ("all", "title_in_query", "title_not_in_query")
    ]
    assert all(0 <= row[name] <= 1 for row in rows for name in METRICS)
    assert [(one["system"], one["id"]) for one in predictions] == [
        (strategy, sample["id"]) for strategy in STRATEGIES for sample in questions
    ]
    for one in predictions:
        assert len(one["docids"]) == 5 and set(one["docids"]) <= set(TITLES)
        assert 0 <= one["score"] <= 1
    found = {(one["system"], one["id"]): one for one in predictions}
    for sample in questions:
        rag, gar, ensemble, cascade = (found[strategy, sample["id"]] for strategy in STRATEGIES)
        assert ensemble["answer"] == max(rag, gar, key=lambda one: one["score"])["answer"]
        assert cascade["docids"] == gar["docids"]
        assert one["gold_docids"] == questions[-1]["docids"]


def test_rows_of_a_strategy_score_its_own_predictions(questions, processor, models):
    rows, predictions = evaluate_strategies(questions, processor, ["cascade"], **models, **OPTIONS)
    docids, answers = ([one[name] for one in predictions] for name in ("docids", "answer"))
    assert rows == [{"system": "cascade"} | row for row in score_predictions(questions, docids, answers)]


@pytest.mark.parametrize("role", ["rag", "gar"])
def test_a_role_is_judged_by_its_own_strategy(questions, processor, models, role):
    scores = evaluate_role(questions, processor, models[role], **OPTIONS)
    rows, _ = evaluate_strategies(questions, processor, [role], **{role: models[role]}, **OPTIONS)
    assert {name: scores[name] for name in METRICS} == {name: rows[0][name] for name in METRICS}
    assert scores.keys() - set(METRICS) == {"answer_temperature"}


@pytest.mark.parametrize("role", ["rag", "gar"])
def test_predictions_in_parts_and_through_json_score_as_at_once(questions, processor, models, role):
    parts = [questions.select([0]), questions.select([1, 2]), questions.select([])]
    predictions = [one for part in parts for one in predict_role(part, processor, models[role], **OPTIONS)]
    inference = StrategyInference(questions["query"][:], processor, **{role: models[role]}, **OPTIONS)
    output = inference.run(role)
    assert [one["rows"] for one in predictions] == output.rows
    assert [one["answer"] for one in predictions] == output.answers
    written = inference.rag_answers if role == "rag" else inference.gar_answers
    assert [one["answer_log_prob"] for one in predictions] == pytest.approx(written.log_probs, abs=1e-4)
    scores = score_role(questions, json.loads(json.dumps(predictions)), processor)
    assert scores == pytest.approx(evaluate_role(questions, processor, models[role], **OPTIONS), abs=1e-3)


def test_a_model_of_one_role_is_not_asked_for_the_other(questions, processor, models):
    own = predict_role(questions, processor, models["gar"], **OPTIONS)
    assert predict_role(questions, processor, models["gar"], "gar", **OPTIONS) == own
    with pytest.raises(ValueError, match="no adapter for 'rag'"):
        predict_role(questions, processor, models["gar"], "rag", **OPTIONS)


def test_a_role_whose_answers_are_right_is_calibrated_to_confidence(questions, processor, models):
    """Labelled with what the model itself answers, all its answers are right, so confidence goes up, else down."""
    inference = StrategyInference(questions["query"][:], processor, gar=models["gar"], **OPTIONS)
    own = inference.gar_answers.texts
    right = questions.map(lambda sample, i: {"answers": [own[i]]}, with_indices=True)
    wrong = questions.map(lambda sample: {"answers": ["no model says this"]})
    temperatures = [
        evaluate_role(samples, processor, models["gar"], **OPTIONS)["answer_temperature"] for samples in (right, wrong)
    ]
    assert temperatures[0] > 1 > temperatures[1]
    assert math.isfinite(temperatures[0])


SECTIONS = [
    ("Paris", "Paris"),
    ("Paris, History", "Paris"),
    ("Paris, Texas", "Paris"),
    ("Paris, Texas", "Paris, Texas"),
    ("Moon", "Moon"),
    ("Moon, Orbit", "Moon"),
]


@pytest.fixture
def sections():
    documents = [{"title": t, "text": "x", "related": [], "metadata": "{}", "page": page} for t, page in SECTIONS]
    return Dataset.from_list(documents, features=SECTION_COLLECTION_FEATURES)


@pytest.fixture
def label_sections():
    """Labelled samples whose gold documents are rows of SECTIONS, each an evidence set of its own."""

    def label(*gold_rows):
        samples = [
            new_sample(
                id=str(i),
                query="how old is it?",
                answers=["old"],
                docids=[SECTIONS[row][0] for row in rows],
                rows=rows,
                provenance=[[SECTIONS[row][0]] for row in rows],
                source="labelled",
            )
            for i, rows in enumerate(gold_rows)
        ]
        return Dataset.from_list(samples, features=SAMPLE_FEATURES)

    return label


def scores(rows, *names):
    return {row["subset"]: tuple(row[name] for name in names) for row in rows}


def test_sections_are_scored_by_page_and_those_that_are_named_by_section_too(sections, label_sections):
    samples = label_sections([1], [5], [0])
    rows = score_rows(samples, [[0, 1], [5, 0], [2, 4]], sections, ["old", "old", "old"])
    # The right page stands first for all three; the right section for the second, and the third names none.
    assert scores(rows, "queries", "r_precision", "recall@5", "em", "kilt_em") == {
        "all": (3, 1.0, 1.0, 1.0, 1.0),
        "title_not_in_query": (3, 1.0, 1.0, 1.0, 1.0),
        "section_in_provenance": (2, 0.5, 1.0, 1.0, 0.5),
    }


def test_page_of_a_section_is_looked_up_not_read_from_its_docid(sections, label_sections):
    samples = label_sections([3], [2])
    rows = score_rows(samples, [[2, 3], [2, 3]], sections)
    # Both rows of the docid come back; their pages are two places.
    assert scores(rows, "r_precision", "recall@5", "em")["all"] == (0.5, 1.0, None)
    assert scores(rows, "queries", "r_precision")["section_in_provenance"] == (1, 1.0)


def test_sections_of_one_page_are_one_piece_of_evidence_by_page(sections, label_sections):
    rows = score_rows(label_sections([1, 0], [4]), [[0], []], sections, ["old", "young"])
    assert scores(rows, "queries", "r_precision", "recall@5", "kilt_em") == {
        "all": (2, 0.5, 0.5, 0.5),
        "title_not_in_query": (2, 0.5, 0.5, 0.5),
        "section_in_provenance": (1, 1.0, 0.5, 1.0),
    }


def test_where_no_provenance_names_a_section_there_is_no_row_for_it(sections, label_sections):
    assert list(scores(score_rows(label_sections([0], [4]), [[0], [5]], sections))) == ["all", "title_not_in_query"]


def test_pages_are_scored_by_their_titles(questions, processor):
    rows = score_rows(questions, [[2], [5, 7], [9]], processor.collection, ["x", "x", "x"])
    docids = [["Eiffel Tower"], ["Paris", "Paris, Texas (film)"], [TITLES[9]]]
    assert rows == score_predictions(questions, docids, ["x", "x", "x"])
