"""The checkpoints that come with the project, made into the folder of a run: served, asked and evaluated like one.

python examples/trained_checkpoints.py
python examples/evaluate_mint.py --rag_model outputs/checkpoints/mint-rag --gar_model outputs/checkpoints/mint-gar \\
    --labelled questions.jsonl --output_dir outputs/checkpoints/evaluation
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from assets import smollm2_folder, vital_articles
from run_folder import plain_errors, set_up_logging
from transformers import HfArgumentParser

from dataset_builders.basic import BasicBuilder
from dataset_builders.collection import CollectionBuilder
from dataset_builders.writing import build, load_collection, write_collection, write_config, write_text
from hub_cards import adapter_card, base_card, model_card
from hub_cards.cards import read_run
from modeling_mint import MintConfig, MintProcessor
from trainers.adapter_models import ADAPTER_WEIGHTS_NAME, AdapterModels

logger = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"
QUESTIONS = Path(__file__).parent / "data" / "vital_questions.jsonl"
ROLES = ("rag", "gar")
SOURCE = "checkpoints.json"


@dataclass
class Arguments:
    """
    Args:
        output_dir (`str`, *optional*, defaults to `"outputs/checkpoints"`): folder to write.
    """

    output_dir: str = field(default="outputs/checkpoints", metadata={"help": "Folder to write."})


def unpack_checkpoints(output_dir: str | Path) -> Path:
    """
    Builds collection, title trie and base anew from the fetched articles and the fetched language model, merges the
    adapters into the base, and writes the cards. What was built from the same adapters already is left as it is.

    Args:
        output_dir (`str` or `pathlib.Path`): folder to write.

    Returns:
        `pathlib.Path`: the folder: `mint-collection/`, `mint-pseudo/` (the demo's questions), `mint-base/`,
        `mint-<role>-adapter/`, both merged in `mint-<role>/`, `run.json`.

    Raises:
        RuntimeError: if an asset cannot be fetched.
    """
    folder = Path(output_dir)
    adapters = {role: CHECKPOINTS / f"mint-{role}-adapter" for role in ROLES}
    source = {
        role: hashlib.sha256((path / ADAPTER_WEIGHTS_NAME).read_bytes()).hexdigest() for role, path in adapters.items()
    }
    if (folder / SOURCE).is_file() and json.loads((folder / SOURCE).read_text(encoding="utf-8")) == source:
        return folder
    logger.info("Unpacking the checkpoints to %s.", folder)
    cache = str(folder / "cache")
    builder = CollectionBuilder(cache_dir=cache, data_files=str(vital_articles()), format="documents")
    write_collection(build(builder)["train"], folder / "mint-collection")
    questions = BasicBuilder(
        cache_dir=cache,
        data_files=str(QUESTIONS),
        collection=str(folder / "mint-collection"),
    )
    write_config(build(questions), folder / "mint-pseudo", "basic")
    shutil.rmtree(cache)

    training = json.loads((CHECKPOINTS / "run.json").read_text(encoding="utf-8"))["training"]["arguments"]
    backbone = smollm2_folder()
    processor = MintProcessor.from_backbone_pretrained(
        backbone, load_collection(folder / "mint-collection"), max_document_chars=training["max_document_chars"]
    )
    processor.collection_name_or_path = "../mint-collection"
    AdapterModels.save_base(backbone, processor, folder / "mint-base")
    models = AdapterModels(folder / "mint-base", processor, None)
    for role, adapter in adapters.items():
        calibrated = MintConfig.from_pretrained(adapter).calibrated
        models.publish(role, adapter, folder / f"mint-{role}-adapter", **calibrated)
        models.merge(role, adapter, folder / f"mint-{role}", **calibrated)
    shutil.copyfile(CHECKPOINTS / "run.json", folder / "run.json")
    write_cards(folder, read_run(folder))
    write_text(folder / SOURCE, json.dumps(source, indent=1) + "\n")
    return folder


def write_cards(folder: Path, run: dict) -> None:
    """
    Writes the cards of base, adapters and models.

    Args:
        folder (`pathlib.Path`): the run's folder.
        run (`dict`): its report.
    """
    cards = {"mint-base": base_card(run)}
    for role in ROLES:
        cards |= {f"mint-{role}-adapter": adapter_card(run, role), f"mint-{role}": model_card(run, role)}
    for name, card in cards.items():
        card.save(folder / name / "README.md")


def main() -> None:
    """Unpacks the checkpoints."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    print(unpack_checkpoints(arguments.output_dir))


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        main()
