import pytest
from datasets import Dataset, DatasetDict, load_dataset

from dataset_builders.features import SAMPLE_FEATURES, new_sample
from dataset_builders.writing import collection_fingerprint, load_collection, write_config


def samples(*ids):
    return Dataset.from_list([new_sample(id=i, docids=["A"], rows=[0]) for i in ids], features=SAMPLE_FEATURES)


def test_configs_load_by_name_with_the_features_and_rows_written(tmp_path):
    write_config(DatasetDict(train=samples("1", "2"), test=samples("3")), tmp_path, "basic")
    write_config(DatasetDict(train=samples("4")), tmp_path, "auxiliary")
    basic = load_dataset(str(tmp_path), "basic")
    assert {split: rows["id"][:] for split, rows in basic.items()} == {"train": ["1", "2"], "test": ["3"]}
    assert basic["train"].features == SAMPLE_FEATURES
    assert basic["train"][0] == samples("1")[0]
    assert load_dataset(str(tmp_path), "auxiliary")["train"]["id"][:] == ["4"]
    streamed = load_dataset(str(tmp_path), "basic", split="test", streaming=True)
    assert [row["id"] for row in streamed] == ["3"]
    assert sorted(path.name for path in (tmp_path / "basic").iterdir()) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]


def test_writing_a_config_again_replaces_it_and_keeps_the_cards_text_and_other_fields(tmp_path):
    write_config(DatasetDict(train=samples("1"), test=samples("2")), tmp_path, "basic")
    card = tmp_path / "README.md"
    card.write_text(card.read_text().replace("---\nconfigs", "---\nlicense: cc-by-sa-4.0\nconfigs") + "\n# My data\n")
    write_config(DatasetDict(train=samples("9")), tmp_path, "basic")
    write_config(DatasetDict(train=samples("4")), tmp_path, "auxiliary")
    text = card.read_text()
    assert "license: cc-by-sa-4.0" in text and "# My data" in text
    assert text.count("config_name: basic") == 1
    basic = load_dataset(str(tmp_path), "basic")
    assert list(basic) == ["train"] and basic["train"]["id"][:] == ["9"]


def test_the_collection_comes_back_and_its_fingerprint_is_that_of_its_content(collection_folder, tmp_path):
    collection = load_collection(collection_folder)
    assert collection[3]["title"] == "Cat" and len(collection) == 5
    copy = Dataset.from_list(collection.to_list(), features=collection.features)
    assert collection_fingerprint(copy) == collection_fingerprint(collection)
    assert collection_fingerprint(collection.select([1, 0, 2, 3, 4])) != collection_fingerprint(collection)


def test_a_missing_collection_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*build_collection"):
        load_collection(tmp_path / "nowhere")
