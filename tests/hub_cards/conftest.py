"""A small finished run, as a folder on disk."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from modeling_mint import MintForConditionalGeneration, MintProcessor
from tests.hub_server import HubServer
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_llama

ROOT = Path(__file__).parents[2]

CONFIGS = """---
configs:
{entries}
---
"""


def evaluation_row(stage, system, subset="all", em=0.25):
    """One row of an evaluation table; BM25 writes no answers."""
    retrieval = {"r_precision": 0.5, "recall@5": 0.75}
    answers = dict.fromkeys(("em", "f1", "kilt_em", "kilt_f1"), None if system == "bm25" else em)
    return {"stage": stage, "system": system, "subset": subset, **retrieval, **answers}


@pytest.fixture
def hub():
    """A Hub with the organization `my-org`; nothing else was asked for when the test is over."""
    with HubServer(organizations=("my-org",)) as server:
        yield server
        assert server.strays == []


@pytest.fixture
def push(hub, tmp_path):
    """Runs `python -m hub_cards.push` in a process of its own: the client reads its endpoint and token at import."""

    def run_push(run_folder, *options, token=HubServer.token):
        environment = hub.environment(tmp_path / "hf-push", token) | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "hub_cards.push", "--org", "my-org", "--run", str(run_folder), *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return run_push


@pytest.fixture
def run():
    """Report of a run with every fact that the cards state."""
    return {
        "backbone": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct", "license": "apache-2.0", "revision": "12fd25f"},
        "llm": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct", "license": "apache-2.0"},
        "collection": {
            "name": "Wikipedia vital articles",
            "license": "cc-by-sa-4.0",
            "attribution": "Text by the contributors of Wikipedia.",
            "num_documents": 3,
            "trie_bytes": 4321,
        },
        "data": {
            "basic": {"train": 160, "validation": 40, "test": 2},
            "auxiliary": {"train": 300},
            "co_training": {"train": 200, "kept": 120},
        },
        "training": {
            "arguments": {"learning_rate": 0.0002, "lambda_retrieval": 1.0, "lora": True},
            "losses": {
                "rag": {"retrieval": 0.51234567, "generation": 1.25, "auxiliary": 2.0},
                "gar": {"retrieval": 0.75, "generation": 1.5, "auxiliary": 2.25},
            },
        },
        "evaluation": {
            "published_stage": "co_training",
            "rows": [
                evaluation_row("baseline", "bm25"),
                evaluation_row("warm_up", "rag", em=0.125),
                evaluation_row("warm_up", "gar", em=0.125),
                evaluation_row("co_training", "rag"),
                evaluation_row("co_training", "rag", "title_not_in_query", em=0.2),
                evaluation_row("co_training", "gar"),
                evaluation_row("co_training", "ensemble", em=0.5),
            ],
        },
        "memory": {"peak_bytes": 3000000000, "trie_bytes": 4321},
        "seed": 42,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "command": "make demo",
        "license_chain": ["SmolLM2-135M-Instruct: Apache-2.0"],
    }


@pytest.fixture
def run_folder(tmp_path, run):
    """Output folder of a finished run; the models' weights are one small tensor."""
    folder = tmp_path / "run"
    for role in ("rag", "gar"):
        model = folder / f"mint-{role}"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"model_type": "mint", "role": role}))
        (model / "processor_config.json").write_text(json.dumps({"role": role, "collection": "../mint-collection"}))
        (model / "modeling_mint.py").write_text("# custom code\n")
        save_file({"weight": torch.arange(4.0)}, model / "model.safetensors")
        save_file({"edge_token": torch.arange(4)}, model / "title_trie.safetensors")
        (model / "__pycache__").mkdir()
        (model / "__pycache__" / "modeling_mint.pyc").write_bytes(b"bytecode")

    collection = folder / "mint-collection"
    documents = {"title": ["Eiffel Tower", "Seine", "Paris"], "text": ["By Gustave Eiffel.", "A river.", "A city."]}
    Dataset.from_dict(documents).to_parquet(collection / "data" / "train-00000-of-00001.parquet")
    (collection / "README.md").write_text(
        CONFIGS.format(entries="- config_name: default\n  data_files: data/train-*.parquet")
    )

    pseudo = folder / "mint-pseudo"
    queries = {"train": ["Who built it?"], "test": ["Who designed the Eiffel Tower?", "Which river?"]}
    for split, texts in queries.items():
        Dataset.from_dict({"query": texts}).to_parquet(pseudo / "basic" / f"{split}-00000-of-00001.parquet")
    for config in ("auxiliary", "co_training"):
        samples = {"query": ["What?"], "answers": [["That."]], "docids": [["Paris"]]}
        Dataset.from_dict(samples).to_parquet(pseudo / config / "train-00000-of-00001.parquet")
    entries = [
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*.parquet"
        for config in ("basic", "auxiliary", "co_training")
    ]
    (pseudo / "README.md").write_text(CONFIGS.format(entries="\n".join(entries)))

    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folder of a RAG and a GAR model, both random, and their collection."""
    folder = tmp_path_factory.mktemp("models")
    collection = Dataset.from_dict({"title": TITLES, "text": [f"All about {title}." for title in TITLES]})
    collection.to_parquet(folder / "mint-collection" / "data" / "train-00000-of-00001.parquet")
    tokenizer = tiny_byte_level_tokenizer()
    for seed, role in enumerate(("rag", "gar")):
        backbone = folder / f"backbone-{role}"
        tiny_llama(tokenizer, seed).save_pretrained(backbone)
        tokenizer.save_pretrained(backbone)
        processor = MintProcessor.from_backbone_pretrained(backbone, collection)
        processor.collection_name_or_path = "../mint-collection"
        MintForConditionalGeneration.from_backbone_pretrained(backbone, role=role).save_pretrained(
            folder / f"mint-{role}"
        )
        processor.save_pretrained(folder / f"mint-{role}")
    return folder


@pytest.fixture
def real_run_folder(run_folder, models):
    """Output folder of a finished run, with models that load and answer."""
    for folder in ("mint-rag", "mint-gar", "mint-collection/data"):
        shutil.rmtree(run_folder / folder)
        shutil.copytree(models / folder, run_folder / folder)
    return run_folder


@pytest.fixture
def adapter_run_folder(real_run_folder, models):
    """The same, of a run that trained two adapters on one base; their weights are random."""
    for seed, role in enumerate(("rag", "gar")):
        base = MintForConditionalGeneration.from_backbone_pretrained(models / "backbone-rag", role=role)
        if role == "rag":
            base.save_pretrained(real_run_folder / "mint-base")
            for name in ("processor_config.json", "title_trie.safetensors", "tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(models / "mint-rag" / name, real_run_folder / "mint-base" / name)
        torch.manual_seed(seed)
        lora = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
        adapter = get_peft_model(base, lora)
        adapter.peft_config["default"].base_model_name_or_path = "../mint-base"
        adapter.save_pretrained(real_run_folder / f"mint-{role}-adapter", save_embedding_layers=False)
        base.config.save_pretrained(real_run_folder / f"mint-{role}-adapter")
    return real_run_folder
