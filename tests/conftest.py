"""Tiny models of both kinds and both roles, their processors and their collection, made once for all tests."""

import pytest
from datasets import Dataset

from dataset_builders.features import COLLECTION_FEATURES
from dataset_builders.writing import write_collection
from modeling_mint import MintForConditionalGeneration, MintProcessor
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer

KINDS = ("llama", "t5")
ROLES = ("rag", "gar")


@pytest.fixture(params=KINDS)
def kind(request):
    """Kind of backbone: decoder-only ("llama") or encoder-decoder ("t5")."""
    return request.param


@pytest.fixture(params=ROLES)
def role(request):
    return request.param


@pytest.fixture(scope="session")
def collection():
    """One document for each of TITLES, in their order."""
    records = [
        {"title": title, "text": f"{title} is known in Paris and the world.", "related": [], "metadata": "{}"}
        for title in TITLES
    ]
    return Dataset.from_list(records, features=COLLECTION_FEATURES)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Folders of random language models with their tokenizers, by (kind, role)."""
    root = tmp_path_factory.mktemp("backbones")
    makers = {"llama": (tiny_byte_level_tokenizer, tiny_llama), "t5": (tiny_unigram_tokenizer, tiny_t5)}
    folders = {}
    for kind, (make_tokenizer, make_model) in makers.items():
        tokenizer = make_tokenizer()
        for seed, role in enumerate(ROLES):
            folders[kind, role] = root / f"{kind}-{role}"
            make_model(tokenizer, seed).save_pretrained(folders[kind, role])
            tokenizer.save_pretrained(folders[kind, role])
    return folders


@pytest.fixture(scope="session")
def models(backbones):
    """MINT models by (kind, role), in eval mode. They are shared: a test that changes one works on a deep copy."""
    return {
        key: MintForConditionalGeneration.from_backbone_pretrained(folder, role=key[1])
        for key, folder in backbones.items()
    }


@pytest.fixture(scope="session")
def processors(backbones, collection):
    """MINT processors by kind, with the trie over TITLES. They are shared, like the models."""
    return {kind: MintProcessor.from_backbone_pretrained(backbones[kind, "rag"], collection) for kind in KINDS}


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory, models, processors, collection):
    """Folders by kind, laid out like a finished run: mint-rag/, mint-gar/ and mint-collection/ beside them."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(f"run-{kind}")
        write_collection(collection, folders[kind] / "mint-collection")
        processor = MintProcessor(
            processors[kind].tokenizer,
            processors[kind].trie,
            "../mint-collection",
            padding_side=processors[kind].padding_side,
        )
        for role in ROLES:
            models[kind, role].save_pretrained(folders[kind] / f"mint-{role}")
            processor.save_pretrained(folders[kind] / f"mint-{role}")
    return folders
