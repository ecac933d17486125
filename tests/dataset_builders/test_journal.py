import json
import logging

import pytest

from dataset_builders.journal import Journal
from dataset_builders.replies import QUERY_AND_ANSWER, Reply


class Capitals:
    """An LLM that answers in capitals, backwards, and fails behind `lasts` replies."""

    name = "capitals"
    chat = False

    def __init__(self, lasts=1000):
        self.lasts = lasts
        self.asked = []

    def complete(self, prompts, form, *, shared_prefix="", max_new_tokens=48):
        for index in reversed(range(len(prompts))):
            if len(self.asked) == self.lasts:
                raise ConnectionError("gone")
            self.asked.append(shared_prefix + prompts[index])
            yield index, Reply(prompts[index].upper(), 3, 1)


def texts(journal, llm, prompts):
    return [reply.text for reply in journal.ask(llm, "prefix ", prompts, QUERY_AND_ANSWER)]


def test_replies_come_in_the_order_of_the_prompts_and_equal_prompts_are_asked_once(tmp_path):
    llm, journal = Capitals(), Journal(tmp_path / "new")
    assert texts(journal, llm, ["a", "b", "a", "c"]) == ["A", "B", "A", "C"]
    assert llm.asked == ["prefix c", "prefix b", "prefix a"]
    lines = (tmp_path / "new" / "replies.jsonl").read_text().splitlines()
    first = {"key": Journal.key("capitals", "prefix c"), "reply": "C", "prompt_tokens": 3, "completion_tokens": 1}
    assert json.loads(lines[0]) == first and len(lines) == 3


def test_replies_before_a_failure_are_kept_and_only_the_others_asked_for_again(tmp_path):
    with pytest.raises(ConnectionError):
        texts(Journal(tmp_path), Capitals(lasts=2), ["a", "b", "c"])
    llm, journal = Capitals(), Journal(tmp_path)
    assert texts(journal, llm, ["a", "b", "c"]) == ["A", "B", "C"]
    assert llm.asked == ["prefix a"]
    usage = journal.usage(prompt_price=2e6, completion_price=1e6)
    assert usage == {
        "replies_from_journal": 2,
        "replies_asked_now": 1,
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "cost": 21.0,
    }


def test_writers_have_files_of_their_own_and_read_all(tmp_path):
    texts(Journal(tmp_path, "one"), Capitals(), ["a"])
    texts(Journal(tmp_path, "two"), Capitals(), ["b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jsonl", "two.jsonl"]
    llm = Capitals()
    assert texts(Journal(tmp_path, "three"), llm, ["b", "a"]) == ["B", "A"]
    assert llm.asked == [] and not (tmp_path / "three.jsonl").exists()


def test_a_torn_last_line_is_cut_off_the_own_file_only(tmp_path, caplog):
    for writer in ("one", "two"):
        texts(Journal(tmp_path, writer), Capitals(), [f"a{writer}", f"b{writer}"])
        path = tmp_path / f"{writer}.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
    torn = (tmp_path / "two.jsonl").read_bytes()
    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path, "one")
    assert len(journal.replies) == 2 and "two.jsonl ends in a torn line" in caplog.text
    assert (tmp_path / "one.jsonl").read_bytes().endswith(b"}\n")
    assert (tmp_path / "two.jsonl").read_bytes() == torn
    llm = Capitals()
    assert texts(journal, llm, ["aone", "bone"]) == ["AONE", "BONE"] and llm.asked == ["prefix aone"]
    assert len(Journal(tmp_path, "one").replies) == 3


def test_of_two_entries_with_one_key_the_first_counts(tmp_path, caplog):
    for name, reply in (("b", "second"), ("a", "first")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"key": "k", "reply": reply}) + "\n")
    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path)
    assert journal.replies["k"] == Reply("first", 0, 0) and journal.doubled == 1
    assert "1 entries" in caplog.text


@pytest.mark.parametrize("line", ['{"other": 1}', "[]", "1", "{", "", "\x00", '{"key": "2", "reply": null}'])
def test_a_malformed_line_is_named(line, tmp_path):
    (tmp_path / "shard.jsonl").write_text(f'{{"key": "1", "reply": "x"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"shard\.jsonl, line 2"):
        Journal(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(NotADirectoryError, match="expected a folder"):
        Journal(tmp_path / "journal.jsonl")
