"""The Hub of the tests against `transformers`, `datasets`, `evaluate` and `peft`: pushed here, loaded elsewhere.

Nothing but the Hub connects the two sides: each script has a process and caches of its own, and none can import the
project's packages.
"""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict

from dataset_builders.features import SAMPLE_FEATURES, new_sample
from dataset_builders.writing import write_config
from tests.hub_server import API, HubServer, run_fresh
from tests.tiny import TITLES

pytestmark = pytest.mark.slow

METRIC = Path(__file__).parents[1] / "trainers" / "metrics" / "kilt_retrieval"
UPLOAD = f"""{API}
repo_id, kind, folder = sys.argv[1:]
api.create_repo(repo_id, repo_type=kind, space_sdk="gradio" if kind == "space" else None, exist_ok=True)
api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=folder)
"""
LOGITS = """
def logits(model, tokenizer):
    return model(**tokenizer(["Paris is"], return_tensors="pt")).logits[0, -1].tolist()

from transformers import AutoModelForCausalLM, AutoTokenizer
"""


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server
        assert server.strays == []


@pytest.fixture
def fresh(hub, tmp_path):
    return partial(run_fresh, hub, tmp_path)


def test_transformers_pushes_and_loads_a_private_model(hub, fresh, backbones):
    push = """
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model.push_to_hub("org/m", private=True, commit_message="Model", revision="v2")
tokenizer.push_to_hub("org/m", commit_message="Tokenizer", revision="v2")
print(json.dumps(logits(model, tokenizer)))
"""
    load = """
model = AutoModelForCausalLM.from_pretrained("org/m", revision="v2")
print(json.dumps(logits(model, AutoTokenizer.from_pretrained("org/m", revision="v2"))))
"""
    before = fresh(LOGITS + push, backbones["llama", "rag"])
    assert hub.repo("org/m").private and hub.paths("org/m") == set()
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= hub.paths("org/m", revision="v2")
    assert fresh(LOGITS + load, token=hub.read_token) == before
    with pytest.raises(AssertionError, match="org/m is not a local folder and is not a valid model identifier"):
        fresh(LOGITS + load, token=None)


def test_transformers_opens_a_pull_request(hub, fresh, backbones):
    push = "AutoTokenizer.from_pretrained(sys.argv[1]).push_to_hub('org/m', create_pr=True)"
    fresh(LOGITS + push, backbones["llama", "rag"])
    assert hub.paths("org/m") == set()
    assert "tokenizer.json" in hub.paths("org/m", revision="refs/pr/1")


def test_peft_pushes_and_loads_an_adapter_on_its_base(hub, fresh, backbones):
    fresh(UPLOAD, "org/base", "model", backbones["llama", "rag"])
    push = """
import torch
from peft import LoraConfig, get_peft_model
tokenizer = AutoTokenizer.from_pretrained("org/base")
model = get_peft_model(AutoModelForCausalLM.from_pretrained("org/base"), LoraConfig(r=2, init_lora_weights=False))
model.push_to_hub("org/adapter")
print(json.dumps(logits(model, tokenizer)))
"""
    load = """
from peft import AutoPeftModelForCausalLM, PeftModel
tokenizer = AutoTokenizer.from_pretrained("org/base")
ways = [
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("org/base"), "org/adapter"),
    AutoPeftModelForCausalLM.from_pretrained("org/adapter"),
    AutoModelForCausalLM.from_pretrained("org/adapter"),
]
print(json.dumps([logits(model, tokenizer) for model in ways]))
"""
    before = fresh(LOGITS + push)
    assert hub.paths("org/adapter") == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    for after in fresh(LOGITS + load):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_loads_each_config_of_a_written_folder(hub, fresh, tmp_path, streaming):
    samples = [
        new_sample(
            id=str(number), query=f"Which one is {number}?", answers=["this", "that"], docids=[title], rows=[number]
        )
        for number, title in enumerate(TITLES)
    ]
    samples[3]["confidence"]["score"] = 0.5
    dataset = Dataset.from_list(samples, features=SAMPLE_FEATURES)
    write_config(DatasetDict(train=dataset, test=dataset.select([5])), tmp_path / "pseudo", "basic")
    write_config(DatasetDict(train=dataset.select(range(10))), tmp_path / "pseudo", "auxiliary")
    fresh(UPLOAD, "org/mint-pseudo", "dataset", tmp_path / "pseudo")
    code = """
from datasets import load_dataset
configs = {}
for config in ("basic", "auxiliary"):
    splits = load_dataset("org/mint-pseudo", config, streaming=sys.argv[1] == "True")
    configs[config] = {name: [split.features.to_dict(), list(split)] for name, split in splits.items()}
print(json.dumps(configs))
"""
    features = json.loads(json.dumps(SAMPLE_FEATURES.to_dict()))
    assert fresh(code, streaming, token=None) == {
        "basic": {"train": [features, samples], "test": [features, samples[5:6]]},
        "auxiliary": {"train": [features, samples[:10]]},
    }


def test_datasets_pushes_a_config(hub, fresh):
    push = """
from datasets import Dataset
Dataset.from_dict({"a": [1, 2]}).push_to_hub("org/d", "one", split="train")
Dataset.from_dict({"a": [3]}).push_to_hub("org/d", "two", split="test", private=True)
"""
    fresh(push)
    assert hub.paths("org/d", "dataset") == {
        "README.md",
        "one/train-00000-of-00001.parquet",
        "two/test-00000-of-00001.parquet",
    }
    load = """
from datasets import get_dataset_config_names, load_dataset
print(json.dumps([get_dataset_config_names("org/d"), load_dataset("org/d", "two")["test"].to_list()]))
"""
    assert fresh(load, token=None) == [["one", "two"], [{"a": 3}]]


def test_evaluate_loads_a_metric_from_its_space(hub, fresh):
    fresh(UPLOAD, "org/kilt_retrieval", "space", METRIC)
    code = """
import evaluate
metric = evaluate.load("org/kilt_retrieval")
print(json.dumps(metric.compute(predictions=[["A", "B"]], references=[[["A"]]], ks=[5])))
"""
    assert fresh(code, token=None)["r_precision"] == 1
    script = [(request.method, request.path, request.status) for request in hub.requests if "resolve" in request.path]
    assert script == [
        ("HEAD", "/spaces/org/kilt_retrieval/resolve/v0.4.6/kilt_retrieval.py", 404),
        ("HEAD", "/spaces/org/kilt_retrieval/resolve/main/kilt_retrieval.py", 200),
        ("GET", "/spaces/org/kilt_retrieval/resolve/main/kilt_retrieval.py", 200),
    ]


def test_mint_answers_from_the_hub_as_it_does_from_its_folder(hub, fresh, run_folders):
    run = run_folders["llama"]
    fresh(UPLOAD, "org/mint-rag", "model", run / "mint-rag")
    fresh(UPLOAD, "org/mint-collection", "dataset", run / "mint-collection")
    settings = json.loads(hub.read("org/mint-rag", "processor_config.json"))
    settings["collection"] = "org/mint-collection"
    hub.put_file("org/mint-rag", "processor_config.json", json.dumps(settings).encode())
    code = """
from transformers import AutoModel, AutoProcessor
name = sys.argv[1]
model = AutoModel.from_pretrained(name, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
found = model.retrieve(["Who designed the Eiffel Tower?"], processor, k=5)
print(json.dumps([found.docids, found.scores, processor.collection[0]["text"]]))
"""
    assert fresh(code, "org/mint-rag") == fresh(code, run / "mint-rag")
