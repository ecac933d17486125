import pytest

from dataset_builders.kilt import dialogue_query, mention_query, read_record


@pytest.mark.parametrize(
    ("task_type", "fields", "message"),
    [
        ("fact_verification", {"output": [{"answer": "NOT ENOUGH INFO"}]}, "label 'NOT ENOUGH INFO' is not one of"),
        ("entity_linking", {"input": "no mention"}, "START_ENT"),
        ("entity_linking", {"input": "[END_ENT] Paris [START_ENT]"}, "exactly once"),
        ("entity_linking", {"input": "[START_ENT] a [END_ENT] [START_ENT] b [END_ENT]"}, "exactly once"),
        ("entity_linking", {"input": "[START_ENT] a [END_ENT] b [END_ENT]"}, "exactly once"),
        ("entity_linking", {"input": "in [START_ENT]  [END_ENT]"}, "mention"),
        ("slot_filling", {"input": "Paris located in"}, "subject \\[SEP\\] relation"),
        ("slot_filling", {"input": "Paris [SEP] "}, "subject \\[SEP\\] relation"),
        ("open_qa", {"output": [{"answer": 7}]}, "'answer' must be a string"),
        ("open_qa", {"output": [{"provenance": "Paris"}]}, "'title' as a string"),
        ("open_qa", {"output": {"answer": "a"}}, "'output' must be a list"),
        ("open_qa", {"meta": ["x"]}, "'meta' must be an object"),
        ("open_qa", {"input": "\x00 "}, "non-empty 'input'"),
        ("open_qa", {"id": None}, "needs 'id'"),
    ],
)
def test_a_record_that_breaks_the_rules_of_its_task_is_refused(task_type, fields, message):
    with pytest.raises(ValueError, match=message):
        read_record({"id": "1", "input": "q?"} | fields, task_type)


def test_empty_answers_provenance_and_output_are_nothing():
    output = [{"answer": "", "provenance": []}, {"answer": None, "provenance": None}, {"answer": " \x00"}]
    for fields in ({"output": output}, {"output": None, "meta": None}, {}):
        record = read_record({"id": 1, "input": "q?"} | fields, "open_qa")
        assert (record.answers, record.evidence_sets, record.metadata) == ([], [], "{}")


def test_further_fields_of_a_record_stay_in_its_metadata():
    record = {"id": "1", "input": "q?", "url": "\u00e9\ud800", "meta": {"split": "test", "topic": "Paris"}}
    assert read_record(record, "open_qa").metadata == '{"url": "\u00e9", "topic": "Paris"}'


def test_a_long_dialogue_loses_its_oldest_turns():
    history = "first turn\nsecond turn\n\nthird turn\n"
    assert dialogue_query(history, 100) == "first turn / second turn / third turn"
    assert dialogue_query(history, len("second turn / third turn")) == "second turn / third turn"
    assert dialogue_query(history, len("second turn / third turn") - 1) == "third turn"
    assert dialogue_query(history, 7) == "third"


def test_a_long_text_keeps_a_window_of_whole_words_around_its_mention():
    left, right = (" ".join(f"{side}{number}" for number in range(200)) for side in "lr")
    text = f"{left} [START_ENT] Paris [END_ENT] {right}"
    assert mention_query(text, 5000) == text
    window = mention_query(text, 100)
    assert 90 < len(window) <= 100 and window.split()[5:-5].count("Paris") == 1
    assert f" {window} " in text and window.startswith("l") and window[0:5] != "l0 l1"
    assert set(window.split()) <= set(text.split())
    # What one side does not need goes to the other.
    at_the_start = mention_query(f"[START_ENT] Paris [END_ENT] {right}", 100)
    assert at_the_start.startswith("[START_ENT] Paris [END_ENT] r0 r1") and 90 < len(at_the_start) <= 100
    at_the_end = mention_query(f"{left} [START_ENT] Paris [END_ENT]", 100)
    assert at_the_end.endswith("l199 [START_ENT] Paris [END_ENT]") and 90 < len(at_the_end) <= 100
    assert mention_query(text, 1) == "[START_ENT] Paris [END_ENT]"


@pytest.mark.parametrize("task_type", ["open_qa", "fact_verification", "slot_filling"])
def test_other_long_queries_end_at_a_word(task_type):
    assert read_record({"id": "1", "input": "Paris [SEP] is a city"}, task_type, 19).query == "Paris [SEP] is a"
