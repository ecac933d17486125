import json
import re

import pytest
from PIL import Image

from dataset_builders.quality import Candidate, Verdict
from dataset_builders.quality_report import NUM_EXAMPLES, quality_report, write_quality_report

HOSTILE = "a|b\n<script>alert(1)</script> [x](http://y) `code` **bold** ![i](j)"


@pytest.fixture
def judged():
    """15 kept (5 of them without their answer), 10 no questions, 1 not in the form."""
    verdicts = [Verdict(None, None)] * 10 + [Verdict(None, "answer in the query")] * 5
    verdicts += [Verdict("not a question", None)] * 10 + [Verdict("not in the form asked for", None)]
    candidates = [
        Candidate(i, "Eiffel Tower" if i % 2 else HOSTILE, "text", "text", f"Who built Eiffel Tower {i}?", "Eiffel")
        for i in range(25)
    ] + [Candidate(25, "Cat", "text", "text", "", "")]
    return candidates, verdicts


def test_counts_are_the_true_counts(judged):
    report = quality_report(*judged, {"cost": 0.5})
    assert (report["candidates"], report["kept"], report["kept_with_answer"]) == (26, 15, 10)
    assert report["dropped"] == {"not a question": 10, "not in the form asked for": 1}
    assert report["answers_dropped"] == {"answer in the query": 5}
    assert report["title_in_query"] == {"all": 12 / 25, "kept": 7 / 15}
    assert report["query_words"] == {"all": {"5": 25}, "kept": {"5": 15}}
    assert report["facts"] == {"cost": 0.5}


def test_ten_examples_of_each_are_spread_over_what_they_were_dropped_for(judged):
    examples = quality_report(*judged, {})["examples"]
    assert len(examples["kept"]) == len(examples["dropped"]) == NUM_EXAMPLES
    assert {one["dropped_for"] for one in examples["dropped"]} == {"not a question", "not in the form asked for"}
    assert {one["answer_dropped_for"] for one in examples["kept"]} == {None, "answer in the query"}
    assert len({one["query"] for one in examples["kept"]}) == NUM_EXAMPLES


def test_three_files_are_written_and_nothing_else(judged, tmp_path):
    write_quality_report(*judged, tmp_path / "report", {"model": "tiny"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md", "report.png"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == quality_report(
        *judged, {"model": "tiny"}
    )
    with Image.open(tmp_path / "report.png") as image:
        assert image.width > 500
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| dropped: not a question | 10 | 38.5% |" in text and "| **kept** | 15 | 57.7% |" in text
    assert "- model: tiny" in text


def test_no_text_of_a_document_becomes_markup(judged, tmp_path):
    write_quality_report(*judged, tmp_path / "report", {"model": HOSTILE})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert HOSTILE.splitlines()[1] not in text and r"\<script\>alert(1)\</script\> \[x\](http://y)" in text
    assert re.search(r"(?<!\\)[<>`]", text) is None
    for table in text.split("\n\n"):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_nothing_written_is_reported_as_nothing(tmp_path):
    write_quality_report([], [], tmp_path / "report", {})
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["candidates"] == report["kept"] == 0 and report["title_in_query"] == {"all": None, "kept": None}
    assert (tmp_path / "report.png").is_file()
