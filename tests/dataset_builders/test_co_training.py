import pytest

from dataset_builders.co_training import CoTrainingBuilder
from dataset_builders.features import new_sample
from dataset_builders.writing import build


def test_samples_of_all_iterations_come_back_kept_or_not_with_their_signals(write_lines, cache_dir):
    samples = [
        new_sample(id=f"rag-{i}", source="rag", iteration=i, kept=i == 1, confidence={"docid_log_prob": -0.5})
        for i in (1, 2)
    ]
    paths = [write_lines(f"{sample['iteration']}.jsonl", sample) for sample in samples]
    assert build(CoTrainingBuilder(cache_dir=cache_dir, data_files=paths))["train"].to_list() == samples


def test_a_record_outside_the_schema_is_named(write_lines, cache_dir):
    path = write_lines("1.jsonl", new_sample(id="1"), {"id": "2", "luck": 1})
    with pytest.raises(ValueError, match=r"1\.jsonl, line 2: .*luck"):
        build(CoTrainingBuilder(cache_dir=cache_dir, data_files=path))
