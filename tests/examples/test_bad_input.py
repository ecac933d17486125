import json
import socket
import sys

import pytest

from tests.examples.conftest import DOCUMENTS, QUESTIONS, ROOT, write_json_lines

LOST = QUESTIONS[0] | {"output": [{"answer": "x", "provenance": [{"title": "Atlantis"}]}]}


def test_malformed_line_ends_the_script_with_file_line_and_remedy_and_no_traceback(command, run, tmp_path):
    file = write_json_lines(tmp_path / "broken.jsonl", [DOCUMENTS[0], '{"title": "Moon", "text": '])
    ended = run([*command("run_mint", tmp_path / "run", collection=file), "--no_serve"])
    assert ended.returncode == 2
    assert f"error: {file}, line 2: not valid JSON" in ended.stderr and "Mend or delete this line" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unknown_strategy_is_refused_on_the_command_line_and_in_a_config_file(command, run, tmp_path):
    from arguments import parse_settings

    ended = run(command("run_mint", tmp_path, strategy="best"))
    assert ended.returncode == 2 and "'best'" in ended.stderr and "cascade" in ended.stderr
    config = tmp_path / "run.yaml"
    config.write_text("strategy: best\n")
    with pytest.raises(ValueError, match="strategy is 'best'; it must be one of rag, gar, ensemble, cascade"):
        parse_settings(["--config", str(config)])


@pytest.mark.parametrize(
    ("option", "records", "message"),
    [
        ("labelled", [*QUESTIONS, "not json"], r"input\.jsonl, line 13: not valid JSON.*Mend or delete this line"),
        ("labelled", [QUESTIONS[1], LOST], r"input\.jsonl, line 2: provenance title 'Atlantis' is not in .*Mend"),
        ("labelled", QUESTIONS[:6], r"input\.jsonl has no sample for test, validation: give each record its split"),
        ("collection", [""], r"The collection is empty: no document in .*input\.jsonl\. Check the data files"),
        ("collection", [{"title": "Moon"}], r"input\.jsonl, line 1: every document needs 'text' as a string"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_place_and_remedy(option, records, message, build_in_process, tmp_path):
    file = write_json_lines(tmp_path / "input.jsonl", records)
    with pytest.raises(ValueError, match=message):
        build_in_process(tmp_path / "run", **{option: file})


@pytest.mark.parametrize("option", ["collection", "labelled", "backbone", "llm"])
@pytest.mark.parametrize("path", ["nosuch.jsonl", "../nosuch", "/nosuch/folder", "examples/nosuch"])
def test_mistyped_path_is_an_error_and_is_not_looked_up_on_the_hub(
    option, path, build_in_process, tmp_path, monkeypatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_: pytest.fail(f"{host} was looked up"))
    with pytest.raises(FileNotFoundError, match=f"no file or folder '{path}'. Check the path"):
        build_in_process(tmp_path, **{option: path})


def test_folder_that_holds_no_backbone_is_refused_before_any_work(build_in_process, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError), match="empty"):
        build_in_process(tmp_path / "run", backbone=tmp_path / "empty")
    assert not (tmp_path / "run" / "mint-collection").exists()


def test_labelled_samples_of_another_collection_are_refused(finished, build_in_process, tmp_path):
    with pytest.raises(ValueError, match=r"is not row \d+ of the collection"):
        build_in_process(tmp_path / "run", labelled=finished[0] / "mint-pseudo", leaf_order="false")


def test_missing_options_and_malformed_task_rates_are_named(build_in_process, tmp_path):
    with pytest.raises(ValueError, match="Name the documents with --collection"):
        build_in_process(tmp_path, collection="")
    with pytest.raises(ValueError, match="--task_rates is not a JSON object"):
        build_in_process(tmp_path, task_rates="query_to_docid=3")


@pytest.mark.parametrize("name", ["title_substitutions", "sentence_queries"])
def test_numbers_of_made_queries_below_none_are_refused_before_any_work(build_in_process, tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is -1; it must be at least 0"):
        build_in_process(tmp_path, **{name: -1})


def test_error_that_no_user_made_keeps_its_traceback():
    from run_folder import plain_errors

    with pytest.raises(ValueError, match="Expecting value"), plain_errors():
        json.loads("")


def test_script_without_data_says_which_options_it_needs(run, tmp_path):
    ended = run([sys.executable, f"{ROOT}/examples/build_collection.py", "--output_dir", str(tmp_path)])
    assert ended.returncode == 2 and "--collection" in ended.stderr and "Traceback" not in ended.stderr
