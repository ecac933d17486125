"""Cards of a run's models and datasets, rendered from the facts in its `run.json`.

A card states nothing that the run did not report: a fact that a template asks for and `run.json` lacks is an error.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, EvalResult, ModelCard, RepoCard

from .rendering import METRICS, render

logger = logging.getLogger(__name__)


def read_run(output_dir: str | os.PathLike) -> dict[str, Any]:
    """
    Reads the report of a run.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run, holding `run.json`.

    Returns:
        `dict[str, Any]`: the report.

    Raises:
        FileNotFoundError: the folder holds no `run.json`, so the run has not ended.
        ValueError: `run.json` is not JSON.
    """
    path = Path(output_dir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: finish the run first (examples/run_mint.py writes it at its end)."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}). Run the last stage again.") from error


def has_adapters(output_dir: str | os.PathLike) -> bool:
    """Whether a run has trained adapters on one base, rather than two full models only."""
    return Path(output_dir, "mint-base").is_dir()


def has_full_models(output_dir: str | os.PathLike) -> bool:
    """Whether a run has two full models: trained as such, or its adapters merged."""
    return Path(output_dir, "mint-rag").is_dir() or not has_adapters(output_dir)


def model_card(run: dict[str, Any], role: str, org: str | None = None) -> ModelCard:
    """
    Card of one of the two models, with the results of the stage that it comes from as `model-index`.

    Args:
        run (`dict[str, Any]`):
            Report of the run, see [`read_run`].
        role (`str`):
            `"rag"` or `"gar"`.
        org (`str`, *optional*):
            Account that the artefacts are pushed to. Without it the card names the folders of the run.

    Returns:
        [`~huggingface_hub.ModelCard`]: the card.

    Raises:
        ValueError: the role is unknown, or the report lacks a fact that the card states.
    """
    if role not in ("rag", "gar"):
        raise ValueError(f"role must be 'rag' or 'gar', not {role!r}.")
    card = ModelCard(render("model_card.md", run, org, role=role))
    card.data.model_name = f"mint-{role}"
    card.data.eval_results = _eval_results(run, role, org)
    return card


def base_card(run: dict[str, Any], org: str | None = None) -> ModelCard:
    """
    Card of the base that the two adapters belong to.

    Arguments, result and errors are those of [`model_card`], without the role.
    """
    return ModelCard(render("base_card.md", run, org))


def adapter_card(run: dict[str, Any], role: str, org: str | None = None) -> ModelCard:
    """
    Card of one of the two adapters, with PEFT's metadata and the results of the stage that it comes from.

    Arguments, result and errors are those of [`model_card`].
    """
    if role not in ("rag", "gar"):
        raise ValueError(f"role must be 'rag' or 'gar', not {role!r}.")
    card = ModelCard(render("adapter_card.md", run, org, role=role))
    card.data.model_name = f"mint-{role}-adapter"
    card.data.eval_results = _eval_results(run, role, org)
    return card


def collection_card(run: dict[str, Any], org: str | None = None) -> DatasetCard:
    """
    Card of the document collection.

    Args:
        run (`dict[str, Any]`):
            Report of the run, see [`read_run`].
        org (`str`, *optional*):
            Account that the artefacts are pushed to. Without it the card names the folders of the run.

    Returns:
        [`~huggingface_hub.DatasetCard`]: the card, without the `configs` that lie in the written folder.

    Raises:
        ValueError: the report lacks a fact that the card states.
    """
    return DatasetCard(render("collection_card.md", run, org))


def pseudo_card(run: dict[str, Any], org: str | None = None) -> DatasetCard:
    """
    Card of the training data: labelled (`basic`), written by the LLM (`auxiliary`), written by the models
    (`co_training`).

    Args:
        run (`dict[str, Any]`):
            Report of the run, see [`read_run`].
        org (`str`, *optional*):
            Account that the artefacts are pushed to. Without it the card names the folders of the run.

    Returns:
        [`~huggingface_hub.DatasetCard`]: the card, without the `configs` that lie in the written folder.

    Raises:
        ValueError: the report lacks a fact that the card states.
    """
    return DatasetCard(render("pseudo_card.md", run, org))


def docid_search_card(model: str, org: str) -> ModelCard:
    """
    Card of the docid search as a `custom_generate` repository, which belongs to no run.

    Args:
        model (`str`):
            Name of a model of the account whose title trie the example takes.
        org (`str`):
            Account that the artefacts are pushed to.

    Returns:
        [`~huggingface_hub.ModelCard`]: the card.
    """
    return ModelCard(render("docid_search_card.md", {}, org, model=model))


def render_cards(output_dir: str | os.PathLike, org: str | None = None) -> dict[str, RepoCard]:
    """
    Renders the cards of a run: those of the full models and those of the base and its adapters, where the run has
    them.

    The dataset cards keep the `configs` of their folders' `README.md`.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        org (`str`, *optional*):
            Account that the artefacts are pushed to. Without it the cards name the folders of the run.

    Returns:
        `dict[str, RepoCard]`: folder name (such as `"mint-rag"`) to card.

    Raises:
        FileNotFoundError: `run.json` or the `README.md` of a dataset folder is missing.
        ValueError: `run.json` lacks a fact that a card states.
    """
    run = read_run(output_dir)
    cards = {}
    if has_full_models(output_dir):
        cards |= {f"mint-{role}": model_card(run, role, org) for role in ("rag", "gar")}
    if has_adapters(output_dir):
        cards["mint-base"] = base_card(run, org)
        cards |= {f"mint-{role}-adapter": adapter_card(run, role, org) for role in ("rag", "gar")}
    for folder, card in (("mint-collection", collection_card(run, org)), ("mint-pseudo", pseudo_card(run, org))):
        written = Path(output_dir) / folder / "README.md"
        if not written.is_file():
            raise FileNotFoundError(
                f"{written} is missing: without its `configs` the dataset cannot be loaded by name."
            )
        card.data.configs = DatasetCard.load(written).data.configs
        cards[folder] = card
    return cards


def write_cards(output_dir: str | os.PathLike) -> None:
    """
    Writes the `README.md` of `mint-collection` and `mint-pseudo`, of `mint-rag` and `mint-gar`, and of `mint-base`,
    `mint-rag-adapter` and `mint-gar-adapter`, where the run has them.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.

    Raises:
        FileNotFoundError: `run.json` or the `README.md` of a dataset folder is missing.
        ValueError: `run.json` lacks a fact that a card states.
    """
    for folder, card in render_cards(output_dir).items():
        path = Path(output_dir) / folder / "README.md"
        temporary = path.with_name("README.md.tmp")
        card.save(temporary)
        os.replace(temporary, path)
        logger.info("Wrote %s", path)


def _eval_results(run: dict[str, Any], role: str, org: str | None) -> list[EvalResult]:
    """The role's own rows of the stage that the published models come from, and those of the joint strategies."""
    stage = run["evaluation"]["published_stage"]
    rows = [row for row in run["evaluation"]["rows"] if row["stage"] == stage]
    if role not in {row["system"] for row in rows}:
        raise ValueError(
            f"run.json: evaluation.rows has no row of the system {role!r} in the stage {stage!r}: evaluate it first."
        )
    # Questions that are no part of the run's data have a name of their own.
    test_set = run["evaluation"].get("test_set")
    results = []
    for row in rows:
        if row["system"] not in (role, "ensemble", "cascade"):
            continue
        for key, (task_type, name) in METRICS.items():
            if row[key] is None:
                continue
            results.append(
                EvalResult(
                    task_type=task_type,
                    dataset_type=test_set or (f"{org}/mint-pseudo" if org else "mint-pseudo"),
                    dataset_name=test_set or f"Questions on {run['collection']['name']}",
                    dataset_config=None if test_set else "basic",
                    dataset_split="test",
                    metric_type=key,
                    metric_value=row[key],
                    metric_name=f"{name} ({row['system']}, {row['subset']})",
                    metric_args={"strategy": row["system"], "subset": row["subset"]},
                )
            )
    return results
