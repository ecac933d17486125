"""The benchmarks of the dataset builders run as a user runs them, on little data and tiny models."""

import json

import pytest

from dataset_builders.collection import CollectionBuilder
from dataset_builders.writing import build, write_collection
from tests.dataset_builders.chat_server import running_chat_server
from tests.examples.conftest import run_benchmark
from tests.tiny import tiny_byte_level_tokenizer, tiny_llama


@pytest.fixture
def tiny_folder(tmp_path):
    tokenizer = tiny_byte_level_tokenizer()
    tiny_llama(tokenizer).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return str(tmp_path / "llama")


@pytest.fixture
def collection(inputs, tmp_path):
    builder = CollectionBuilder(cache_dir=str(tmp_path / "cache"), data_files=str(inputs / "documents.jsonl"))
    write_collection(build(builder)["train"], tmp_path / "mint-collection")
    return str(tmp_path / "mint-collection")


def test_kilt_reading_benchmark(environment, tmp_path):
    printed, report = run_benchmark("kilt_reading", environment, tmp_path, "--megabytes", "2", "--small", "1")
    assert [(round(one["megabytes"]), one["system"]) for one in report["results"]] == [
        (size, system) for size in (1, 2) for system in ("CollectionBuilder", "load_dataset and map")
    ]
    for one in report["results"]:
        assert one["rows"] > 100 and one["build_mb_per_second_and_core"] > 0 and one["build_peak_bytes"] > 1e6
    assert report["results"][0]["rows"] == report["results"][1]["rows"]
    assert "build MB/s/core" in printed


def test_pseudo_generation_benchmark(environment, tmp_path, tiny_folder, collection):
    options = ["--llm", tiny_folder, "--collection", collection, "--num_documents", "4", "--loop_documents", "2"]
    options += ["--repeats", "1", "--batch_size", "2", "--pipeline_batch_sizes", "2", "--dtype", "float32"]
    printed, report = run_benchmark("pseudo_generation", environment, tmp_path, *options)
    assert report["asked"] == {"LocalLLM": 4, "generate, one by one": 2, "pipeline, batches of 2": 4}
    assert report["same_text"]["LocalLLM"] == 4
    assert all(speed["median"] > 0 for speed in report["samples_per_second"].values())
    assert "at least 5 times the loop" in printed


@pytest.mark.slow
def test_auxiliary_quality_benchmark(environment, inputs, tmp_path, tiny_folder, collection):
    with running_chat_server() as server:
        # Every second question can be found again.
        replies = iter(range(10_000))
        server.reply_to = lambda prompt: (
            f"Which was the founder of {passage_title(prompt)}?\nAnswer: Eiffel"
            if next(replies) % 2
            else f"Which dog is that, barking {prompt.count('a')} times?\nAnswer: Rex"
        )
        options = ["--collection", collection, "--llm", server.url, "--journal", str(tmp_path / "journal")]
        options += ["--labelled", str(questions_without_split(inputs, tmp_path)), "--backbone", tiny_folder]
        options += ["--work", str(tmp_path / "work"), "--num_samples", "4", "--seeds", "0", "--batch_size", "4"]
        printed, report = run_benchmark("auxiliary_quality", environment, tmp_path, *options)
    assert 4 <= report["available"]["filtered"] < report["available"]["unfiltered"]
    for row in report["recall@1"].values():
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]
        assert row["difference"] == pytest.approx(row["filtered"][0] - row["unfiltered"][0])
    assert report["recall@1"]["all"]["queries"] == 12
    assert not list((tmp_path / "work").glob("model-*"))
    assert "filtered, recall@1" in printed


def passage_title(prompt):
    return prompt.split("<passage>\n")[1].split(" stands")[0]


def questions_without_split(inputs, tmp_path):
    path = tmp_path / "judged.jsonl"
    records = [json.loads(line) for line in (inputs / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({key: value for key, value in record.items() if key != "meta"}) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
