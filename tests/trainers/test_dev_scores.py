import pytest
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint.query_likelihood import query_log_probs
from modeling_mint.strategies_mint import StrategyInference
from trainers.blocks import load_json_lines
from trainers.dev_scores import dev_scores
from trainers.evaluation import evaluate_role, predict_role
from trainers.query_weight import calibrate_query_weight

OPTIONS = {"k": 5, "num_beams": 6, "batch_size": 4, "max_new_tokens": 6}
QUERIES = [f"what stands under entry {row}?" for row in (2, 5, 7, 9, 11)]


def found_by(model, role, processor):
    """What a model finds by docids alone."""
    inference = StrategyInference(QUERIES, processor, **{role: model}, query_likelihood_weight=0.0, **OPTIONS)
    return inference.rag_documents if role == "rag" else inference.gar_documents


def labelled(make_sample, rows):
    samples = [make_sample(row, query=query) for query, row in zip(QUERIES, rows, strict=True)]
    return Dataset.from_list(samples, features=SAMPLE_FEATURES)


@pytest.mark.parametrize("role", ["rag", "gar"])
def test_the_weight_is_that_of_all_documents_found_by_docid(role, make_model, processor, make_sample, tmp_path):
    model = make_model(role, seed=6)
    found = found_by(model, role, processor)
    read = query_log_probs(model, processor, QUERIES, found.rows)
    # What is right is the best by its text of all that are not first by their docids.
    right = [max(range(5), key=lambda place: (place > 0, log_probs[place])) for log_probs in read]
    samples = labelled(make_sample, [rows[place] for rows, place in zip(found.rows, right, strict=True)])
    scores = dev_scores(samples, processor, model, role, tmp_path, block_size=2, **OPTIONS)
    relevant = [[place == one for place in range(5)] for one in right]
    weight = calibrate_query_weight(found.scores, read, relevant)
    assert scores.pop("query_likelihood_weight") == weight > 0
    assert scores == pytest.approx(evaluate_role(samples, processor, model, **OPTIONS))
    lines = [line for path in sorted(tmp_path.iterdir()) for line in load_json_lines(path)]
    for line, rows, log_probs, document_scores in zip(lines, found.rows, read, found.scores, strict=True):
        assert line["rows"] == rows
        assert line["query_log_probs"] == pytest.approx(log_probs, abs=1e-3)
        assert line["document_scores"] == pytest.approx(document_scores, abs=1e-3)


def test_nothing_is_read_where_no_relevant_document_is_found(make_model, processor, make_sample, tmp_path):
    model = make_model("rag", seed=6)
    missed = [next(row for row in range(40) if row not in rows) for rows in found_by(model, "rag", processor).rows]
    scores = dev_scores(labelled(make_sample, missed), processor, model, "rag", tmp_path, **OPTIONS)
    assert scores["query_likelihood_weight"] == scores["r_precision"] == 0
    assert [line["query_log_probs"] for path in tmp_path.iterdir() for line in load_json_lines(path)] == [[]] * 5


def test_a_model_that_was_calibrated_is_scored_by_its_docids_all_the_same(
    make_model, processor, make_sample, tmp_path
):
    model = make_model("rag", seed=1)
    found = found_by(model, "rag", processor)
    samples = labelled(make_sample, [rows[0] for rows in found.rows])
    before = dev_scores(samples, processor, model, "rag", tmp_path / "before", **OPTIONS)
    model.calibrate("rag", query_likelihood_weight=50.0)
    assert [one["rows"] for one in predict_role(samples, processor, model, **OPTIONS)] != found.rows
    assert dev_scores(samples, processor, model, "rag", tmp_path / "after", **OPTIONS) == before
