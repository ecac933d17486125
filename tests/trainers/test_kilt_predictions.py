import json
import logging

import pytest

from tests.examples.conftest import write_json_lines
from trainers.kilt_predictions import (
    SECTION_DOCID,
    TITLE,
    Prediction,
    align_predictions,
    read_gold,
    read_predictions,
    write_predictions,
)

GOLD = {
    "id": "creak-dev_1",
    "input": "is the moon a planet?",
    "output": [
        {"answer": "no", "provenance": [{"wikipedia_id": "7", "title": "Moon", "section": "Section::::Orbit."}]},
        {"answer": "REFUTES"},
        {"provenance": [{"wikipedia_id": 8, "title": "Planet"}, {"title": "Moon"}]},
    ],
    "meta": {"task": "boolean_qa", "answer_in_document": False},
}


def guess(record_id="creak-dev_1", **output):
    return {"id": record_id, "output": [output]}


@pytest.fixture
def write(tmp_path):
    return lambda *records, name="file.jsonl": write_json_lines(tmp_path / name, list(records))


def test_a_gold_record_is_read_whole(write):
    (one,) = read_gold(write(GOLD))
    assert (one.id, one.query, one.answers) == ("creak-dev_1", "is the moon a planet?", ["no", "REFUTES"])
    assert one.provenance == [["7"], ["8", None]]
    assert one.titles == ["Moon", "Planet"]
    assert (one.source, one.task, one.answer_in_document) == ("creak", "boolean_qa", False)


def test_rank_keys_make_up_docids_in_gold_and_predictions(write):
    gold, predictions = write(GOLD), write(guess(**GOLD["output"][0]), name="guess.jsonl")
    assert read_gold(gold, TITLE)[0].provenance == [["Moon"], ["Planet", "Moon"]]
    assert read_gold(gold, ("wikipedia_id", "section"))[0].provenance == [["7+Section::::Orbit."], [None, None]]
    assert read_gold(gold, SECTION_DOCID)[0].provenance == [["Moon, Orbit"], ["Planet", "Moon"]]
    for keys, docids in ((TITLE, ["Moon"]), (("wikipedia_id", "section"), ["7+Section::::Orbit."])):
        assert read_predictions(predictions, keys)["creak-dev_1"] == Prediction("no", docids)


def test_ids_and_answers_become_strings_as_in_the_official_scorer(write):
    path = write(guess(7, answer=5), guess(" x ", answer=None, provenance=[{"wikipedia_id": None}, {"title": "A"}]))
    assert read_predictions(path) == {"7": Prediction("5", []), "x": Prediction("None", ["None"])}


def test_source_and_task_of_official_files_are_known_by_their_names(write):
    record = {name: GOLD[name] for name in ("id", "output")}
    (one,) = read_gold(write(record | {"id": 5}, name="fever-dev-kilt.jsonl"))
    assert (one.source, one.task, one.query) == ("fever", "fact_verification", "")
    (one,) = read_gold(write(record | {"id": "3f2a-77"}, name="mine.jsonl"))
    assert (one.source, one.task) == ("mine", "")


def test_predictions_are_brought_into_the_order_of_the_gold(write, caplog):
    gold = read_gold(write(GOLD | {"id": 1}, GOLD | {"id": "2"}))
    predictions = {name: Prediction(name, []) for name in ("2", "other", "1")}
    with caplog.at_level(logging.WARNING):
        assert [one.answer for one in align_predictions(gold, predictions)] == ["1", "2"]
    assert "1 predictions are for other ids and not scored: other." in caplog.text
    with pytest.raises(ValueError, match="1 of 2 labelled queries have no prediction: 2. "):
        align_predictions(gold, {"1": Prediction("x", [])})


def test_what_is_written_is_read_back(tmp_path):
    pieces = [[{"wikipedia_id": "7", "title": "Zürich"}, {"wikipedia_id": "8", "title": "B"}], []]
    write_predictions(tmp_path / "guess.jsonl", ["a", "b"], ["ja", ""], pieces)
    assert read_predictions(tmp_path / "guess.jsonl") == {"a": Prediction("ja", ["7", "8"]), "b": Prediction("", [])}
    first = json.loads((tmp_path / "guess.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert first == {"id": "a", "output": [{"answer": "ja", "provenance": pieces[0]}]}


def test_outputs_without_provenance_are_passed_over_by_the_ranking_and_leave_no_answer(write):
    record = {"id": 1, "output": [{"answer": "x"}, {"provenance": [{"title": "A"}]}, {"provenance": None}]}
    assert read_predictions(write(record), TITLE) == {"1": Prediction(None, ["A"])}


def test_blind_records_are_read_where_they_are_meant(write):
    path = write({"id": 1, "input": "why?"})
    assert read_gold(path, blind=True)[0].provenance == []
    with pytest.raises(ValueError, match="line 1: this record has no 'output' to score by"):
        read_gold(path)


@pytest.mark.parametrize(
    "records, said",
    [
        (["{"], "line 1: not valid JSON"),
        (["[]"], "line 1: expected a JSON object"),
        ([GOLD, {"output": []}], "line 2: this record has no 'id'"),
        ([GOLD, GOLD], "line 2: id 'creak-dev_1' was taken at .*line 1. Make ids unique"),
        ([GOLD | {"output": "yes"}], "line 1: 'output' must be a list of objects"),
        ([GOLD | {"output": [{"answer": 3}]}], "line 1: every 'answer' must be a string"),
        ([guess(answer="x", provenance=["Moon"])], "line 1: 'provenance' must be a list of objects"),
        ([guess(answer="x", provenance=[{"title": "Moon"}])], "no provenance has wikipedia_id.*--rank-keys title"),
        ([""], "holds no record"),
    ],
)
def test_bad_gold_is_refused_with_its_place(write, records, said):
    with pytest.raises(ValueError, match=said):
        read_gold(write(*records))


@pytest.mark.parametrize(
    "records, said",
    [
        ([guess(answer="x"), "{"], "line 2: not valid JSON"),
        ([guess(answer="x"), guess(answer="y")], "line 2: id 'creak-dev_1' was taken at .*line 1"),
        ([{"id": 1}], "line 1: a prediction needs exactly one output, .* found 0"),
        ([{"id": 1, "output": [{"answer": "x"}] * 2}], "line 1: a prediction needs exactly one output, .* found 2"),
        ([guess(provenance="Moon")], "line 1: 'provenance' must be a list of objects"),
        ([""], "holds no prediction"),
    ],
)
def test_bad_predictions_are_refused_with_their_place(write, records, said):
    with pytest.raises(ValueError, match=said):
        read_predictions(write(*records))
