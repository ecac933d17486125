import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, load_dataset

from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, new_sample
from dataset_builders.writing import collection_fingerprint, load_collection, write_collection, write_config


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


def documents(count):
    rows = [{"title": f"Title {i}", "text": f"{i} " * 50, "related": [f"{i}"], "metadata": "{}"} for i in range(count)]
    return Dataset.from_list(rows, features=COLLECTION_FEATURES)


def test_a_collection_in_several_shards_comes_back_equal_and_in_order_streaming_too(tmp_path):
    collection = documents(1050)
    write_collection(collection, tmp_path, max_shard_size="50KB")
    shards = sorted((tmp_path / "data").iterdir())
    assert len(shards) > 3
    assert [path.name for path in shards] == [
        f"train-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))
    ]
    assert all(pq.read_table(path).nbytes <= 50_000 for path in shards)
    back = load_collection(tmp_path)
    assert back.features == COLLECTION_FEATURES and back.to_list() == collection.to_list()
    assert collection_fingerprint(back) == collection_fingerprint(collection)
    assert list(load_dataset(str(tmp_path), split="train", streaming=True)) == collection.to_list()


def test_rows_in_another_order_are_sharded_in_that_order(tmp_path):
    collection = documents(300).select(range(299, -1, -1))
    write_collection(collection, tmp_path, max_shard_size="10KB")
    assert len(list((tmp_path / "data").iterdir())) == 3
    assert load_collection(tmp_path).to_list() == collection.to_list()


def test_fewer_shards_leave_none_of_the_former_ones(tmp_path):
    write_collection(documents(300), tmp_path, max_shard_size=1)
    before = load_collection(tmp_path)
    write_collection(documents(150), tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert len(before) == 300 and load_collection(tmp_path)["title"][:] == before["title"][:150]


def test_a_split_without_rows_is_a_file_without_rows(tmp_path):
    write_config(DatasetDict(train=samples("1"), test=samples("1").select([])), tmp_path, "basic")
    table = pq.read_table(tmp_path / "basic" / "test-00000-of-00001.parquet")
    assert table.num_rows == 0 and table.column_names == list(SAMPLE_FEATURES)


def test_writing_that_fails_leaves_what_stood_there_and_nothing_else(tmp_path):
    write_config(DatasetDict(test=samples("1"), train=samples("2")), tmp_path, "basic")
    content = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # Parquet has no records without fields.
    unwritable = Dataset(pa.table({"record": pa.array([{}], pa.struct([]))}))
    with pytest.raises(pa.ArrowException):
        write_config(DatasetDict(test=samples("3"), train=unwritable), tmp_path, "basic")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == content
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "basic"}


def test_the_collection_comes_back_and_its_fingerprint_is_that_of_its_content(collection_folder, tmp_path):
    collection = load_collection(collection_folder)
    assert collection[3]["title"] == "Cat" and len(collection) == 5
    copy = Dataset.from_list(collection.to_list(), features=collection.features)
    assert collection_fingerprint(copy) == collection_fingerprint(collection)
    assert collection_fingerprint(collection.select([1, 0, 2, 3, 4])) != collection_fingerprint(collection)


def test_a_missing_collection_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*build_collection"):
        load_collection(tmp_path / "nowhere")
