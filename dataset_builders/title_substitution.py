"""Queries that name their article, made to ask the same of others: they teach to find what no label has."""

import random
from collections import Counter
from collections.abc import Iterable

from datasets import Dataset

from modeling_mint.tasks_mint import without_brackets

from .bm25 import Bm25Retriever, related_rows
from .features import SAMPLE_FEATURES, new_sample
from .title_mentions import Mention, TitleMentions


def substitute_titles(
    samples: Iterable[dict],
    collection: Dataset,
    copies: int,
    *,
    num_related: int = 40,
    retriever: Bm25Retriever | None = None,
    seed: int | str = 42,
) -> Dataset:
    """
    Puts the titles of related articles in the place of the one that a query names and that is its docid: "Whisky grows
    taller than a pine tree" from "Bamboo grows taller than a pine tree".

    Which of the articles that it names a query is about stands in how it is put, and that does not change. So few
    labels teach that for the whole collection, where by themselves they teach the articles that they have. What is
    said need not be true any more: nothing but the retrieval tasks is derived from such samples, see
    [`training_examples`]. The answer stays, as what GAR has beside the query.

    Entity substitution is known from question answering (Longpre et al. 2021, "Entity-based knowledge conflicts in
    question answering"), where it tests what a reader believes.

    Args:
        samples (`Iterable[dict]`):
            Samples in the common schema. Those of humans with one docid and those of the two models serve, if their
            query names the docid (of a model's ranking the first): not as a part of another title only, such as
            "Korea" in "North Korea".
        collection (`datasets.Dataset`):
            Documents with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`].
        copies (`int`):
            Samples to make of each, at most.
        num_related (`int`, *optional*, defaults to 40):
            Most related documents of an article to draw from, see [`related_rows`]. Left out are those whose title
            stands in the query already, and those whose name two articles share.
        retriever ([`Bm25Retriever`], *optional*):
            Over this collection. Defaults to one that is made here where it is needed.
        seed (`int` or `str`, *optional*, defaults to 42):
            Seed of the draw.

    Returns:
        `datasets.Dataset`: samples with source "substituted", in the order of what they were made from.

    Raises:
        ValueError: if `copies` is below 1.
    """
    if copies < 1:
        raise ValueError(f"`copies` is {copies}; it must be at least 1.")
    titles = collection["title"][:]
    names = [without_brackets(title) for title in titles]
    shared = {name for name, number in Counter(names).items() if number > 1}
    find = TitleMentions([*titles, *names]).find

    about = []
    for sample in samples:
        row = _own_row(sample)
        mentions = [] if row is None else _outermost(find(sample["query"]))
        own = [] if row is None else [one for one in mentions if {titles[row], names[row]} & set(one.titles)]
        if own:
            about.append((sample, row, own, {name for one in mentions for name in one.titles}))

    rng = random.Random(seed)
    related = related_rows(collection, [row for _, row, _, _ in about], num_related, retriever)
    made = []
    for (sample, _, own, named), candidates in zip(about, related, strict=True):
        fit = [row for row in candidates if names[row] not in named | shared]
        for row in rng.sample(fit, min(copies, len(fit))):
            made.append(
                new_sample(
                    id=f"{sample['id']}-{row}",
                    task=sample["task"],
                    query=_substituted(sample["query"], own, names[row]),
                    answers=sample["answers"],
                    docids=[titles[row]],
                    rows=[row],
                    provenance=[[titles[row]]],
                    source="substituted",
                    model=sample["model"],
                    iteration=sample["iteration"],
                    confidence=sample["confidence"],
                )
            )
    # By columns: `from_list` knows none when there is no sample.
    return Dataset.from_dict({name: [one[name] for one in made] for name in SAMPLE_FEATURES}, features=SAMPLE_FEATURES)


def _own_row(sample: dict) -> int | None:
    """The one document that a sample is about, if it is one to learn from and there is one."""
    rows = {"labelled": sample["rows"], "rag": sample["rows"][:1], "gar": sample["rows"][:1]}.get(sample["source"], [])
    return rows[0] if len(rows) == 1 else None


def _outermost(mentions: list[Mention]) -> list[Mention]:
    """The mentions that are not inside a longer one."""
    outermost = []
    for mention in mentions:  # by where they start, the longest first
        if not outermost or mention.end > outermost[-1].end:
            outermost.append(mention)
    return outermost


def _substituted(query: str, mentions: list[Mention], name: str) -> str:
    for mention in reversed(mentions):
        written = query[mention.start : mention.end]
        query = query[: mention.start] + _cased_alike(name, written, query) + query[mention.end :]
    return query


def _cased_alike(name: str, written: str, query: str) -> str:
    """The name in the letter case of what stood there: titles begin with a capital, common nouns do not."""
    if query.islower():
        return name.lower()
    if written[0].islower() and name[1:] == name[1:].lower():
        return name[0].lower() + name[1:]
    return name
