"""Human-annotated records in KILT's format -> basic data."""

import json
import logging
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import datasets
import pyarrow as pa
from datasets.builder import Key
from datasets.utils.file_utils import is_remote_url

from modeling_mint.processing_mint import collection_granularity, page_titles

from .features import SAMPLE_FEATURES, new_sample
from .json_lines import FilePart, MalformedLines, read_json_lines
from .kilt import KILT_TASKS, TASK_TYPES, KiltRecord, load_questions, read_record
from .knowledge_source import KILT_URL
from .titles import kilt_section_titles, load_redirects, section_docid
from .writing import collection_fingerprint, file_fingerprint, load_collection

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
BATCH_SIZE = 1000


@dataclass
class BasicConfig(datasets.BuilderConfig):
    """
    Configuration of [`BasicBuilder`]. Records come from `data_files`, JSONL by split or all in one; else, where the
    config has the name of a KILT task, from `data_dir`, which holds files under their official names; else from
    KILT's server. A record's own `meta["split"]` wins over the split of its file.

    What local files and the collection hold counts for the cache. What stands behind a URL is taken not to change.

    Args:
        collection (`str`):
            Folder or Hub id of the collection.
        task (`str`, *optional*, defaults to `"open_qa"`):
            Type of KILT task, one of [`~dataset_builders.kilt.TASK_TYPES`]: it says how to read a record. The configs
            of KILT's tasks have their own.
        on_missing_provenance (`str`, *optional*, defaults to `"error"`):
            What to do about a provenance title (or section) that the collection does not hold: `"error"`, or `"drop"`
            the evidence set it belongs to, and the record if it has no other.
        max_query_chars (`int`, *optional*, defaults to 1000):
            Most characters of a query. A longer dialogue loses its oldest turns, a text with a marked mention what is
            far from it, any other query its last words.
        max_malformed (`int`, *optional*, defaults to 0):
            How many malformed records of a split may be left out. They are counted and their places logged; one more
            raises. With 0 the first one raises.
        redirects (`str`, *optional*):
            File of [`~dataset_builders.titles.load_redirects`], to resolve provenance and linked entities with.
        questions_file (`str` or `list[str]`, *optional*):
            Files of [`~dataset_builders.kilt.load_questions`], for records that have ids instead of questions, as
            KILT's TriviaQA. A record whose id is not in there is malformed.
        base_url (`str`, *optional*):
            Where to download KILT's task files from; from its authors by default.
    """

    collection: str = ""
    task: str = "open_qa"
    on_missing_provenance: str = "error"
    max_query_chars: int = 1000
    max_malformed: int = 0
    redirects: str | None = None
    questions_file: str | list[str] | None = None
    base_url: str = KILT_URL

    @property
    def questions_files(self) -> list[str]:
        """`questions_file` as a list, empty by default."""
        files = self.questions_file or []
        return [files] if isinstance(files, str) else files

    def sources(self) -> dict[str, list[str]]:
        """Paths or URLs of the records, by split. Raises `ValueError` if `data_dir` has no file of the task."""
        if self.data_files is not None:
            return {split: list(paths) for split, paths in self.data_files.items()}
        names = KILT_TASKS[self.name].files
        if self.data_dir is None:
            return {split: [posixpath.join(self.base_url, name)] for split, name in names.items()}
        paths = {split: os.path.join(self.data_dir, name) for split, name in names.items()}
        found = {split: [path] for split, path in paths.items() if os.path.isfile(path)}
        if not found:
            raise ValueError(
                f"No file of '{self.name}' in {self.data_dir}; looked for {', '.join(names.values())}. Check "
                "data_dir, or name the files with data_files=...."
            )
        return found

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        # Here and not in `__post_init__`: options of a named config are set after that.
        if self.on_missing_provenance not in ("error", "drop"):
            raise ValueError(f"on_missing_provenance must be 'error' or 'drop', not '{self.on_missing_provenance}'.")
        if self.task not in TASK_TYPES:
            raise ValueError(f"task is '{self.task}'; it must be one of {', '.join(TASK_TYPES)}.")
        if self.max_query_chars < 1 or self.max_malformed < 0:
            limits = f"max_query_chars is {self.max_query_chars} and max_malformed {self.max_malformed}"
            raise ValueError(f"{limits}; they must be at least 1 and 0.")
        if not self.collection or (self.data_files is None and self.name not in KILT_TASKS):
            raise ValueError(
                "Basic data needs data_files=... (KILT JSONL) or config_name=... (a KILT task: "
                f"{', '.join(KILT_TASKS)}), and collection=... (folder or Hub id)."
            )
        sources = self.sources()
        if unknown := sources.keys() - set(SPLITS):
            raise ValueError(f"data_files has split '{min(unknown)}'; splits are {', '.join(SPLITS)}. Rename it.")
        if self.name == "triviaqa" and self.data_files is None and not self.questions_files:
            raise ValueError(
                "KILT's TriviaQA files hold ids without questions. Pass questions_file=... (TriviaQA's own JSON, or "
                "JSONL of id and input), or name files that have questions with data_files=...."
            )
        paths = [(split, path) for split, paths in sources.items() for path in paths]
        content = [
            [(split, path if is_remote_url(path) else file_fingerprint(path)) for split, path in paths],
            file_fingerprint(*self.questions_files, *filter(None, [self.redirects])),
            collection_fingerprint(load_collection(self.collection)),
        ]
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class BasicBuilder(datasets.ArrowBasedBuilder):
    """
    Builds basic data (MINT, SIGIR 2025: what the warm-up learns from) from KILT JSONL: records with "id", "input" and
    "output", a list of items with an "answer", a "provenance" (list of {"title": ...}), or both. There is a config for
    each of KILT's tasks, and one, the default, for other files in this form.

    All distinct answers are kept in their order. Every output item with provenance gives one evidence set. Docids
    are all titles of all sets, in their order; of several documents under one title the first is meant. Records
    without output, as in KILT's blind test sets, stay, with neither.

    Where the collection's documents are sections, a provenance means the "section" that it names (KILT's
    "Section::::History.:Middle Ages." or a bare heading), and the page's lead section if it names none (where a page
    has no lead, the first of its rows).

    Example:

    ```python
    >>> builder = BasicBuilder(cache_dir="cache", data_files="questions.jsonl", collection="outputs/mint-collection")
    >>> write_config(build(builder), "outputs/mint-pseudo", "basic")
    >>> nq = build(BasicBuilder(config_name="nq", collection="outputs/mint-collection", on_missing_provenance="drop"))
    ```
    """

    BUILDER_CONFIG_CLASS = BasicConfig
    BUILDER_CONFIGS = [BasicConfig(), *(BasicConfig(name=name, task=task.type) for name, task in KILT_TASKS.items())]
    DEFAULT_CONFIG_NAME = "default"

    def _info(self):
        return datasets.DatasetInfo(features=SAMPLE_FEATURES)

    def _split_generators(self, dl_manager):
        self._index_collection()
        config, sources = self.config, self.config.sources()
        self._redirects = load_redirects(config.redirects) if config.redirects else {}
        self._questions = load_questions(*config.questions_files)
        names = KILT_TASKS[config.name].files if config.data_files is None else {}
        if missing := [name for split, name in names.items() if split not in sources]:
            logger.warning("%s: left out, not in %s: %s.", config.name, config.data_dir, ", ".join(missing))
        parts = {split: [] for split in SPLITS}
        for file_split, paths in dl_manager.download(sources).items():
            for path in paths:
                for split, part in split_parts(path, file_split):
                    parts[split].append(part)
        if not any(parts.values()):
            raise ValueError(f"No record in {sources}. Check the data files.")
        # A tuple of parts: `datasets` would spread a list over processes, and ids have to be unique in all of them.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "parts": tuple(parts[split])})
            for split in SPLITS
            if parts[split]
        ]

    def _index_collection(self):
        collection = load_collection(self.config.collection)
        self._titles = collection["title"][:]
        self._by_section = collection_granularity(collection) == "section"
        pages, rows = page_titles(collection)[:], range(len(collection))
        # From the last row to the first, so that of equal titles the first one stays.
        self._row_of_page = dict(zip(reversed(pages), reversed(rows), strict=True))
        if self._by_section:
            sections = zip(reversed(pages), reversed(self._titles), strict=True)
            self._row_of_section = dict(zip(sections, reversed(rows), strict=True))
            # A page's lead section, and the first of its rows where it has none.
            self._row_of_page |= {page: row for (page, title), row in self._row_of_section.items() if title == page}

    def _generate_tables(self, split, parts):
        samples, schema = self._samples(split, parts), self.info.features.arrow_schema
        for number, batch in enumerate(iter(lambda: list(islice(samples, BATCH_SIZE)), [])):
            yield Key(0, number), pa.Table.from_pylist(batch, schema=schema)

    def _samples(self, split: str, parts: tuple[FilePart, ...]) -> Iterator[dict]:
        malformed, dropped, seen = MalformedLines(self.config.max_malformed), 0, {}
        for part in parts:
            for place, fields in read_json_lines(part.path, malformed, part):
                if not fields.get("input") and self._questions:
                    fields["input"] = self._questions.get(str(fields.get("id")))
                    if fields["input"] is None:
                        place = f"{place} (no question for id '{fields.get('id')}')"
                try:
                    record = read_record(fields, self.config.task, self.config.max_query_chars, self._redirects)
                    if record.split not in (None, split):
                        raise ValueError(f"split '{record.split}' is not one of {SPLITS}. Mend meta.split.")
                    if record.id in seen:
                        raise ValueError(f"id '{record.id}' was taken at {seen[record.id]}. Make ids unique.")
                except ValueError as error:
                    malformed.add(place, f"{place}: {error}")
                    continue
                seen[record.id] = place
                provenance = self._provenance(place, record)
                if record.evidence_sets and not provenance:
                    dropped += 1
                else:
                    yield self._to_sample(split, record, provenance)
        malformed.log(f"{self.config.name}, {split}")
        if dropped:
            logger.warning("%s: dropped %d records, no evidence of theirs is in the collection.", split, dropped)
        if len(seen) == dropped:  # `datasets` could not read an empty split back
            raise ValueError(
                f"No record of split '{split}' is left: {len(malformed)} are malformed, and of {dropped} the "
                "collection lacks the evidence. Mend them, or leave this split's files out."
            )

    def _to_sample(self, split: str, record: KiltRecord, provenance: list[tuple[int, ...]]) -> dict:
        rows = list(dict.fromkeys(row for evidence in provenance for row in evidence))
        return new_sample(
            id=record.id,
            split=split,
            task=self.config.task,
            query=record.query,
            answers=record.answers,
            docids=[self._titles[row] for row in rows],
            rows=rows,
            provenance=[[self._titles[row] for row in evidence] for evidence in provenance],
            source="labelled",
            metadata=record.metadata,
        )

    def _provenance(self, place: str, record: KiltRecord) -> list[tuple[int, ...]]:
        """Rows of each distinct evidence set, without those that the collection lacks a row of."""
        evidence_sets = (self._rows(place, evidence) for evidence in record.evidence_sets)
        return list(dict.fromkeys(rows for rows in evidence_sets if rows))

    def _rows(self, place: str, evidence: list[tuple[str, str]]) -> tuple[int, ...]:
        """Rows of one evidence set; none if the collection lacks one of them and that is to be dropped."""
        rows = []
        for page, section in evidence:
            sections = kilt_section_titles(section) if self._by_section else []
            docid = section_docid(page, *sections) if sections else page
            row = self._row_of_section.get((page, docid)) if sections else self._row_of_page.get(page)
            if row is not None:
                rows.append(row)
            elif self.config.on_missing_provenance == "drop":
                return ()
            else:
                raise ValueError(
                    f"{place}: provenance title '{docid}' is not in {self.config.collection}. Mend the "
                    'title, add the document, or pass on_missing_provenance="drop".'
                )
        return tuple(dict.fromkeys(rows))


def split_parts(path: str, file_split: str) -> Iterator[tuple[str, FilePart]]:
    """
    Parts a JSONL file where the split of its records changes, parsing only lines that may name one of their own.

    Args:
        path (`str`):
            The file.
        file_split (`str`):
            Split of all lines that name none (or none that there is).

    Yields:
        `tuple[str, FilePart]`: split, and lines that follow each other; in the file's order.
    """
    part_split, start, first_line, position = None, 0, 1, 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            split = (_own_split(line) if b'"split"' in line else None) or file_split
            if split != part_split and line.strip():
                if part_split:
                    yield part_split, FilePart(path, start, position, first_line)
                part_split, start, first_line = split, position, number
            position += len(line)
    if part_split:
        yield part_split, FilePart(path, start, position, first_line)


def _own_split(line: bytes) -> str | None:
    try:
        split = json.loads(line)["meta"]["split"]
    except (ValueError, LookupError, TypeError, RecursionError):  # whoever reads the record says what is wrong
        return None
    return split if split in SPLITS else None
