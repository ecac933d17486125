import json

import pytest
from datasets import Dataset

from modeling_mint import STRATEGIES, StrategyInference
from tests.examples.conftest import write_json_lines
from tests.tiny import TITLES
from trainers.kilt_predictions import SECTION_DOCID, TITLE, read_gold, read_predictions, write_predictions
from trainers.score_breakdown import query_scores
from trainers.strategy_predictions import kilt_provenance, predict_strategies

OPTIONS = {"k": 5, "num_beams": 6, "batch_size": 4, "max_new_tokens": 6}
QUERIES = [f"what stands under entry {number}?" for number in range(5)]


@pytest.fixture
def models(make_model):
    return {"rag": make_model("rag", 0), "gar": make_model("gar", 1)}


def test_blocks_hold_what_each_strategy_replies(processor, models, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.strategy_predictions.BLOCK_SIZE", 2)
    replies = predict_strategies(QUERIES, processor, STRATEGIES, tmp_path, **models, **OPTIONS)
    assert list(replies) == list(STRATEGIES)
    assert len(list(tmp_path.iterdir())) == 3
    inference = StrategyInference(QUERIES, processor, **models, **OPTIONS)
    for strategy, found in replies.items():
        output = inference.run(strategy)
        assert [one["rows"] for one in found] == output.rows
        assert [one["answer"] for one in found] == output.answers
        assert [one["score"] for one in found] == pytest.approx(output.scores, abs=1e-4)
    # Finished blocks are taken as they are: nothing is asked of any model.
    assert predict_strategies(QUERIES, processor, STRATEGIES, tmp_path, **OPTIONS) == replies


def collection_of(documents):
    defaults = {"text": "x", "related": [], "metadata": "{}"}
    return Dataset.from_list([defaults | document for document in documents])


def test_pages_are_named_by_title_and_by_page_id_where_there_is_one():
    metadata = json.dumps({"wikipedia_id": 7, "topic": "Arts"})
    collection = collection_of([{"title": TITLES[2]}, {"title": TITLES[5], "metadata": metadata}])
    named, numbered = {"title": TITLES[2]}, {"wikipedia_id": "7", "title": TITLES[5]}
    assert kilt_provenance([[1, 0], [], [0, 0]], collection) == [[numbered, named], [], [named, named]]


SECTIONS = [("Paris", "Paris"), ("Paris, Texas", "Paris, Texas"), ("Paris, History, Middle Ages", "Paris")]


def test_sections_are_scored_by_page_and_by_section(tmp_path):
    collection = collection_of([{"title": title, "page": page} for title, page in SECTIONS])
    (pieces,) = kilt_provenance([[2, 0, 1]], collection)
    assert pieces == [
        {"title": "Paris", "section": "History, Middle Ages"},
        {"title": "Paris", "section": ""},
        {"title": "Paris, Texas", "section": ""},
    ]
    write_predictions(tmp_path / "guess.jsonl", ["1", "2"], ["x", "x"], [pieces, pieces])
    gold = [
        {"id": number, "output": [{"answer": "x", "provenance": [{"title": "Paris", "section": section}]}]}
        for number, section in ((1, "Section::::History.:Middle Ages."), (2, "Section::::Abstract."))
    ]
    write_json_lines(tmp_path / "gold.jsonl", gold)
    scores = {}
    for keys in (TITLE, SECTION_DOCID):
        predictions = read_predictions(tmp_path / "guess.jsonl", keys)
        scores[keys] = query_scores(read_gold(tmp_path / "gold.jsonl", keys), list(predictions.values()), ks=[1, 2])
    assert scores[TITLE]["r_precision"].tolist() == [1, 1]
    assert scores[SECTION_DOCID]["r_precision"].tolist() == [1, 0]
    assert scores[SECTION_DOCID]["recall@2"].tolist() == [1, 1]
