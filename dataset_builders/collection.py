"""Raw documents -> the collection."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from .features import COLLECTION_FEATURES, clean_text, normalize_title
from .writing import file_fingerprint


def read_json_lines(path: str | Path) -> Iterator[tuple[str, dict]]:
    """
    Reads a JSONL file of objects; blank lines are passed over.

    Args:
        path (`str` or `Path`):
            The file.

    Yields:
        `tuple[str, dict]`: the place of the record ("file, line n", for messages) and the record.

    Raises:
        `ValueError`: if a line is not UTF-8 or not a JSON object, naming file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{place}: not valid JSON ({error}). Mend or delete this line.") from error
            if not isinstance(record, dict):
                raise ValueError(f"{place}: expected a JSON object, found {type(record).__name__}. Mend this line.")
            yield place, record


def read_documents(path: str | Path) -> Iterator[tuple[str, dict]]:
    """
    Reads raw documents from one file, by its suffix: `.parquet`; `.json`, one object of title -> article with the
    text under "extract", as collections of encyclopedia summaries come; anything else is read as JSONL.

    Args:
        path (`str` or `Path`):
            The file.

    Yields:
        `tuple[str, dict]`: the place of the document (for messages) and its fields.

    Raises:
        `ValueError`: if the file is malformed, naming the place.
    """
    suffix = Path(path).suffix
    if suffix == ".parquet":
        row = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for document in batch.to_pylist():
                    yield f"{path}, row {row}", document
                    row += 1
    elif suffix == ".json":
        try:
            articles = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON ({error}). For one document a line, name it .jsonl.") from error
        if not isinstance(articles, dict) or not all(isinstance(article, dict) for article in articles.values()):
            raise ValueError(f"{path}: expected one JSON object of title -> article. Name JSONL files .jsonl.")
        for title, article in articles.items():
            fields = {key: value for key, value in article.items() if key != "extract"}
            yield f"{path}, article '{title}'", {"title": title, "text": article.get("extract")} | fields
    else:
        yield from read_json_lines(path)


@dataclass
class CollectionConfig(datasets.BuilderConfig):
    """
    Configuration of [`CollectionBuilder`]. `data_files` names the raw files; what they hold counts for the cache.
    """

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None:
            raise ValueError("A collection is built from files: pass data_files=... (JSONL, Parquet or JSON).")
        content = file_fingerprint(*(path for paths in self.data_files.values() for path in paths))
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class CollectionBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds the collection from JSONL or Parquet files with "title" and "text" (and optionally "related", a list of
    titles), or from a JSON object of title -> {"extract": text, ...}. All other fields go to `metadata`.

    Titles are normalised and control characters are dropped. Nothing is left out: a document without a title or
    without text is an error that names its place.

    Example:

    ```python
    >>> builder = CollectionBuilder(cache_dir="cache", data_files="documents.jsonl")
    >>> write_collection(build(builder)["train"], "outputs/mint-collection")
    ```
    """

    BUILDER_CONFIG_CLASS = CollectionConfig

    def _info(self):
        return datasets.DatasetInfo(features=COLLECTION_FEATURES)

    def _split_generators(self, dl_manager):
        paths = [path for paths in self.config.data_files.values() for path in paths]
        return [datasets.SplitGenerator(name="train", gen_kwargs={"paths": paths})]

    def _generate_examples(self, paths):
        row = 0
        for path in paths:
            for place, document in read_documents(path):
                yield row, _to_document(place, document)
                row += 1
        if row == 0:
            raise ValueError(f"The collection is empty: no document in {', '.join(paths)}. Check the data files.")


def _to_document(place: str, fields: dict) -> dict:
    title, text = (_string_field(place, fields, name) for name in ("title", "text"))
    related = fields.get("related") or []
    if not isinstance(related, list) or not all(isinstance(link, str) for link in related):
        raise ValueError(f"{place}: 'related' must be a list of titles.")
    metadata = {key: value for key, value in fields.items() if key not in ("title", "text", "related")}
    return {
        "title": normalize_title(title),
        "text": clean_text(text).strip(),
        "related": [normalize_title(link) for link in related],
        "metadata": json.dumps(metadata, ensure_ascii=False, default=str),
    }


def _string_field(place: str, fields: dict, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        found = "it is missing" if value is None else f"found {type(value).__name__}"
        raise ValueError(
            f"{place}: every document needs '{name}' as a string, {found}. Add it or delete the document."
        )
    if not normalize_title(value):
        raise ValueError(f"{place}: '{name}' is empty. Fill it in or delete the document.")
    return value
