"""What was pushed comes back the same, in processes with empty caches that cannot import the project's packages."""

import json
import re
from functools import partial

import pytest

from modeling_mint import TitleTrie
from tests.hub_cards.conftest import ROOT
from tests.hub_cards.pages import served
from tests.hub_server import HubServer, run_fresh
from tests.tiny import TITLES

pytestmark = pytest.mark.slow

MODEL = """
from transformers import AutoModel, AutoProcessor, pipeline
rag, gar = sys.argv[1:]
facts = {}
for name in (rag, gar):
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    facts[model.config.role] = [
        model(**processor("Question: why?")).logits[0, -1].tolist(),
        list(model.retrieve(["Who designed the Eiffel Tower?"], processor, k=5).docids),
    ]
ask = pipeline("mint", model=rag, gar_model=gar, trust_remote_code=True)
for strategy in ("rag", "gar", "ensemble", "cascade"):
    facts[strategy + " answers"] = ask("Who designed the Eiffel Tower?", strategy=strategy)
print(json.dumps(facts))
"""
DATA = """
from datasets import get_dataset_config_names, load_dataset
names = get_dataset_config_names("my-org/mint-pseudo")
rows = {name: list(load_dataset("my-org/mint-pseudo", name, split="train", streaming=sys.argv[1] == "True"))
        for name in names}
collection = load_dataset("my-org/mint-collection", split="train", streaming=sys.argv[1] == "True")
print(json.dumps([rows, [document["title"] for document in collection]]))
"""
PROCESSOR = """
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps(processor.collection["title"][:]))
"""
PUSH_OBJECTS = """
sys.path.insert(0, sys.argv[3])
del sys.modules["modeling_mint"]  # who trains a model has the package
from modeling_mint import MintForConditionalGeneration, MintProcessor
model = MintForConditionalGeneration.from_pretrained(sys.argv[1])
processor = MintProcessor.from_pretrained(sys.argv[1])
options = json.loads(sys.argv[2])
processor.push_to_hub("my-org/mint-rag", **options)
model.push_to_hub("my-org/mint-rag", **options)
processor.collection.push_to_hub("my-org/mint-collection")
"""


@pytest.fixture
def fresh(hub, tmp_path):
    return partial(run_fresh, hub, tmp_path)


@pytest.fixture
def pushed(real_run_folder, hub, push):
    """A run with models that answer, on the Hub."""
    process = push(real_run_folder)
    assert process.returncode == 0, process.stderr
    return real_run_folder


def test_models_give_the_same_logits_rankings_and_answers_as_before(pushed, fresh):
    before = fresh(MODEL, pushed / "mint-rag", pushed / "mint-gar")
    assert fresh(MODEL, "my-org/mint-rag", "my-org/mint-gar", token=None) == before


def test_every_config_of_the_data_is_loaded_by_name(pushed, fresh):
    rows, titles = fresh(DATA, False, token=None)
    assert fresh(DATA, True, token=None) == [rows, titles]
    assert set(rows) == {"basic", "auxiliary", "co_training"}
    assert rows["auxiliary"] == [{"query": "What?", "answers": ["That."], "docids": ["Paris"]}]
    assert "Eiffel Tower" in titles


def test_private_run_is_for_members_only(real_run_folder, hub, push, fresh):
    process = push(real_run_folder, "--private", "true")
    assert process.returncode == 0, process.stderr
    assert all(repo.private for repo in hub.store.repos.values())
    assert all(collection["private"] for collection in hub.store.collections.values())
    assert "Eiffel Tower" in fresh(PROCESSOR, "my-org/mint-rag", token=HubServer.read_token)
    with pytest.raises(AssertionError, match="OSError"):
        fresh(PROCESSOR, "my-org/mint-rag", token=None)


def test_code_block_of_the_docid_search_runs_as_it_stands(pushed, hub, fresh):
    card = hub.read("my-org/mint-docid-search", "README.md").decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    fresh(code + "\nprint(json.dumps(len(found)))", token=None)


def test_code_blocks_of_the_cards_on_the_hub_run_as_they_stand(pushed, hub, fresh):
    for repo_id, kind in (
        ("mint-gar", "model"),
        ("mint-pseudo", "dataset"),
        ("mint-collection", "dataset"),
        ("kilt_retrieval", "space"),
        ("kilt_downstream", "space"),
    ):
        card = hub.read(f"my-org/{repo_id}", "README.md", kind).decode()
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        fresh(code + "\nprint('null')", token=None)


def test_demo_space_answers_as_it_was_pushed(pushed, hub, fresh, tmp_path):
    download = "from huggingface_hub import snapshot_download\n"
    download += "print(json.dumps(snapshot_download('my-org/mint-demo', repo_type='space', local_dir=sys.argv[1])))"
    fresh(download, tmp_path / "space", token=None)
    with served(tmp_path / "space", hub.environment(tmp_path / "hf-space", token=None)) as client:
        assert "/ask" in client.view_api(return_format="dict")["named_endpoints"]


@pytest.mark.parametrize("options", [{}, {"private": True, "commit_message": "Mine"}])
def test_model_and_processor_push_all_that_loading_needs(real_run_folder, hub, fresh, options):
    """The collection is named relative to the model, in a run's folder and on the Hub alike."""
    fresh(PUSH_OBJECTS, real_run_folder / "mint-rag", json.dumps(options), ROOT)
    code = {path.name for path in (ROOT / "modeling_mint").glob("*.py")} - {"__init__.py"}
    assert hub.paths("my-org/mint-rag") >= code | {
        "README.md",
        "config.json",
        "model.safetensors",
        "title_trie.safetensors",
        "tokenizer.json",
    }
    assert hub.repo("my-org/mint-rag").private == options.get("private", False)
    assert fresh(PROCESSOR, "my-org/mint-rag") == fresh(PROCESSOR, real_run_folder / "mint-rag")


def test_tampered_trie_is_refused(pushed, hub, fresh):
    trie = bytearray(hub.read("my-org/mint-rag", "title_trie.safetensors"))
    trie[-1] ^= 1
    hub.put_file("my-org/mint-rag", "title_trie.safetensors", bytes(trie))
    with pytest.raises(AssertionError, match="ValueError: .* is not the title trie that was saved"):
        fresh(PROCESSOR, "my-org/mint-rag")


def test_sound_trie_of_another_model_is_refused(pushed, hub, fresh, processors):
    """Of the same tokenizer even, and of as many rows: only the hash tells."""
    trie = TitleTrie.from_titles(reversed(TITLES), processors["llama"].tokenizer)
    trie.save_pretrained(pushed / "other")
    hub.put_file("my-org/mint-rag", "title_trie.safetensors", (pushed / "other/title_trie.safetensors").read_bytes())
    with pytest.raises(AssertionError, match="ValueError: .* is not the title trie that was saved"):
        fresh(PROCESSOR, "my-org/mint-rag")


def test_config_of_another_form_is_refused(pushed, hub, fresh):
    config = json.loads(hub.read("my-org/mint-rag", "config.json"))
    load = "from transformers import AutoModel\nAutoModel.from_pretrained('my-org/mint-rag', trust_remote_code=True)"
    for content in (
        json.dumps(config | {"role": "reader"}),
        json.dumps(config | {"backbone_config": config["backbone_config"] | {"vocab_size": 7}}),
        json.dumps(config)[:-100],
    ):
        hub.put_file("my-org/mint-rag", "config.json", content.encode())
        with pytest.raises(AssertionError, match="Error: "):
            fresh(load)
