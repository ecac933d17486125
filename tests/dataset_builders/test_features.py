import pytest
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES, new_sample


def test_sample_defaults_fill_the_schema():
    sample = new_sample(id="1", query="q", confidence={"round_trip_rank": 2})
    row = Dataset.from_list([sample], features=SAMPLE_FEATURES)[0]
    assert row == sample
    assert row["kept"] is True and row["iteration"] == 0 and row["answers"] == []
    assert row["confidence"]["round_trip_rank"] == 2 and row["confidence"]["docid_log_prob"] is None


def test_defaults_are_not_shared_between_samples():
    new_sample()["docids"].append("x")
    assert new_sample()["docids"] == []


def test_unknown_fields_and_signals_are_refused_by_name():
    with pytest.raises(ValueError, match="anser"):
        new_sample(anser="x")
    with pytest.raises(ValueError, match="luck"):
        new_sample(confidence={"luck": 1.0})
