"""Stage 1: raw documents and labelled questions -> mint-collection/ and the `basic` config of mint-pseudo/.

    python examples/build_collection.py --output_dir outputs/mine --collection documents.jsonl --labelled questions.jsonl
"""

import random
from pathlib import Path

from arguments import Settings, parse_settings
from assets import smollm2_folder, vital_articles
from datasets import DatasetDict, load_dataset
from run_folder import RunFolder, set_up_logging

from dataset_builders.basic import BasicBuilder
from dataset_builders.collection import CollectionBuilder
from dataset_builders.writing import build, load_collection, write_collection, write_config
from modeling_mint import MintProcessor

# What the demo's names stand for.
NAMED_ASSETS = {"smollm2-135m-instruct": smollm2_folder, "vital-articles": vital_articles}


def resolve(name: str) -> str:
    """The path of a named asset (fetched if need be); any other folder, file, id or URL as it is."""
    return str(NAMED_ASSETS[name]()) if name in NAMED_ASSETS else name


def build_collection(settings: Settings, folder: RunFolder) -> dict:
    """
    Writes the collection, the labelled samples and the rows of the slice to train on.

    Returns:
        `dict`: `num_documents`, `basic` (samples by split), `index_rows` (rows of the slice).

    Raises:
        ValueError: if the input is malformed, the collection is empty, or a split is missing.
    """
    run = settings.run
    if not run.collection or not run.labelled:
        raise ValueError("Name the documents with --collection and the labelled questions with --labelled.")
    source = resolve(run.collection)
    if Path(source).is_file():
        write_collection(
            build(CollectionBuilder(cache_dir=str(folder.cache), data_files=source))["train"], folder.collection
        )
    else:
        write_collection(load_collection(source), folder.collection)
    collection = load_collection(folder.collection)

    if Path(run.labelled).is_file():
        builder = BasicBuilder(
            cache_dir=str(folder.cache), data_files=run.labelled, collection=str(folder.collection)
        )
        basic = build(builder)
    else:
        basic = DatasetDict(load_dataset(run.labelled))
    missing = {"train", "validation", "test"} - set(basic)
    if missing:
        raise ValueError(
            f"{run.labelled} has no sample for {', '.join(sorted(missing))}: give each record its split "
            f'in meta, {{"meta": {{"split": "train"}}}}.'
        )
    write_config(basic, folder.pseudo, "basic")

    labelled_rows = sorted({row for split in basic.values() for rows in split["rows"] for row in rows})
    wanted = run.num_index_documents or len(collection)
    others = sorted(set(range(len(collection))) - set(labelled_rows))
    extra = random.Random(run.seed).sample(others, min(len(others), max(0, wanted - len(labelled_rows))))
    return {
        "num_documents": len(collection),
        "basic": {split: len(samples) for split, samples in basic.items()},
        "index_rows": sorted(labelled_rows + extra),
    }


def load_processor(settings: Settings, folder: RunFolder) -> MintProcessor:
    """The processor of the run's models: the backbone's tokenizer, and a trie over all titles of the collection."""
    processor = MintProcessor.from_backbone_pretrained(
        resolve(settings.run.backbone),
        load_collection(folder.collection),
        max_document_chars=settings.run.max_document_chars,
    )
    # Where the models of the run find their documents: beside their own folder.
    processor.collection_name_or_path = f"../{folder.collection.name}"
    return processor


if __name__ == "__main__":
    set_up_logging()
    settings = parse_settings()
    folder = RunFolder(settings)
    folder.run_stage("build_collection", lambda: build_collection(settings, folder))
