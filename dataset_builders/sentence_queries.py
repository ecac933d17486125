"""Sentences of bare documents as queries: they teach to find a document by what it says, in a query's length."""

import random
import re
from collections.abc import Iterable

from datasets import Dataset

from modeling_mint.tasks_mint import mask_title, shorten

from .features import SAMPLE_FEATURES, new_sample
from .passages import single_line
from .title_forms import TitleForms

MIN_CHARS, MAX_CHARS = 30, 200
SHORT_FORM_SHARE = 0.75
LOWER_CASE_SHARE = 0.3


def sentence_queries(
    collection: Dataset, rows: Iterable[int], per_document: int, *, answer: str = "", seed: int | str = 42
) -> Dataset:
    """
    Takes sentences of documents as queries whose docid is the document's: "Chadwick was knighted in Britain in 1945."
    leads to "James Chadwick". No label has a part in it, so that each document of a collection has some.

    People seldom write a title in full: they write a last name, or a word without what stands in brackets behind it.
    Three of four sentences name their document so, where it has such a form ([`TitleForms`]) and the sentence has its
    title or begins with a pronoun. In the others the title is masked as `document_to_docid` masks it, so that what the
    document says has to be known. Three of ten are in small letters, as questions to a search engine often are.

    Sentences as queries are known from retrieval by generated titles, where the title stays in them (inner sentence
    selection in Chen et al. 2022, "CorpusBrain: Pre-train a Generative Retrieval Model for Knowledge-Intensive
    Language Tasks").

    Args:
        collection (`datasets.Dataset`):
            Documents with the columns of [`~dataset_builders.features.COLLECTION_FEATURES`], or of sections; these
            name their page.
        rows (`Iterable[int]`):
            Rows of the documents to take sentences of.
        per_document (`int`):
            Sentences of each, at most: the first, which most often says what the title is, then others at random.
            Shorter ones than 30 characters are left out, longer ones than 200 are cut there.
        answer (`str`, *optional*):
            What GAR has beside the query: "SUPPORTS" where queries are claims, which a document's sentences are.
            Without it GAR learns nothing from them.
        seed (`int` or `str`, *optional*, defaults to 42):
            Seed of all draws.

    Returns:
        `datasets.Dataset`: samples with source "sentence", in the order of `rows`.

    Raises:
        ValueError: if `per_document` is below 1.
    """
    if per_document < 1:
        raise ValueError(f"`per_document` is {per_document}; it must be at least 1.")
    rows, docids = list(rows), collection["title"][:]
    # Sections speak of their page.
    titles = collection["page"][:] if "page" in collection.column_names else docids
    forms = TitleForms(titles)
    rng = random.Random(seed)
    made = []
    for row, text in zip(rows, collection.select(rows)["text"], strict=True):
        short = forms.of(row)
        name = short.get("last word") or (short.get("name") if forms.names[row] != titles[row] else None)
        for number, sentence in _drawn(_sentences(text), per_document, rng):
            named = name is not None and rng.random() < SHORT_FORM_SHARE
            query = shorten(
                _naming(sentence, titles[row], name) if named else mask_title(sentence, titles[row]), MAX_CHARS
            )
            made.append(
                new_sample(
                    id=f"sentence-{row}-{number}",
                    query=query.lower() if rng.random() < LOWER_CASE_SHARE else query,
                    answers=[answer] if answer else [],
                    docids=[docids[row]],
                    rows=[row],
                    provenance=[[docids[row]]],
                    source="sentence",
                )
            )
    # By columns: `from_list` knows none when there is no sample.
    return Dataset.from_dict({name: [one[name] for one in made] for name in SAMPLE_FEATURES}, features=SAMPLE_FEATURES)


def _sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?]) (?=[^\Wa-z])", single_line(text))
    return [part for part in parts if len(part) >= MIN_CHARS]


def _drawn(sentences: list[str], number: int, rng: random.Random) -> list[tuple[int, str]]:
    """The first and some of the others, with their places, in order."""
    others = range(1, len(sentences))
    places = [0, *sorted(rng.sample(others, min(number - 1, len(others))))] if sentences else []
    return [(place, sentences[place]) for place in places]


def _naming(sentence: str, title: str, name: str) -> str:
    """The sentence with the short name in the place of the title, or of the pronoun that it begins with."""
    return re.sub(r"^(?:He|She|It|They)\b", lambda _: name, mask_title(sentence, title, mask=name))
