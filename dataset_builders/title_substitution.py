"""Queries that name their article, made to ask the same of others: they teach to find what no label has."""

import random
from collections import Counter
from collections.abc import Iterable

from datasets import Dataset

from .bm25 import Bm25Retriever, related_rows
from .features import SAMPLE_FEATURES, new_sample
from .title_forms import TitleForms
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

    A title stands in a query in one of the forms of [`TitleForms`], and another is put there in the same: "Trumpets
    purify water" from "Drums purify water".

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
            Most related documents of an article to draw from, see [`related_rows`]: those first that were drawn the
            least often, at random among equals. Left out are those whose title stands in the query already, and those
            that share the form with another.
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
    forms = TitleForms(titles)
    find = TitleMentions([*titles, *forms.names]).find

    about = []
    for sample in samples:
        row = _own_row(sample)
        if row is not None:
            others = find(sample["query"])
            own = {"title": titles[row], "name": forms.names[row], **forms.of(row)}
            form, mentions = _own_mentions(sample["query"], own, others)
            if mentions:
                about.append((sample, row, form, mentions, {name for one in others for name in one.titles}))

    rng, drawn = random.Random(seed), Counter()
    related = related_rows(collection, [row for _, row, *_ in about], num_related, retriever)
    made = []
    for (sample, _, form, mentions, named), candidates in zip(about, related, strict=True):
        unnamed = [row for row in candidates if not {titles[row], forms.names[row]} & named]
        fit = [(row, text) for row in unnamed if (text := forms.of(row).get(form))]
        rng.shuffle(fit)
        for row, text in sorted(fit, key=lambda one: drawn[one[0]])[:copies]:
            drawn[row] += 1
            made.append(
                new_sample(
                    id=f"{sample['id']}-{row}",
                    task=sample["task"],
                    query=_substituted(sample["query"], mentions, text),
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


def ask_of_others(
    labelled: Dataset,
    collection: Dataset,
    rows: Iterable[int],
    number: int,
    retriever: Bm25Retriever | None = None,
    seed: int | str = 42,
) -> dict[int, str]:
    """
    Queries for unlabelled documents: each a labelled query of a related one, with another title in it.

    Args:
        labelled (`datasets.Dataset`):
            Labelled samples in the common schema.
        collection (`datasets.Dataset`):
            Documents with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`].
        rows (`Iterable[int]`):
            Rows of the documents that may be asked about.
        number (`int`):
            Documents to ask about, at most: there are as many as labels have related ones among `rows`.
        retriever ([`Bm25Retriever`], *optional*):
            Over this collection, see [`substitute_titles`].
        seed (`int` or `str`, *optional*, defaults to 42):
            Seed of the draw.

    Returns:
        `dict[int, str]`: a query by row, rows ascending.

    Raises:
        ValueError: if no labelled query names its document, or none has a related one among `rows`.
    """
    wanted, queries = set(rows), {}
    # Twice as many as are wanted: some copies ask about the same document, or about none of `rows`.
    copies = -(-2 * number // max(1, len(labelled)))
    made = substitute_titles(labelled, collection, copies, retriever=retriever, seed=seed)
    for (row,), query in zip(made["rows"][:], made["query"][:], strict=True):
        if row in wanted:
            queries.setdefault(row, query)
    if not queries:
        raise ValueError(
            f"None of {len(labelled)} labelled queries can be asked of another document: they do not name theirs, or "
            f"no related one is among the {len(wanted)} unlabelled ones. Have the models write their queries."
        )
    drawn = random.Random(seed).sample(sorted(queries), min(number, len(queries)))
    return {row: queries[row] for row in sorted(drawn)}


def _own_row(sample: dict) -> int | None:
    """The one document that a sample is about, if it is one to learn from and there is one."""
    rows = {"labelled": sample["rows"], "rag": sample["rows"][:1], "gar": sample["rows"][:1]}.get(sample["source"], [])
    return rows[0] if len(rows) == 1 else None


def _own_mentions(query: str, forms: dict[str, str], others: list[Mention]) -> tuple[str, list[Mention]]:
    """The first form in which the query names its article, and where, unless that is inside a longer title."""
    for form, text in forms.items():
        mentions = [
            one
            for one in TitleMentions([text]).find(query)
            if not any(other.start <= one.start and one.end <= other.end and other[:2] != one[:2] for other in others)
        ]
        if mentions:
            return ("name" if form == "title" else form), mentions
    return "", []


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
