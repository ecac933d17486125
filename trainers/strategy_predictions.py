"""What models reply to any queries, strategy by strategy, in blocks; and the documents found, as KILT's provenance."""

import json
import os
from collections.abc import Iterable, Sequence

from datasets import Dataset

from modeling_mint import MintProcessor, StrategyInference
from modeling_mint.processing_mint import collection_granularity

from .blocks import in_blocks

BLOCK_SIZE = 64
"""Queries of a block: what an interrupted evaluation loses at most."""


def predict_strategies(
    queries: Sequence[str],
    processor: MintProcessor,
    strategies: Iterable[str],
    folder: str | os.PathLike,
    *,
    rag=None,
    gar=None,
    **options,
) -> dict[str, list[dict]]:
    """
    Replies to queries by each strategy. Work that was interrupted goes on where it was, and processes share it, see
    [`~trainers.blocks.in_blocks`].

    Args:
        queries (`Sequence[str]`):
            Queries.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        strategies (`Iterable[str]`):
            Strategies to run.
        folder (`str` or `os.PathLike`):
            Folder of the finished blocks. It must belong to the same queries, models, strategies and options.
        rag, gar ([`MintForConditionalGeneration`], *optional*):
            The models that the strategies need.
        **options:
            As for [`StrategyInference`].

    Returns:
        `dict[str, list[dict]]`: by strategy, per query: `answer`, `score` (its confidence) and `rows` (ranked rows of
        the collection).
    """
    strategies = list(strategies)

    def reply(items: range) -> list[dict]:
        chosen = [queries[item] for item in items]
        inference = StrategyInference(chosen, processor, rag=rag, gar=gar, **options)
        outputs = {strategy: inference.run(strategy) for strategy in strategies}
        return [
            {
                name: {"answer": out.answers[place], "score": out.scores[place], "rows": out.rows[place]}
                for name, out in outputs.items()
            }
            for place in range(len(items))
        ]

    replies = in_blocks(len(queries), BLOCK_SIZE, folder, reply)
    return {strategy: [one[strategy] for one in replies] for strategy in strategies}


def kilt_provenance(rankings: Sequence[Sequence[int]], collection: Dataset) -> list[list[dict]]:
    """
    Ranked rows of the collection as provenance in KILT's format.

    Args:
        rankings (`Sequence[Sequence[int]]`):
            Rows per query, best first.
        collection (`datasets.Dataset`):
            The collection.

    Returns:
        `list[list[dict]]`: per query and row, "wikipedia_id" where the document has one, "title" (of the page) and, of
        a collection of sections, "section": its headings from the page down, joined by commas, empty for the lead.
    """
    distinct = sorted({row for ranking in rankings for row in ranking})
    pieces = dict(zip(distinct, map(_piece, collection.select(distinct)), strict=True))
    if collection_granularity(collection) == "title":
        for piece in pieces.values():
            del piece["section"]
    return [[pieces[row] for row in ranking] for ranking in rankings]


def _piece(document: dict) -> dict:
    page = document.get("page", document["title"])
    page_id = json.loads(document["metadata"]).get("wikipedia_id")
    section = document["title"].removeprefix(page).removeprefix(", ")
    return ({} if page_id is None else {"wikipedia_id": str(page_id)}) | {"title": page, "section": section}
