"""Raw documents -> the collection."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from modeling_mint.configuration_mint import DOCID_GRANULARITIES

from .features import COLLECTION_FEATURES, SECTION_COLLECTION_FEATURES
from .json_lines import read_json_lines
from .titles import clean_text, normalize_title, section_docid
from .writing import file_fingerprint


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

    Args:
        docid_granularity (`str`, *optional*, defaults to `"title"`):
            What a row of the collection is: `"title"`, a page; or `"section"`, a section of a page.
    """

    docid_granularity: str = "title"

    def __post_init__(self):
        super().__post_init__()
        if self.docid_granularity not in DOCID_GRANULARITIES:
            raise ValueError(
                f"docid_granularity is {self.docid_granularity!r}; it must be one of {', '.join(DOCID_GRANULARITIES)}."
            )

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None:
            raise ValueError("A collection is built from files: pass data_files=... (JSONL, Parquet or JSON).")
        content = file_fingerprint(*(path for paths in self.data_files.values() for path in paths))
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class CollectionBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds the collection from JSONL or Parquet files with "title" and "text" (and optionally "related", a list of
    titles), or from a JSON object of title -> {"extract": text, ...}. All other fields go to `metadata`.

    With `docid_granularity="section"` the field "sections" counts as well: a list of {"title", "text"}, each of which
    may have "sections" of its own. Every section is a row, under the docid "title, section"; the document's own text,
    like a section whose title is empty, is its lead section, under the bare title. A document or section that has
    sections needs no text. A section takes the fields that it does not have, such as "related", from the document.
    Headings inside a text are text.

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
        by_section = self.config.docid_granularity == "section"
        return datasets.DatasetInfo(features=SECTION_COLLECTION_FEATURES if by_section else COLLECTION_FEATURES)

    def _split_generators(self, dl_manager):
        paths = [path for paths in self.config.data_files.values() for path in paths]
        return [datasets.SplitGenerator(name="train", gen_kwargs={"paths": paths})]

    def _generate_examples(self, paths):
        to_rows = _to_sections if self.config.docid_granularity == "section" else _to_documents
        row = 0
        for path in paths:
            for place, fields in read_documents(path):
                for document in to_rows(place, fields):
                    yield row, document
                    row += 1
        if row == 0:
            raise ValueError(f"The collection is empty: no document in {', '.join(paths)}. Check the data files.")


def docids_of_several_pages(collection: datasets.Dataset) -> list[str]:
    """
    Finds the docids that sections of different pages share: those of page "Paris, Texas" and of section "Texas" of
    page "Paris". They stay rows of their own; a model that writes the docid gets them all.

    Args:
        collection ([`~datasets.Dataset`]):
            Sections with the columns of [`~dataset_builders.features.SECTION_COLLECTION_FEATURES`].

    Returns:
        `list[str]`: the docids, in alphabetical order.
    """
    table = collection.select_columns(["title", "page"]).with_format("arrow")[:]
    pages = table.group_by("title").aggregate([("page", "count_distinct")]).to_pydict()
    return sorted(
        title for title, count in zip(pages["title"], pages["page_count_distinct"], strict=True) if count > 1
    )


def _to_documents(place: str, fields: dict) -> Iterator[dict]:
    yield _to_document(place, fields)


def _to_sections(place: str, fields: dict) -> Iterator[dict]:
    page = normalize_title(_string_field(place, fields, "title"))
    for section_place, section in _sections(place, fields):
        yield _to_document(section_place, section) | {"page": page}


def _sections(place: str, fields: dict) -> Iterator[tuple[str, dict]]:
    """What has a text in a document, or in a section of one, itself first: place and fields, its docid as title."""
    sections = fields.get("sections") or []
    if not isinstance(sections, list) or not all(
        isinstance(section, dict) and all(isinstance(section.get(name), str) for name in ("title", "text"))
        for section in sections
    ):
        raise ValueError(
            f"{place}: 'sections' must be a list of objects with 'title' and 'text' as strings. Mend or delete it."
        )
    own = {name: value for name, value in fields.items() if name != "sections"}
    if not sections or str(own.get("text") or "").strip():
        yield place, own
    for section in sections:
        docid = section_docid(own["title"], section["title"])
        yield from _sections(f"{place}, section '{docid}'", own | section | {"title": docid})


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
