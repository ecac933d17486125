"""Raw documents -> the collection."""

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError

from modeling_mint.configuration_mint import DOCID_GRANULARITIES

from .features import COLLECTION_FEATURES, SECTION_COLLECTION_FEATURES
from .json_lines import FilePart, MalformedLines, read_json_lines, split_lines
from .knowledge_source import KILT_URL, KNOWLEDGE_SOURCE, kilt_rows
from .titles import clean_text, load_redirects, normalize_title, section_docid
from .writing import file_fingerprint

FORMATS = ("documents", "kilt")
BATCH_SIZE = 1000


class MalformedCollectionError(DatasetGenerationError, ValueError):
    """
    What a builder found wrong in its input. `datasets` hands its own errors on as they are, from other processes too;
    of a plain `ValueError` there, nothing but "an error occurred" would reach the user.
    """


def read_documents(part: FilePart, malformed: MalformedLines) -> Iterator[tuple[str, dict]]:
    """
    Reads raw documents from a file, by its suffix: `.parquet`; `.json`, one object of title -> article with the text
    under "extract", as collections of encyclopedia summaries come; anything else is read as JSONL.

    Args:
        part ([`FilePart`]):
            The part to read of a JSONL file. Others are read whole.
        malformed ([`MalformedLines`]):
            Counts malformed lines of JSONL, which are left out.

    Yields:
        `tuple[str, dict]`: the place of the document (for messages) and its fields.

    Raises:
        `ValueError`: if the file is malformed, or has too many malformed lines, naming the place.
    """
    path = part.path
    suffix = Path(path).suffix
    if suffix == ".parquet":
        row = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_SIZE):
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
        yield from read_json_lines(path, malformed, part)


