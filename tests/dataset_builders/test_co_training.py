import logging

import pytest

from dataset_builders.co_training import CoTrainingBuilder
from dataset_builders.features import new_sample
from dataset_builders.writing import build


def written(number, **fields):
    """A sample as the co-trainer writes it."""
    return new_sample(**{"id": f"rag-{number}", "source": "rag", "iteration": 1} | fields)


@pytest.fixture
def build_samples(write_lines, cache_dir):
    """Builds records, or raw lines, of one file."""

    def call(*records, **options):
        return build(
            CoTrainingBuilder(cache_dir=cache_dir, data_files=write_lines("rag_samples.jsonl", *records), **options)
        )["train"]

    return call


def test_samples_of_all_iterations_come_back_kept_or_not_with_their_signals(write_lines, cache_dir):
    signals = {
        "docid_log_prob": -0.5,
        "answer_log_prob": -1.25,
        "round_trip_rank": 2,
        "docid_agreement": 0.5,
        "answer_agreement": 0.75,
        "score": 0.625,
    }
    samples = [
        written(number, source=role, iteration=number, kept=number == 1, passage="A part.", confidence=signals)
        for number, role in ((1, "rag"), (2, "gar"))
    ]
    paths = [write_lines(f"{sample['iteration']}.jsonl", sample) for sample in samples]
    assert build(CoTrainingBuilder(cache_dir=cache_dir, data_files=paths))["train"].to_list() == samples


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"luck": 1}, "luck"),
        ({"confidence": {"luck": 1}}, "luck"),
        ({"answers": "Paris"}, "'answers' must be a list, found 'Paris'"),
        ({"answers": None}, "'answers' must be a list, found None"),
        ({"docids": ["Paris", 7]}, r"'docids\[\]' must be a string, found 7"),
        ({"rows": ["7"]}, r"'rows\[\]' must be a whole number, found '7'"),
        ({"rows": [2**40]}, r"'rows\[\]' does not fit into int32: 1099511627776"),
        ({"provenance": ["Paris"]}, r"'provenance\[\]' must be a list, found 'Paris'"),
        ({"query": ["who?"]}, r"'query' must be a string, found \['who\?'\]"),
        ({"query": "\ud800"}, r"'query' does not fit into string: '\\ud800'"),
        ({"kept": 1}, "'kept' must be true or false, found 1"),
        ({"iteration": True}, "'iteration' must be a whole number, found True"),
        ({"confidence": [0.5]}, r"'confidence' must be an object, found \[0.5\]"),
        ({"confidence": {"score": "0.5"}}, "'confidence.score' must be a number, found '0.5'"),
        ({"source": "llm"}, "'source' must be one of rag, gar.*found 'llm' and 1"),
        ({"iteration": 0}, "'iteration' at least 1: found 'rag' and 0"),
        ({"id": "rag-1"}, r"id 'rag-1' was taken at .*rag_samples\.jsonl, line 1"),
    ],
)
def test_what_is_wrong_in_a_field_is_named_with_file_and_line(wrong, message, build_samples):
    with pytest.raises(ValueError, match=rf"rag_samples\.jsonl, line 2: .*{message}"):
        build_samples(written(1), written(2) | wrong)


def test_a_torn_line_is_named_with_file_and_line(build_samples):
    with pytest.raises(ValueError, match=r"rag_samples\.jsonl, line 2: not valid JSON"):
        build_samples(written(1), '{"id": "rag-2", "que')


def test_malformed_samples_are_left_out_and_logged_where_they_are_allowed(build_samples, caplog):
    lines = [written(1), '{"id": ', written(2, answers="x"), written(1, query="again?"), written(3)]
    with caplog.at_level(logging.WARNING):
        assert build_samples(*lines, max_malformed=3)["id"][:] == ["rag-1", "rag-3"]
    assert "3 malformed records left out" in caplog.text and "line 4" in caplog.text
    with pytest.raises(ValueError, match="More than 2 malformed records"):
        build_samples(*lines, max_malformed=2)


def test_integers_are_numbers_and_fields_that_are_missing_are_filled_in(build_samples):
    record = {"id": "gar-1", "source": "gar", "iteration": 2, "confidence": {"docid_agreement": 1}}
    assert build_samples(record).to_list() == [new_sample(**record)]


def test_no_sample_at_all_is_an_error(build_samples):
    with pytest.raises(ValueError, match=r"No sample in .*rag_samples\.jsonl"):
        build_samples("")


def test_a_builder_without_files_says_what_it_needs(cache_dir):
    with pytest.raises(ValueError, match="pass data_files"):
        CoTrainingBuilder(cache_dir=cache_dir)
