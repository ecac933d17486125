"""The data of the reproduction: the collection, the articles to train on, the labels, the auxiliary samples."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from settings import BRIEF_DOCUMENT_CHARS, HELD_OUT, MAX_DOCUMENT_CHARS, Settings, document_chars

from dataset_builders.auxiliary import AuxiliaryBuilder
from dataset_builders.basic import BasicBuilder
from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import SAMPLE_FEATURES, new_sample
from dataset_builders.quality import QualityArguments
from dataset_builders.writing import build, load_collection, write_collection, write_text
from modeling_mint import MintProcessor
from trainers.baselines import longest_title_match
from trainers.kilt_predictions import GoldQuery, read_gold

TITLE = ("title",)


class Data:
    """
    What the rows of the table are computed from. All but the labels is the same for each number of labels and seed.

    Args:
        settings ([`Settings`]): number of labels and seed, and where things are.
        quality ([`QualityArguments`]): which replies of the external LLM are kept.
    """

    def __init__(self, settings: Settings, quality: QualityArguments):
        self.settings, self.quality = settings, quality
        self.cache = str(settings.root / "cache")

    @cached_property
    def collection(self) -> str:
        """Folder (`str`) of the collection."""
        folder = self.settings.root / "mint-collection"
        if not folder.is_dir():
            builder = CollectionBuilder(cache_dir=self.cache, data_files=self.settings.collection, format="documents")
            write_collection(build(builder)["train"], folder)
        return str(folder)

    @cached_property
    def processor(self) -> MintProcessor:
        """The processor ([`MintProcessor`]), a trie over all titles of the collection in it."""
        return self._processor(document_chars(len(self.train)))

    @cached_property
    def index_processor(self) -> MintProcessor:
        """The processor ([`MintProcessor`]) of the index stage, which is the same for each number of labels."""
        return self._processor(MAX_DOCUMENT_CHARS)

    @cached_property
    def brief_processor(self) -> MintProcessor:
        """The processor ([`MintProcessor`]) of documents that are shortened further."""
        return self._processor(BRIEF_DOCUMENT_CHARS)

    def _processor(self, max_document_chars: int) -> MintProcessor:
        return MintProcessor.from_backbone_pretrained(
            self.settings.backbone, load_collection(self.collection), max_document_chars=max_document_chars
        )

    @cached_property
    def retriever(self) -> Bm25Retriever:
        """BM25 over the collection ([`Bm25Retriever`])."""
        collection = self.processor.collection
        return Bm25Retriever(collection["title"][:], collection["text"][:])

    @cached_property
    def index_rows(self) -> list[int]:
        """
        Rows (`list[int]`) of the unlabelled articles to train on: those whose titles most other articles mention. No
        query, not even of the training labels, has a part in the choice.

        Raises:
            ValueError: if the folder belongs to another number of articles.
        """
        titles, path = self.processor.collection["title"][:], self.settings.kept / "index_titles.json"
        if not path.is_file():
            mentions = Counter()
            for own, found in zip(
                titles, longest_title_match(self.processor.collection["text"][:], titles, 100), strict=True
            ):
                mentions.update(set(found) - {own})
            chosen = sorted(dict.fromkeys(titles), key=lambda title: -mentions[title])[
                : self.settings.num_index_documents
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_titles(path, chosen)
        chosen = set(json.loads(path.read_text(encoding="utf-8")))
        if len(chosen) != min(self.settings.num_index_documents, len(set(titles))):
            raise ValueError(
                f"{path} names {len(chosen)} articles, not {self.settings.num_index_documents}: choose another "
                "--results, or give the number that the folder was begun with."
            )
        return [row for row, title in enumerate(titles) if title in chosen]

    @cached_property
    def index_samples(self) -> Dataset:
        """The bare articles to train on ([`datasets.Dataset`]), for `document_to_docid`."""
        return self.bare_articles(self.index_rows)

    def bare_articles(self, rows: Iterable[int]) -> Dataset:
        """The articles of these rows as samples ([`datasets.Dataset`])."""
        titles = self.processor.collection["title"][:]
        samples = [
            new_sample(id=f"collection-{row}", docids=[titles[row]], rows=[row], source="collection") for row in rows
        ]
        return Dataset.from_list(samples, features=SAMPLE_FEATURES)

    @cached_property
    def _labelled(self) -> dict[str, Dataset]:
        files = {"train": self.settings.train, "test": self.settings.dev}
        return build(BasicBuilder(cache_dir=self.cache, data_files=files, collection=self.collection))

    @cached_property
    def _draw(self) -> tuple[list[int], list[int]]:
        """Numbers of the labels to train on and of those to select by."""
        available = len(self._labelled["train"])
        number = self.settings.num_labels or available
        drawn = random.Random(self.settings.seed).sample(range(available), number)
        held_out = min(number // 5, 400)
        return sorted(drawn[held_out:]), sorted(drawn[:held_out])

    @property
    def train(self) -> Dataset:
        """The labels to train on ([`datasets.Dataset`])."""
        return self._labelled["train"].select(self._draw[0])

    @property
    def readable(self) -> Dataset:
        """The labels to train on whose answer stands in their article, as a model reads it ([`datasets.Dataset`])."""

        def answered(sample: dict) -> bool:
            length = self.processor.max_document_chars
            texts = [self.processor.document(row)[1][:length].lower() for row in sample["rows"]]
            return any(answer.lower() in text for answer in sample["answers"] for text in texts)

        return self.train.select([index for index, sample in enumerate(self.train) if answered(sample)])

    @property
    def labelled_titles(self) -> list[str]:
        """Titles (`list[str]`) of the articles that the labels to train on have, sorted."""
        return sorted({title for evidence in self.train["provenance"][:] for titles in evidence for title in titles})

    @property
    def unlabelled_rows(self) -> list[int]:
        """Rows (`list[int]`) of the articles that no label to train on has: what co-training may ask about."""
        labelled = set(self.labelled_titles)
        return [row for row, title in enumerate(self.processor.collection["title"]) if title not in labelled]

    @property
    def validation(self) -> Dataset:
        """The labels held out, to select models by ([`datasets.Dataset`])."""
        return self._labelled["train"].select(self._draw[1])

    @cached_property
    def calibration(self) -> Dataset:
        """The labels to calibrate by, and the further queries where there are such ([`datasets.Dataset`])."""
        if not self.settings.questions:
            return self.validation
        files = {"train": self.settings.questions}
        builder = BasicBuilder(cache_dir=self.cache, data_files=files, collection=self.collection)
        return concatenate_datasets([self.validation, build(builder)["train"]])

    @cached_property
    def _not_drawn(self) -> dict[str, list[int]]:
        """Positions of the labels that were not drawn, by what they serve for. Answers may be held out too."""
        drawn = {position for part in self._draw for position in part}
        rest = [position for position in range(len(self._labelled["train"])) if position not in drawn]
        random.Random(self.settings.seed).shuffle(rest)
        number, meta = min(HELD_OUT, len(rest) // 2), self._labelled["train"]["metadata"][:]
        answers = [position for position in rest if _asks_what_stands_there(meta[position])]
        more = [position for position in rest[number:] if position not in set(answers)]
        return {"held_out": rest[:number], "answers": answers, "more": more}

    @property
    def more_labels(self) -> Dataset:
        """Labels that were not drawn and by which nothing is judged, in random order ([`datasets.Dataset`])."""
        return self._labelled["train"].select(self._not_drawn["more"])

    @cached_property
    def judged(self) -> Dataset:
        """
        The queries that all systems are judged by ([`datasets.Dataset`]), see `judged_on` of [`Settings`].

        Raises:
            ValueError: if no label was left to judge by.
        """
        if self.settings.judged_on == "dev":
            return self._labelled["test"]
        positions = self._not_drawn[self.settings.judged_on]
        if not positions:
            raise ValueError(
                f"--judged_on {self.settings.judged_on} takes labels that were not drawn; --num_labels "
                f"{self.settings.num_labels} leaves none. Judge on dev."
            )
        return self._labelled["train"].select(positions)

    @property
    def judged_gold(self) -> list[GoldQuery]:
        """What is right of them (`list[GoldQuery]`), in their order."""
        file = self.settings.dev if self.settings.judged_on == "dev" else self.settings.train
        gold = {query.id: query for query in read_gold(file, TITLE)}
        return [gold[id_] for id_ in self.judged["id"][:]]

    @cached_property
    def auxiliary(self) -> Dataset:
        """
        What the external LLM wrote about the articles to train on, as far as the quality filters keep it
        ([`datasets.Dataset`]).
        """
        builder = AuxiliaryBuilder(
            cache_dir=self.cache,
            collection=self.collection,
            llm=self.settings.llm or self.settings.backbone,
            journal=str(self.settings.root / "auxiliary"),
            rows=self.index_rows,
            num_related=2,
            quality=self.quality,
        )
        return build(builder)["train"]


def _asks_what_stands_there(metadata: str) -> bool:
    meta = json.loads(metadata)
    return meta.get("task") == "open_qa" and bool(meta.get("answer_in_document"))


def write_titles(path: Path, titles: list[str]) -> None:
    """
    Writes titles as JSON, one a line.

    Args:
        path (`pathlib.Path`): file to write, whole or not at all.
        titles (`list[str]`): the titles.
    """
    write_text(path, json.dumps(titles, ensure_ascii=False, indent=1) + "\n")
