"""Human-annotated records in KILT's format -> basic data."""

import logging
from dataclasses import dataclass

import datasets

from modeling_mint.processing_mint import collection_granularity, page_titles

from .features import SAMPLE_FEATURES, new_sample
from .json_lines import read_json_lines
from .titles import kilt_section_titles, normalize_title, section_docid
from .writing import collection_fingerprint, file_fingerprint, load_collection

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass
class BasicConfig(datasets.BuilderConfig):
    """
    Configuration of [`BasicBuilder`]. `data_files` names KILT JSONL files, by split or all in one: a record's own
    `meta["split"]` wins over the split of its file. What the files and the collection hold counts for the cache.

    Args:
        collection (`str`):
            Folder or Hub id of the collection.
        task (`str`, *optional*, defaults to `"open_qa"`):
            KILT task of the records.
        on_missing_provenance (`str`, *optional*, defaults to `"error"`):
            What to do about a provenance title (or section) that the collection does not hold: `"error"`, or `"drop"`
            the evidence set it belongs to, and the record if it has no other.
    """

    collection: str = ""
    task: str = "open_qa"
    on_missing_provenance: str = "error"

    def __post_init__(self):
        super().__post_init__()
        if self.on_missing_provenance not in ("error", "drop"):
            raise ValueError(f"on_missing_provenance must be 'error' or 'drop', not '{self.on_missing_provenance}'.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None or not self.collection:
            raise ValueError("Basic data needs data_files=... (KILT JSONL) and collection=... (folder or Hub id).")
        content = [
            file_fingerprint(*(path for paths in self.data_files.values() for path in paths)),
            collection_fingerprint(load_collection(self.collection)),
        ]
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class BasicBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds basic data (MINT, SIGIR 2025: what the warm-up learns from) from KILT JSONL: records with "id", "input" and
    "output", a list of items with an "answer", a "provenance" (list of {"title": ...}), or both.

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
    ```
    """

    BUILDER_CONFIG_CLASS = BasicConfig

    def _info(self):
        return datasets.DatasetInfo(features=SAMPLE_FEATURES)

    def _split_generators(self, dl_manager):
        collection = load_collection(self.config.collection)
        self._titles = collection["title"][:]
        self._by_section = collection_granularity(collection) == "section"
        documents = list(enumerate(zip(page_titles(collection), self._titles, strict=True)))[::-1]
        self._row_of_section = {(page, title): row for row, (page, title) in documents}
        # A page's lead section, and the first of its rows where it has none.
        self._row_of_page = {page: row for row, (page, _) in documents} | {
            page: row for (page, title), row in self._row_of_section.items() if title == page
        }
        found = {split for _, _, split in self._records()}
        if not found:
            raise ValueError(f"No record in {self.config.data_files}. Check the data files.")
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in SPLITS if split in found]

    def _records(self):
        for file_split, paths in self.config.data_files.items():
            for path in paths:
                for place, record in read_json_lines(path):
                    split = (record.get("meta") or {}).get("split", file_split)
                    if split not in SPLITS:
                        raise ValueError(f"{place}: split '{split}' is not one of {SPLITS}. Mend meta.split.")
                    yield place, record, split

    def _generate_examples(self, split):
        dropped = 0
        seen = {}
        for place, record, record_split in self._records():
            if record_split != split:
                continue
            sample = self._to_sample(place, record)
            if sample is None:
                dropped += 1
                continue
            if sample["id"] in seen:
                raise ValueError(f"{place}: id '{sample['id']}' was taken at {seen[sample['id']]}. Make ids unique.")
            seen[sample["id"]] = place
            yield sample["id"], sample
        if dropped:
            logger.warning("%s: dropped %d records, no evidence of theirs is in the collection.", split, dropped)

    def _to_sample(self, place, record):
        record_id, query, output = record.get("id"), record.get("input"), record.get("output") or []
        if not isinstance(record_id, str | int) or not isinstance(query, str) or not query.strip():
            raise ValueError(
                f"{place}: a KILT record needs 'id' and a non-empty 'input'. Add them or delete the line."
            )
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            raise ValueError(f"{place}: 'output' must be a list of objects with 'answer' and 'provenance'.")
        evidence_sets = [self._rows(place, item) for item in output if item.get("provenance")]
        provenance = _distinct(evidence for evidence in evidence_sets if evidence is not None)
        if evidence_sets and not provenance:
            return None
        rows = _distinct(row for evidence in provenance for row in evidence)
        return new_sample(
            id=str(record_id),
            task=self.config.task,
            query=query.strip(),
            answers=_distinct(item["answer"].strip() for item in output if item.get("answer")),
            docids=[self._titles[row] for row in rows],
            rows=rows,
            provenance=[[self._titles[row] for row in evidence] for evidence in provenance],
            source="labelled",
        )

    def _rows(self, place, item) -> list[int] | None:
        """Rows of one evidence set, or None if the collection lacks one of them and that is to be dropped."""
        if not all(isinstance(page, dict) and isinstance(page.get("title"), str) for page in item["provenance"]):
            raise ValueError(
                f"{place}: every provenance needs a 'title' as a string. Add it or delete the provenance."
            )
        rows = []
        for evidence in item["provenance"]:
            page, sections = normalize_title(evidence["title"]), []
            if self._by_section:
                sections = kilt_section_titles(str(evidence.get("section") or ""))
            docid = section_docid(page, *sections)
            row = self._row_of_section.get((page, docid)) if sections else self._row_of_page.get(page)
            if row is not None:
                rows.append(row)
            elif self.config.on_missing_provenance == "drop":
                return None
            else:
                raise ValueError(
                    f"{place}: provenance title '{docid}' is not in {self.config.collection}. Mend the "
                    'title, add the document, or pass on_missing_provenance="drop".'
                )
        return _distinct(rows)


def _distinct(items) -> list:
    distinct = []
    for item in items:
        if item not in distinct:
            distinct.append(item)
    return distinct