@dataclass
class CollectionConfig(datasets.BuilderConfig):
    """
    Configuration of [`CollectionBuilder`]. `data_files` names the raw files; what they hold counts for the cache.

    Args:
        format (`str`, *optional*, defaults to `"documents"`):
            What the files hold: `"documents"` with titles and texts; or `"kilt"`, pages as KILT's knowledge source has
            them (see [`~dataset_builders.knowledge_source.kilt_rows`]). Without `data_files`, `"kilt"` downloads it.
        docid_granularity (`str`, *optional*, defaults to `"title"`):
            What a row of the collection is: `"title"`, a page; or `"section"`, a section of a page.
        max_malformed (`int`, *optional*, defaults to 0):
            How many malformed lines or documents may be left out. They are counted and their places logged; one more
            raises. With 0 the first one raises. With `num_proc` each process counts its own.
        max_paragraphs (`int`, *optional*):
            Of KILT's pages: how many paragraphs to keep, from the top; all by default.
        max_related (`int`, *optional*, defaults to 20):
            Of KILT's pages: most titles in `related`.
        redirects (`str`, *optional*):
            Of KILT's pages: file of [`~dataset_builders.titles.load_redirects`], to resolve their links with.
        base_url (`str`, *optional*):
            Where to download KILT's knowledge source from; from its authors by default.
    """

    format: str = "documents"
    docid_granularity: str = "title"
    max_malformed: int = 0
    max_paragraphs: int | None = None
    max_related: int = 20
    redirects: str | None = None
    base_url: str = KILT_URL

    def __post_init__(self):
        super().__post_init__()
        for name, value, choices in (
            ("format", self.format, FORMATS),
            ("docid_granularity", self.docid_granularity, DOCID_GRANULARITIES),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
        for name, value, least in (
            ("max_malformed", self.max_malformed, 0),
            ("max_paragraphs", 1 if self.max_paragraphs is None else self.max_paragraphs, 1),
            ("max_related", self.max_related, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None and self.format != "kilt":
            raise ValueError("A collection is built from files: pass data_files=... (JSONL, Parquet or JSON).")
        paths = [path for paths in (self.data_files or {}).values() for path in paths]
        content = file_fingerprint(*paths, *filter(None, [self.redirects]))
        config_kwargs = config_kwargs | {"content": content}
        return super().create_config_id(config_kwargs, custom_features)


class CollectionBuilder(datasets.ArrowBasedBuilder):
    """
    Builds the collection from JSONL or Parquet files with "title" and "text" (and optionally "related", a list of
    titles), or from a JSON object of title -> {"extract": text, ...}. All other fields go to `metadata`.

    With `docid_granularity="section"` the field "sections" counts as well: a list of {"title", "text"}, each of which
    may have "sections" of its own. Every section is a row, under the docid "title, section"; the document's own text,
    like a section whose title is empty, is its lead section, under the bare title. A document or section that has
    sections needs no text. A section takes the fields that it does not have, such as "related", from the document.
    Headings inside a text are text.

    With `format="kilt"` the files are KILT's knowledge source, or have its form.

    Titles are normalised and control characters are dropped. Nothing is left out unless `max_malformed` says so: a
    document without a title or without text is an error that names its place.

    Files of lines are read in parts of some megabytes, so that memory stays the same whatever their size, and
    `num_proc` processes share them; the rows are the same, in the same order.

    Example:

    ```python
    >>> builder = CollectionBuilder(cache_dir="cache", data_files="documents.jsonl")
    >>> write_collection(build(builder)["train"], "outputs/mint-collection")
    >>> wikipedia = build(CollectionBuilder(format="kilt"), num_proc=16)["train"]
    ```
    """

    BUILDER_CONFIG_CLASS = CollectionConfig

    def _info(self):
        by_section = self.config.docid_granularity == "section"
        return datasets.DatasetInfo(features=SECTION_COLLECTION_FEATURES if by_section else COLLECTION_FEATURES)

    def _split_generators(self, dl_manager):
        if self.config.data_files is None:
            self._paths = [dl_manager.download(posixpath.join(self.config.base_url, KNOWLEDGE_SOURCE))]
        else:
            self._paths = [path for paths in self.config.data_files.values() for path in paths]
        parts = [part for path in self._paths for part in self._parts(path)]
        return [datasets.SplitGenerator(name="train", gen_kwargs={"parts": parts})]

    def _parts(self, path: str) -> list[FilePart]:
        """What is read at a time: a part of a file of lines; a Parquet file or a JSON object whole."""
        if self.config.format == "documents" and Path(path).suffix in (".parquet", ".json"):
            return [FilePart(path, 0, os.path.getsize(path), 1)]
        return split_lines(path)

    def _prepare_split(self, split_generator, **kwargs):
        super()._prepare_split(split_generator, **kwargs)
        if split_generator.split_info.num_examples == 0:
            raise ValueError(
                f"The collection is empty: no document in {', '.join(self._paths)}. Check the data files."
            )

    def _generate_tables(self, parts):
        malformed = MalformedLines(self.config.max_malformed)
        self._redirects = load_redirects(self.config.redirects) if self.config.redirects else {}
        for part_number, part in enumerate(parts):
            rows, batch_number = self._rows(part, malformed), 0
            while batch := self._next_batch(rows):
                yield Key(part_number, batch_number), batch
                batch_number += 1
        malformed.log(", ".join(sorted({part.path for part in parts})))

    def _next_batch(self, rows: Iterator[dict]) -> pa.Table | None:
        try:
            batch = list(islice(rows, BATCH_SIZE))
        except ValueError as error:
            raise MalformedCollectionError(str(error)) from error
        return pa.Table.from_pylist(batch, schema=self.info.features.arrow_schema) if batch else None

    def _rows(self, part: FilePart, malformed: MalformedLines) -> Iterator[dict]:
        config = self.config
        by_section = config.docid_granularity == "section"
        if config.format == "kilt":
            documents = read_json_lines(part.path, malformed, part)
            to_rows = partial(
                kilt_rows,
                by_section=by_section,
                max_paragraphs=config.max_paragraphs,
                max_related=config.max_related,
                redirects=self._redirects,
            )
        else:
            documents = read_documents(part, malformed)
            to_rows = _to_sections if by_section else _to_documents
        for place, fields in documents:
            try:
                # All rows of a document or none.
                rows = list(to_rows(place, fields))
            except ValueError as error:
                malformed.add(place, str(error))
                continue
            yield from rows


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
        "related": list(filter(None, map(normalize_title, related))),
        "metadata": clean_text(json.dumps(metadata, ensure_ascii=False, default=str)),
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
