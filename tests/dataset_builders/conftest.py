import json

import pytest
from datasets import Dataset

from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import COLLECTION_FEATURES
from dataset_builders.writing import build, write_collection
from tests.dataset_builders.chat_server import running_chat_server

DOCUMENTS = [
    ("Eiffel Tower", "The Eiffel Tower is an iron tower in Paris. It was designed by Gustave Eiffel in 1889."),
    ("Paris", "Paris is the capital of France. The Eiffel Tower stands in Paris."),
    ("Gustave Eiffel", "Gustave Eiffel was a French engineer. His company built the tower in Paris."),
    ("Cat", "The cat is a small animal that hunts mice."),
    ("Mouse", "The mouse is a small animal that the cat hunts."),
]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    """`load_dataset` keeps Arrow copies; these tests must not leave any behind."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def documents():
    """Title and text by row of the collection in `collection_folder`."""
    return DOCUMENTS


@pytest.fixture
def cache_dir(tmp_path):
    return str(tmp_path / "builders")


@pytest.fixture
def collection_folder(tmp_path):
    folder = tmp_path / "mint-collection"
    records = [{"title": title, "text": text, "related": [], "metadata": "{}"} for title, text in DOCUMENTS]
    write_collection(Dataset.from_list(records, features=COLLECTION_FEATURES), folder)
    return str(folder)


@pytest.fixture
def build_sections(write_lines, cache_dir):
    """Builds raw documents into a collection of sections."""

    def make(*documents):
        path = write_lines("pages.jsonl", *documents)
        return build(CollectionBuilder(cache_dir=cache_dir, data_files=path, docid_granularity="section"))["train"]

    return make


@pytest.fixture
def write_lines(tmp_path):
    """Writes records (or raw lines) as a JSONL file and returns its path."""

    def write(name, *records):
        path = tmp_path / name
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def chat_server():
    with running_chat_server() as server:
        yield server
