"""Stage 1: raw documents and labelled questions -> mint-collection/ and the `basic` config of mint-pseudo/.

python examples/build_collection.py --output_dir outputs/mine --collection documents.jsonl --labelled questions.jsonl
"""

import logging
import random
import re
from pathlib import Path

from arguments import Settings, parse_settings
from assets import smollm2_folder, vital_articles
from datasets import DatasetDict, get_dataset_config_names, load_dataset
from run_folder import RunFolder, plain_errors, set_up_logging
from transformers import AutoConfig, AutoTokenizer

from dataset_builders.basic import BasicBuilder
from dataset_builders.collection import CollectionBuilder, docids_of_several_pages
from dataset_builders.features import SAMPLE_FEATURES
from dataset_builders.writing import build, load_collection, write_collection, write_config
from modeling_mint import MintProcessor, TitleTrie
from modeling_mint.processing_mint import collection_granularity

logger = logging.getLogger(__name__)

# What the demo's names stand for.
NAMED_ASSETS = {"smollm2-135m-instruct": smollm2_folder, "vital-articles": vital_articles}


def resolve(name: str) -> str:
    """
    The path of a named asset (fetched if need be); any other folder, file, id or URL as it is.

    Raises:
        FileNotFoundError: if the name can only be that of a file or folder and there is none. (The Hub would be
            asked for it, again and again where it cannot be reached.)
    """
    if name in NAMED_ASSETS:
        return str(NAMED_ASSETS[name]())
    path = Path(name)
    if path.exists() or name.startswith(("http://", "https://")):
        return name
    is_hub_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) and path.suffix not in (".jsonl", ".json", ".parquet")
    if not is_hub_id or ("/" in name and path.parent.is_dir()):
        raise FileNotFoundError(f"There is no file or folder '{name}'. Check the path (it starts at {Path.cwd()}).")
    return name


def build_collection(settings: Settings, folder: RunFolder) -> dict:
    """
    Writes the collection, the labelled samples and the rows of the slice to train on.

    Returns:
        `dict`: `num_documents`, `basic` (samples by split), `index_rows` (rows of the slice).

    Raises:
        ValueError: if the input is malformed, the collection is empty or has other docids than `--docid_granularity`
            says, or a split is missing.
        OSError: if a file, folder or Hub id is not there.
    """
    run = settings.run
    if not run.collection or not run.labelled:
        raise ValueError("Name the documents with --collection and the labelled questions with --labelled.")
    source, labelled = resolve(run.collection), resolve(run.labelled)
    # What later stages load: a mistake must show before hours of work, not after.
    resolve(run.llm)
    AutoConfig.from_pretrained(resolve(run.backbone))
    if Path(source).is_file():
        builder = CollectionBuilder(
            cache_dir=str(folder.cache),
            data_files=source,
            format=settings.source.collection_format,
            docid_granularity=run.docid_granularity,
            max_malformed=settings.source.max_malformed,
            redirects=settings.source.redirects,
        )
        collection = build(builder, settings.source.num_proc)["train"]
        if run.leaf_order:
            tokenizer = AutoTokenizer.from_pretrained(resolve(run.backbone))
            collection = collection.select(TitleTrie.from_titles(collection["title"], tokenizer).leaf_order())
    else:
        collection = load_collection(source)
        found = collection_granularity(collection)
        if found != run.docid_granularity:
            raise ValueError(
                f"{run.collection} was written with docid_granularity {found!r}: start with that, or give the raw "
                f"documents to have {run.docid_granularity!r}."
            )
    write_collection(collection, folder.collection)
    collection = load_collection(folder.collection)
    if run.docid_granularity == "section" and (shared := docids_of_several_pages(collection)):
        logger.warning(
            "%d docids name sections of several pages, such as '%s': a model that writes one gets all their rows.",
            len(shared),
            shared[0],
        )

    if Path(labelled).is_file():
        basic = build(
            BasicBuilder(
                cache_dir=str(folder.cache),
                data_files=labelled,
                collection=str(folder.collection),
                on_missing_provenance=settings.source.on_missing_provenance,
                max_malformed=settings.source.max_malformed,
                redirects=settings.source.redirects,
            )
        )
    else:
        basic = load_labelled(labelled, collection["title"][:])
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


def load_labelled(name_or_path: str, titles: list[str]) -> DatasetDict:
    """
    Labelled samples that were written before: the `basic` config of a dataset, or a dataset without configs.

    Raises:
        ValueError: if the samples have another schema, or a sample's docid does not stand in its row of the
            collection, whose `titles` are given.
    """
    basic = "basic" if "basic" in get_dataset_config_names(name_or_path) else None
    samples = load_dataset(name_or_path, basic)
    for split in samples.values():
        if split.features != SAMPLE_FEATURES:
            raise ValueError(
                f"{name_or_path} has other fields than samples of this version: give the labelled questions as KILT "
                "JSONL, or write the dataset again."
            )
        for sample in split:
            for docid, row in zip(sample["docids"], sample["rows"], strict=True):
                if row >= len(titles) or titles[row] != docid:
                    raise ValueError(
                        f"{name_or_path}, sample '{sample['id']}': '{docid}' is not row {row} of the collection. Give "
                        "the collection that the samples were written for, or the labelled questions as KILT JSONL."
                    )
    return samples


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
    with plain_errors():
        set_up_logging()
        settings = parse_settings()
        folder = RunFolder(settings)
        folder.run_stage("build_collection", lambda: build_collection(settings, folder))
