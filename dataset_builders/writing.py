"""Writes built datasets as folders that plain `load_dataset` reads, and reads the collection back."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset, DatasetBuilder, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.utils.py_utils import convert_file_size_to_int
from huggingface_hub import DatasetCard

MAX_SHARD_SIZE = "500MB"
"""Most bytes of rows in a Parquet file, as in `Dataset.push_to_hub`."""

ROWS_PER_STEP = 100
"""A shard ends after a multiple of this many rows."""


def build(builder: DatasetBuilder, num_proc: int | None = None) -> DatasetDict:
    """
    Runs a builder (or takes what its cache holds) and returns all splits.

    Args:
        builder ([`~datasets.DatasetBuilder`]):
            Builder, its config filled in.
        num_proc (`int`, *optional*):
            Processes that share the work; none but this one by default.

    Returns:
        [`~datasets.DatasetDict`]: the splits.

    Raises:
        `ValueError`: what the builder found wrong in its input, as it said it. (`datasets` alone would show its own
            general error in front.)
    """
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset()


def write_collection(collection: Dataset, folder: str | Path, max_shard_size: int | str = MAX_SHARD_SIZE) -> None:
    """
    Writes a collection as a dataset folder with one split, "train".

    Args:
        collection ([`~datasets.Dataset`]):
            Documents with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`].
        folder (`str` or `Path`):
            Folder to write to, made if it does not exist. Its card keeps its text.
        max_shard_size (`int` or `str`, *optional*, defaults to `"500MB"`):
            Most bytes of rows in a Parquet file, before it is compressed.
    """
    _write_splits(DatasetDict(train=collection), Path(folder), "data", "default", max_shard_size)


def write_config(
    splits: DatasetDict, folder: str | Path, config_name: str, max_shard_size: int | str = MAX_SHARD_SIZE
) -> None:
    """
    Writes one config of a dataset folder, leaving its other configs and the text of its card as they are.

    Args:
        splits ([`~datasets.DatasetDict`]):
            Samples with the columns of [`~dataset_builders.features.SAMPLE_FEATURES`], by split.
        folder (`str` or `Path`):
            Folder to write to, made if it does not exist.
        config_name (`str`):
            Name to load it by, such as "basic": `load_dataset(folder, "basic")`.
        max_shard_size (`int` or `str`, *optional*, defaults to `"500MB"`):
            Most bytes of rows in a Parquet file, before it is compressed.
    """
    _write_splits(splits, Path(folder), config_name, config_name, max_shard_size)


def _write_splits(
    splits: DatasetDict, folder: Path, data_dir: str, config_name: str, max_shard_size: int | str
) -> None:
    (folder / data_dir).mkdir(parents=True, exist_ok=True)
    paths = []
    with TemporaryDirectory(prefix=".", dir=folder / data_dir) as temporary:
        for split in sorted(splits):
            shards = list(_shards(splits[split], convert_file_size_to_int(max_shard_size)))
            for number, shard in enumerate(shards):
                paths.append(folder / data_dir / f"{split}-{number:05d}-of-{len(shards):05d}.parquet")
                shard.to_parquet(Path(temporary) / paths[-1].name)
        # Nothing of what stood here before is touched until all is written.
        for path in paths:
            os.replace(Path(temporary) / path.name, path)
    for path in set((folder / data_dir).glob("*.parquet")) - set(paths):
        path.unlink()  # a shard or split that this config had before and has no more
    data_files = [{"split": split, "path": f"{data_dir}/{split}-*.parquet"} for split in splits]
    # `load_dataset` caches a local folder by its name and card, not by its files: the content must show in the card,
    # or a folder of the same name elsewhere would be read instead.
    content = f"sha256 {file_fingerprint(*paths)}"
    entry = {"config_name": config_name, "data_files": data_files, "description": content}
    _merge_into_card(folder / "README.md", entry)


def _shards(rows: Dataset, max_bytes: int) -> Iterator[Dataset]:
    """Consecutive slices of at most `max_bytes` each (but of one step at least), the last one perhaps empty."""
    first, num_bytes = 0, 0
    for step, batch in enumerate(rows.with_format("arrow").iter(batch_size=ROWS_PER_STEP)):
        num_bytes += batch.nbytes
        if num_bytes > max_bytes and step:
            yield rows.select(range(first, step * ROWS_PER_STEP))
            first, num_bytes = step * ROWS_PER_STEP, batch.nbytes
    yield rows.select(range(first, len(rows)))


def _merge_into_card(path: Path, config: dict) -> None:
    card = DatasetCard(path.read_text(encoding="utf-8") if path.exists() else "---\n{}\n---\n")
    configs = {entry["config_name"]: entry for entry in card.data.get("configs", [])}
    configs[config["config_name"]] = config
    card.data["configs"] = list(configs.values())
    write_text(path, str(card))


def write_text(path: str | Path, text: str) -> None:
    """
    Writes a UTF-8 text file so that it is there whole or not at all.

    Args:
        path (`str` or `Path`):
            File to write; its folder must exist.
        text (`str`):
            Its content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def load_collection(name_or_path: str | Path) -> Dataset:
    """
    Loads a collection that [`write_collection`] wrote, or that was pushed to the Hub.

    Args:
        name_or_path (`str` or `Path`):
            Folder, or id of a dataset on the Hub.

    Returns:
        [`~datasets.Dataset`]: the documents, memory-mapped, with the columns of
        [`~dataset_builders.features.COLLECTION_FEATURES`].

    Raises:
        `FileNotFoundError`: if it is neither a folder nor a dataset on the Hub.
    """
    try:
        return load_dataset(str(name_or_path), split="train")
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"No collection at '{name_or_path}': there is no such folder, and no such dataset could be reached on the "
            "Hub. Check the path, or write the collection first with examples/build_collection.py."
        ) from error


def collection_fingerprint(collection: Dataset) -> str:
    """
    Hashes what a collection holds, wherever it is stored. Builders put this into their config, since `datasets`
    caches by config values and does not look behind a path.

    Args:
        collection ([`~datasets.Dataset`]):
            The collection.

    Returns:
        `str`: hexadecimal SHA-256 of titles, texts, related titles and, of sections, their pages, in order.
    """
    digest = hashlib.sha256()
    hashed = [name for name in ("title", "text", "related", "page") if name in collection.column_names]
    for batch in collection.select_columns(hashed).iter(batch_size=1000):
        digest.update(json.dumps(batch).encode())
    return digest.hexdigest()


def file_fingerprint(*paths: str | Path) -> str:
    """
    Hashes what files hold.

    Args:
        *paths (`str` or `Path`):
            Files, in an order that matters.

    Returns:
        `str`: hexadecimal SHA-256 of their contents.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
