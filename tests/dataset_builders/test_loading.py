"""What the builders write loads anywhere: with plain `datasets`, in a process that knows nothing of this project."""

import inspect
import json
import os
import subprocess
import sys
from hashlib import sha256

import pytest
from datasets import Dataset

from dataset_builders.auxiliary import AuxiliaryBuilder
from dataset_builders.basic import BasicBuilder
from dataset_builders.co_training import CoTrainingBuilder
from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, SECTION_COLLECTION_FEATURES, new_sample
from dataset_builders.writing import build, write_collection, write_config
from tests.dataset_builders.chat_server import running_chat_server

NUM_DOCUMENTS = 250
PSEUDO_SPLITS = [("basic", split) for split in ("train", "validation", "test")]
PSEUDO_SPLITS += [("auxiliary", "train"), ("co_training", "train")]
SPLITS = [("mint-collection", "default", "train"), ("mint-sections", "default", "train")]
SPLITS += [("mint-pseudo", config, split) for config, split in PSEUDO_SPLITS]


def facts_of(dataset):
    """Features, number of rows and a hash of everything in them, of a dataset or of a stream."""
    rows = [json.dumps(row) for row in dataset]
    digest = sha256("\n".join(rows).encode()).hexdigest()
    return {"features": dataset.features.to_dict(), "rows": len(rows), "content": digest}


LOAD = f"""
import json, sys
from hashlib import sha256
# Not even where the project is installed: an entry of None makes the import fail.
sys.modules.update(dict.fromkeys(["dataset_builders", "modeling_mint", "trainers"]))
try:
    import dataset_builders
    sys.exit("the project's packages can be imported here")
except ImportError:
    pass
from datasets import concatenate_datasets, interleave_datasets, load_dataset

{inspect.getsource(facts_of)}

loaded, mixed = {{}}, {{}}
for streaming in (False, True):
    samples = []
    for folder, config, split in {SPLITS}:
        dataset = load_dataset(f"{{sys.argv[1]}}/{{folder}}", config, split=split, streaming=streaming)
        loaded[f"{{folder}} {{config}} {{split}} {{streaming}}"] = facts_of(dataset)
        if folder == "mint-pseudo":
            samples.append(dataset)
    everything = interleave_datasets(samples, stopping_strategy="all_exhausted_without_replacement")
    mixed[f"concatenated {{streaming}}"] = facts_of(concatenate_datasets(samples))
    mixed[f"interleaved {{streaming}}"] = facts_of(everything)
print(json.dumps([loaded, mixed]))
"""


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def question(number):
    return {
        "id": f"q{number}",
        "input": f"what is number {number}?",
        "output": [{"answer": f"it is {number}", "provenance": [{"title": f"Document {number}"}]}],
        "meta": {"split": ("train", "train", "validation", "test")[number % 4]},
    }


