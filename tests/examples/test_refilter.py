import json

import pytest
from datasets import Dataset, DatasetDict, load_dataset

from dataset_builders.features import SAMPLE_FEATURES, new_sample
from dataset_builders.writing import write_config
from trainers.confidence import ConfidenceArguments, filter_samples


def written_sample(role, number, agreement):
    """Odd samples find another document than the one they were written from, and do not name it."""
    return new_sample(
        id=f"{role}-1-{number}",
        query="who stands here?" if number % 2 else f"who built Tower {number}?",
        answers=["Gustave Eiffel"],
        docids=["Paris" if number % 2 else f"Tower {number} (Texas)"],
        rows=[0 if number % 2 else number],
        provenance=[[f"Tower {number} (Texas)"]],
        source=role,
        iteration=1,
        confidence={"docid_agreement": agreement, "round_trip_rank": 0 if number % 2 else 1},
    )


@pytest.fixture
def pseudo(tmp_path):
    """A dataset folder with what two models wrote: the better half, by agreement, was kept."""
    arguments = ConfidenceArguments(weight_round_trip=0, max_round_trip_rank=0)
    samples = [
        sample
        for role, best in (("rag", 1.0), ("gar", 0.5))
        for sample in filter_samples([written_sample(role, n, best - n / 10) for n in range(4)], arguments)
    ]
    write_config(
        DatasetDict(train=Dataset.from_list(samples, features=SAMPLE_FEATURES)), tmp_path / "p", "co_training"
    )
    return tmp_path / "p"


def test_another_filter_is_written_beside_the_first_and_compared_with_it(pseudo, tmp_path, capsys):
    from refilter import main

    figures, output = tmp_path / "figures.json", tmp_path / "again"
    options = [
        "--keep",
        "threshold",
        "--keep_threshold",
        "0.65",
        "--weight_round_trip",
        "0",
        "--max_round_trip_rank",
        "0",
    ]
    main(["--samples", str(pseudo), "--output_dir", str(output), "--json", str(figures), *options])
    before = load_dataset(str(pseudo), "co_training", split="train")
    now = load_dataset(str(output), "co_training", split="train")
    assert now.features == SAMPLE_FEATURES and now["id"][:] == before["id"][:]
    assert before["kept"][:] == [True, True, False, False] * 2
    assert now["kept"][:] == [True] * 4 + [False] * 4
    gar, rag = json.loads(figures.read_text())
    assert rag == {
        "iteration": 1,
        "role": "rag",
        "written": 4,
        "kept_before": 2,
        "precision_before": 0.5,
        "title_in_query_before": 0.5,
        "kept_now": 4,
        "precision_now": 0.5,
        "title_in_query_now": 0.5,
    }
    assert (gar["kept_before"], gar["kept_now"], gar["precision_now"], gar["title_in_query_now"]) == (2, 0, None, None)
    assert "| 1 | gar | 4 | 2 | 0.500 | 0.500 | 0 | - | - |" in capsys.readouterr().out


def test_what_cannot_be_filtered_is_named(pseudo, tmp_path):
    from refilter import load_samples

    with pytest.raises(FileNotFoundError, match="no file or folder '/nosuch/folder'"):
        load_samples("/nosuch/folder")
    samples = load_dataset(str(pseudo), "co_training")
    write_config(samples, tmp_path / "basic-only", "basic")
    with pytest.raises(ValueError, match=r"basic-only has no config 'co_training', only basic: run .*co_train\.py"):
        load_samples(str(tmp_path / "basic-only"))


def test_what_was_calibrated_with_the_models_cannot_be_calibrated_again(pseudo, tmp_path):
    from refilter import main

    with pytest.raises(ValueError, match="Use `keep` 'threshold'"):
        main(["--samples", str(pseudo), "--output_dir", str(tmp_path / "again"), "--keep", "calibrated"])
    assert not (tmp_path / "again").exists()
