"""The Space to try a run on: the demo page's files, and the settings that name the run's models."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
from huggingface_hub import SpaceCard

from .artefacts import Artefact, as_json, visible_files
from .cards import has_full_models, read_run

SPACE = Path(__file__).parent / "space"


def space_models(output_dir: str | os.PathLike, prefix: str) -> dict[str, Any]:
    """
    Where the demo page finds the models of a run: the full ones, or if there are none two adapters on one base.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        prefix (`str`):
            What stands before their names: an account or the run's folder, with a slash behind it.

    Returns:
        `dict[str, Any]`: arguments of `pipeline("mint", ...)`: `model`, and `gar_model` or `adapters`.
    """
    if has_full_models(output_dir):
        return {"model": f"{prefix}mint-rag", "gar_model": f"{prefix}mint-gar"}
    return {
        "model": f"{prefix}mint-base",
        "adapters": {role: f"{prefix}mint-{role}-adapter" for role in ("rag", "gar")},
    }


def space_config(output_dir: str | os.PathLike, prefix: str) -> dict[str, Any]:
    """
    What the demo page needs to know of a run.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        prefix (`str`):
            What stands before the models' names, see [`space_models`].

    Returns:
        `dict[str, Any]`: `models` (arguments of the pipeline), `examples` (up to five labelled questions, of the test
        split where there is one); where documents have it, `topic_field`; where the run's report has them, `language`
        and `article_url` of the collection. The Space's README says what the page makes of them.

    Raises:
        FileNotFoundError: the run's report or its labelled questions are missing.
    """
    run = read_run(output_dir)
    splits = sorted(Path(output_dir, "mint-pseudo", "basic").glob("*.parquet"))  # test, train, validation
    if not splits:
        raise FileNotFoundError(f"{output_dir}/mint-pseudo/basic holds no Parquet file: finish the run first.")
    config = {
        "models": space_models(output_dir, prefix),
        "examples": pyarrow.parquet.read_table(splits[0], columns=["query"])["query"].to_pylist()[:5],
    }
    config |= {name: run["collection"][name] for name in ("language", "article_url") if name in run["collection"]}
    if _have_topics(output_dir):
        config["topic_field"] = "topic"
    return config


def _have_topics(output_dir: str | os.PathLike) -> bool:
    """Whether the first document of the collection has a topic."""
    shards = sorted(Path(output_dir, "mint-collection", "data").glob("*.parquet"))
    first = next(pyarrow.parquet.ParquetFile(shards[0]).iter_batches(batch_size=1)).to_pylist()[0]
    return "topic" in json.loads(first.get("metadata") or "{}")


def space_artefact(output_dir: str | os.PathLike, org: str) -> Artefact:
    """
    The Space of a run.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        org (`str`):
            User or organization on the Hub.

    Returns:
        [`Artefact`]: the Space.

    Raises:
        FileNotFoundError: the run's report or its labelled questions are missing.
    """
    card = SpaceCard.load(SPACE / "README.md")
    settings = space_config(output_dir, f"{org}/")
    models = settings["models"]
    card.data.models = [models["model"], *models.get("adapters", {"gar": models.get("gar_model")}).values()]
    card.data.datasets = [f"{org}/mint-collection"]
    files = visible_files(SPACE) | {"README.md": str(card).encode(), "config.json": as_json(settings)}
    return Artefact(f"{org}/mint-demo", "space", dict(sorted(files.items())), "Ask the two models in your browser.")