def written_sample(iteration, source, number):
    return new_sample(
        id=f"{source}-{iteration}-{number}",
        query=f"what is document {number}, “here”?",
        answers=["it is\t7"],
        docids=["Document 1", "Document 2"],
        rows=[1, 2],
        provenance=[["Document 1"]],
        passage="It is 7.",
        source=source,
        model=f"mint-{source}",
        iteration=iteration,
        confidence={"docid_log_prob": -0.1 * number, "answer_log_prob": None, "round_trip_rank": 1, "score": 0.7},
        kept=number % 2 == 0,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder for the data that all tests here load, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("loading")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets-cache")
        yield folder


@pytest.fixture(scope="module")
def built(root):
    """What every builder built, by folder, config and split, in memory; `root` has it as files."""
    cache = str(root / "builders")
    documents = [
        {
            "title": f"Document {number}",
            "text": f"This is document {number}.\n\nIt is {number}, as “everybody” knows.",
            "related": [f"Document {number - 1}"] * (number > 0),
            "topic": ["Arts", number],
            "sections": [{"title": "History", "text": f"In {number} it began."}],
        }
        for number in range(NUM_DOCUMENTS)
    ]
    raw = write_lines(root / "documents.jsonl", documents)
    collection = build(CollectionBuilder(cache_dir=cache, data_files=raw))["train"]
    sections = build(CollectionBuilder(cache_dir=cache, data_files=raw, docid_granularity="section"))["train"]
    # Files of some rows each: a collection of some size comes in several shards.
    write_collection(collection, root / "mint-collection", max_shard_size=1)
    write_collection(sections, root / "mint-sections")

    questions = write_lines(root / "questions.jsonl", map(question, range(20)))
    folder = str(root / "mint-collection")
    pseudo = {"basic": build(BasicBuilder(cache_dir=cache, data_files=questions, collection=folder))}
    with running_chat_server() as server:
        server.reply_to = lambda prompt: "what is it?\nAnswer: it"
        pseudo["auxiliary"] = build(
            AuxiliaryBuilder(
                cache_dir=cache,
                collection=folder,
                llm=server.url,
                journal=str(root / "journal"),
                num_documents=12,
                filter=False,
            )
        )
    iterations = [
        write_lines(root / f"{source}-{iteration}.jsonl", [written_sample(iteration, source, n) for n in range(5)])
        for iteration in (1, 2)
        for source in ("rag", "gar")
    ]
    pseudo["co_training"] = build(CoTrainingBuilder(cache_dir=cache, data_files=iterations))
    for config, splits in pseudo.items():
        write_config(splits, root / "mint-pseudo", config)

    in_memory = {("mint-collection", "default", "train"): collection, ("mint-sections", "default", "train"): sections}
    for config, split in PSEUDO_SPLITS:
        in_memory["mint-pseudo", config, split] = pseudo[config][split]
    return in_memory


@pytest.fixture(scope="module")
def elsewhere(root, built):
    """What a fresh process found in the files: facts of each split, and of all samples together."""
    home = root / "elsewhere"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    # Nobody listens there: who asks the Hub for what is in a folder fails.
    environment |= {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(root)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("streaming", [False, True], ids=["loaded", "streamed"])
@pytest.mark.parametrize("place", SPLITS, ids="/".join)
def test_every_builders_output_loads_where_the_project_is_not(place, streaming, built, elsewhere):
    assert elsewhere[0][f"{' '.join(place)} {streaming}"] == facts_of(built[place])


def test_the_splits_have_the_schema_and_all_their_rows(built, root):
    sizes = {place: len(rows) for place, rows in built.items()}
    assert list(sizes.values()) == [NUM_DOCUMENTS, 2 * NUM_DOCUMENTS, 10, 5, 5, 12, 20]
    assert (
        built[SPLITS[0]].features == COLLECTION_FEATURES and built[SPLITS[1]].features == SECTION_COLLECTION_FEATURES
    )
    assert all(built[place].features == SAMPLE_FEATURES for place in SPLITS[2:])
    assert len(list((root / "mint-collection" / "data").glob("train-*.parquet"))) == 3


@pytest.mark.parametrize("streaming", [False, True], ids=["loaded", "streamed"])
def test_samples_of_all_builders_and_splits_concatenate_and_interleave_as_they_are(streaming, built, elsewhere):
    samples = [row for place in SPLITS[2:] for row in built[place]]
    expected = facts_of(Dataset.from_list(samples, features=SAMPLE_FEATURES))
    assert elsewhere[1][f"concatenated {streaming}"] == expected
    interleaved = elsewhere[1][f"interleaved {streaming}"]
    assert interleaved["rows"] == len(samples) and interleaved["features"] == expected["features"]


def test_interleaved_samples_are_the_same_loaded_and_streamed(elsewhere):
    assert elsewhere[1]["interleaved False"] == elsewhere[1]["interleaved True"]


def test_every_sample_says_what_it_is(built):
    for _, config, split in SPLITS[2:]:
        samples = built["mint-pseudo", config, split]
        assert set(samples["split"]) == {split}
        assert set(samples["source"]) <= {"basic": {"labelled"}, "auxiliary": {"llm"}}.get(config, {"rag", "gar"})
        assert all(isinstance(json.loads(metadata), dict) for metadata in samples["metadata"])
        # A model wrote its query from a part of the source document.
        assert all(map(bool, samples["passage"])) == (config != "basic")
        assert len(set(samples["id"])) == len(samples)
