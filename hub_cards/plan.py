"""What a push of a run would put where."""

import json
import os
from pathlib import Path

from .artefacts import Artefact, as_json, visible_files
from .cards import has_adapters, has_full_models, render_cards
from .demo_space import space_artefact
from .modules import docid_search_artefact, metric_artefacts

MODEL_FILES = (
    "config.json",
    "model*.safetensors",
    "modeling_mint.py",
    "processor_config.json",
    "title_trie.safetensors",
)
REQUIRED_FILES = {  # folder of a run -> patterns that must each match a file in it
    "mint-collection": ("data/*.parquet",),
    "mint-pseudo": ("basic/*.parquet", "auxiliary/*.parquet", "co_training/*.parquet"),
}
REQUIRED_MODEL_FILES = {"mint-rag": MODEL_FILES, "mint-gar": MODEL_FILES}  # the same, of a run that has full models
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "config.json")
REQUIRED_ADAPTER_FILES = {  # the same, of a run that has trained adapters
    "mint-base": MODEL_FILES,
    "mint-rag-adapter": ADAPTER_FILES,
    "mint-gar-adapter": ADAPTER_FILES,
}
NOTES = {
    "mint-collection": "The documents that both models retrieve from.",
    "mint-pseudo": "What both models learned from: labelled, by an LLM, and by the models themselves.",
    "mint-rag": "RAG: retrieves by writing titles, then answers.",
    "mint-gar": "GAR: answers, then retrieves by writing titles.",
    "mint-base": "The base of the two adapters, with the title trie.",
    "mint-rag-adapter": "RAG as a LoRA adapter on the base.",
    "mint-gar-adapter": "GAR as a LoRA adapter on the base.",
}


def plan_push(output_dir: str | os.PathLike, org: str) -> list[Artefact]:
    """
    Works out what would go where, and refuses a run that is not complete.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        org (`str`):
            User or organization on the Hub.

    Returns:
        `list[Artefact]`: one for each repository: datasets, models, the docid search, metrics, and last the demo
        Space, which loads the others.

    Raises:
        FileNotFoundError: a folder of the run lacks a file that its repository cannot do without.
        ValueError: `run.json` lacks a fact that a card states, or a processor names no collection.
    """
    _check_complete(output_dir)
    artefacts = []
    for folder, card in render_cards(output_dir, org).items():
        files = visible_files(Path(output_dir, folder)) | {"README.md": str(card).encode()}
        if "processor_config.json" in files:
            files["processor_config.json"] = _with_hub_collection(files["processor_config.json"], org)
        if "adapter_config.json" in files:
            files["adapter_config.json"] = _with_hub_base(files["adapter_config.json"], org)
        repo_type = "dataset" if folder in REQUIRED_FILES else "model"
        artefacts.append(Artefact(f"{org}/{folder}", repo_type, files, NOTES[folder]))
    artefacts.sort(key=lambda artefact: artefact.repo_type)
    model = "mint-rag" if has_full_models(output_dir) else "mint-base"
    return [
        *artefacts,
        docid_search_artefact(org, model),
        *metric_artefacts(org),
        space_artefact(output_dir, org),
    ]


def _check_complete(output_dir: str | os.PathLike) -> None:
    required = dict(REQUIRED_FILES)
    if has_full_models(output_dir):
        required |= REQUIRED_MODEL_FILES
    if has_adapters(output_dir):
        required |= REQUIRED_ADAPTER_FILES
    for folder, patterns in required.items():
        for pattern in patterns:
            if not any(Path(output_dir, folder).glob(pattern)):
                raise FileNotFoundError(
                    f"{Path(output_dir, folder)} holds no {pattern}: the run is not complete. "
                    "Start it again with the same output folder; it goes on where it was."
                )


def _with_hub_collection(processor_config: Path, org: str) -> bytes:
    """The processor's settings, its collection read from the account instead of from the run's folder."""
    settings = json.loads(processor_config.read_text(encoding="utf-8"))
    if settings.get("collection") is None:
        raise ValueError(f"{processor_config} names no collection: save the processor again with its collection.")
    return as_json(settings | {"collection": f"{org}/mint-collection"})


def _with_hub_base(adapter_config: Path, org: str) -> bytes:
    """The adapter's settings, its base read from the account instead of from the run's folder."""
    settings = json.loads(adapter_config.read_text(encoding="utf-8"))
    return as_json(settings | {"base_model_name_or_path": f"{org}/mint-base"})
