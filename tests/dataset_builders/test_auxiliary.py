import json

import pytest

from dataset_builders.auxiliary import (
    AuxiliaryBuilder,
    ask_with_journal,
    parse_reply,
    read_journal,
    split_passages,
)
from dataset_builders.writing import build


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        (" Who built it?\nAnswer: Eiffel.", ("Who built it?", "Eiffel")),
        ("Question: Who built it?\nAnswer: Eiffel\n", ("Who built it?", "Eiffel")),
        (' Who?\nAnswer: "Iron"', ("Who?", "Iron")),
        (" Who built it? Answer: Eiffel", ("", "")),
        (" Who built it?\nAnswer: Eiffel\nPassage: more", ("", "")),
        (" Who built it?\nAnswer:", ("", "")),
        ("", ("", "")),
    ],
)
def test_only_the_form_asked_for_is_read(reply, parsed):
    assert parse_reply(reply) == parsed


def test_passages_end_with_sentences_fit_and_lose_nothing():
    text = "One is here. Two is  here! Three\n\nis here? Fourfourfourfourfourfour."
    passages = split_passages("T", text, 26)
    assert passages == ["One is here. Two is here!", "T: Three is here?", "T: Fourfourfourfourfourfour."]
    assert split_passages("T", "x" * 100_000, 40_000)[0] == "x" * 40_000
    assert split_passages("T", " ", 10) == []


def test_passages_of_a_later_section_all_say_whose_they_are():
    passages = split_passages("Paris, History", "It is old. Romans came.", 12, opens_page=False)
    assert passages == ["Paris, History: It is old.", "Paris, History: Romans came."]


@pytest.fixture
def build_auxiliary(chat_server, collection_folder, cache_dir, tmp_path):
    """A server that writes a good question about one document, a bad one about the others."""

    def reply_to(prompt):
        passage = prompt.rpartition("Passage: ")[2]
        if passage.startswith("The cat"):
            return " Which small animal does the cat hunt?\nAnswer: mice\n\nPassage: and so on"
        return " I am a helpful assistant."

    chat_server.reply_to = reply_to

    def run(**options):
        options = {"journal": str(tmp_path / "journal.jsonl"), "num_related": 1} | options
        return build(
            AuxiliaryBuilder(cache_dir=cache_dir, collection=collection_folder, llm=chat_server.url, **options)
        )["train"]

    return run


def test_a_good_reply_becomes_a_sample_of_its_document_and_the_report_counts_the_others(build_auxiliary, tmp_path):
    samples = build_auxiliary(num_documents=100)
    assert len(samples) == 1
    sample = samples[0]
    assert sample["query"] == "Which small animal does the cat hunt?" and sample["answers"] == ["mice"]
    assert sample["docids"] == ["Cat", "Mouse"] and sample["rows"] == [3, 4] and sample["provenance"] == [["Cat"]]
    assert sample["source"] == "llm" and sample["model"] == "tiny-chat"
    report = json.loads((tmp_path / "journal.report.json").read_text())
    assert report == {"requests": 5, "kept": 1, "dropped: not in the form asked for": 4}


def test_the_rows_given_are_the_documents_asked_about(build_auxiliary, chat_server):
    assert build_auxiliary(rows=[4, 3])["id"][:] == ["llm-3-1"]
    assert len(chat_server.bodies) == 2


def test_nobody_is_asked_twice_after_an_interruption(build_auxiliary, chat_server, tmp_path):
    whole = build_auxiliary().to_list()
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == len(chat_server.bodies) == 5
    # Another journal, so that not the builder's own cache answers: three replies, and a fourth torn in the middle.
    (tmp_path / "torn.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert build_auxiliary(journal=str(tmp_path / "torn.jsonl")).to_list() == whole
    assert len(chat_server.bodies) == 7
    assert len(read_journal(tmp_path / "torn.jsonl")) == 5


def test_another_prompt_file_asks_anew(build_auxiliary, chat_server, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Write a question.")
    build_auxiliary(prompt_file=str(prompt))
    prompt.write_text("Write a good question.")
    build_auxiliary(prompt_file=str(prompt))
    assert len(chat_server.bodies) == 10
    assert chat_server.bodies[-1]["messages"][0]["content"].startswith("Write a good question.\n\nPassage: ")


def test_replies_before_a_failure_stay_in_the_journal(tmp_path):
    class Failing:
        name = "failing"

        def complete(self, prompts, *, shared_prefix):
            yield 1, "reply to " + prompts[1]
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        ask_with_journal(Failing(), "prefix", ["a", "b"], tmp_path / "new" / "journal.jsonl")
    assert list(read_journal(tmp_path / "new" / "journal.jsonl").values()) == ["reply to b"]


def test_a_foreign_line_in_the_journal_is_named(tmp_path):
    journal = tmp_path / "journal.jsonl"
    journal.write_text('{"key": "1", "reply": "x"}\n{"other": 1}\n')
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 2"):
        read_journal(journal)
