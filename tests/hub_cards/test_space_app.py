"""The demo page: what it shows, what it refuses, and that a pushed Space answers over HTTP."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from datasets import Dataset
from gradio_client import Client

from hub_cards.push import plan_push
from hub_cards.space.app import MAX_QUERY_CHARACTERS, THEME, build_app, highlight, respond, score_bars
from modeling_mint import MintForConditionalGeneration, MintPipeline, MintProcessor
from tests.tiny import TITLES

QUERY = "Who designed the Eiffel Tower?"


@pytest.fixture(scope="module")
def ask(models):
    rag, gar = (MintForConditionalGeneration.from_pretrained(models / f"mint-{role}") for role in ("rag", "gar"))
    collection = Dataset.from_parquet(str(models / "mint-collection/data/*.parquet"), cache_dir=str(models / "cache"))
    processor = MintProcessor.from_pretrained(models / "mint-rag", collection=collection)
    return MintPipeline(model=rag, gar_model=gar, processor=processor)


@pytest.mark.parametrize("strategy", ["rag", "gar", "cascade"])
def test_answer_stands_beside_its_documents(ask, strategy):
    ((status, answer, confidence, scores, spans, comparison),) = respond(ask, f" {QUERY} ", strategy, 3, 0.0)
    reply = ask(QUERY, strategy=strategy, top_k=3)
    assert status.startswith(strategy)
    assert (answer, confidence) == (reply["answer"], reply["score"])
    assert scores == {document["title"]: document["score"] for document in reply["documents"]}
    assert len(scores) == 3 and set(scores) <= set(TITLES)
    assert [text for text, label in spans if label == "title"] == [f"{i}. {t}" for i, t in enumerate(scores, start=1)]
    assert comparison[0][0] == strategy


def test_ensemble_is_shown_first_and_then_beside_its_two_models(ask):
    steps = list(respond(ask, QUERY, "ensemble", 2, 0.0))
    assert len({step[1] for step in steps}) == 1
    assert [[row[0] for row in step[-1]] for step in steps] == [
        ["ensemble"],
        ["ensemble", "rag"],
        ["ensemble", "rag", "gar"],
    ]


def test_abstention_shows_no_answer_and_says_why(ask):
    ((status, answer, confidence, scores, _, comparison),) = respond(ask, QUERY, "rag", 3, 1.0)
    assert "below 1.00" in status and confidence < 1.0
    assert answer == "" and comparison[0][1] == "(none)"
    assert len(scores) == 3


@pytest.mark.parametrize("query", ["", "   \n\t", "x" * (MAX_QUERY_CHARACTERS + 1)])
def test_a_question_that_cannot_be_asked_gets_a_message(ask, query):
    ((status, answer, confidence, scores, spans, comparison),) = respond(ask, query, "ensemble", 3, 0.0)
    assert "question" in status or str(MAX_QUERY_CHARACTERS) in status
    assert (answer, confidence, scores, spans, comparison) == ("", None, None, [], [])


@pytest.mark.parametrize(
    "query", ["<script>alert(1)</script>", "谁设计了埃菲尔铁塔?", "'; DROP TABLE--", "</s><pad>", "\x00 ?"]
)
def test_hostile_questions_are_answered_like_others(ask, query):
    ((status, *_, comparison),) = respond(ask, query, "rag", 2, 0.0)
    assert status.startswith("rag") and comparison[0][3] in TITLES


def test_highlight_marks_whole_words_in_any_case_and_keeps_the_text():
    documents = [{"title": "Eiffel", "text": "EIFFEL built it. Eiffels did not; (Eiffel) did."}]
    spans = highlight(documents, "Eiffel")
    assert [text for text, label in spans if label == "answer"] == ["EIFFEL", "Eiffel"]
    assert "".join(text for text, _ in spans) == f"1. Eiffel\n{documents[0]['text']}\n\n"


@pytest.mark.parametrize("answer", ["", "C++ (a.b)*", "absent"])
def test_highlight_takes_any_answer_as_plain_text(answer):
    spans = highlight([{"title": "C++", "text": "<b>C++ (a.b)*</b>"}], answer)
    assert [text for text, label in spans if label == "answer"] == ([answer] if answer.startswith("C") else [])
    assert "".join(text for text, _ in spans) == "1. C++\n<b>C++ (a.b)*</b>\n\n"


def test_equal_titles_keep_a_bar_each():
    documents = [{"title": "Paris", "score": 0.5, "row": 3}, {"title": "Paris", "score": 0.25, "row": 9}]
    assert score_bars(documents) == {"Paris (row 3)": 0.5, "Paris (row 9)": 0.25}
    assert score_bars([]) is None


def test_page_shows_text_as_text_and_loads_nothing_from_elsewhere(ask):
    app = build_app(ask, len(TITLES), [QUERY])
    assert not app.analytics_enabled
    kinds = {component["type"] for component in app.get_config_file()["components"]}
    assert "html" not in kinds and {"highlightedtext", "label", "dataframe", "radio"} <= kinds
    assert THEME._stylesheets == []
    assert [component["type"] for component in app.get_config_file()["components"]].count("markdown") == 1


@pytest.mark.slow
def test_pushed_space_answers_over_http(run_folder, models, tmp_path):
    """The Space's files run as they were pushed, where the project's packages cannot be imported."""
    space = plan_push(run_folder, "my-org")[-1]
    for path, content in space.files.items():
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["models"] = {"model": str(models / "mint-rag"), "gar_model": str(models / "mint-gar")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    check_page([sys.executable, "app.py"], tmp_path, environment)


@pytest.mark.slow
def test_page_of_a_run_is_served_on_this_machine(real_run_folder, tmp_path):
    code = f"import os; from hub_cards.serve import launch_app; launch_app({str(real_run_folder)!r}, server_port="
    code += "int(os.environ['GRADIO_SERVER_PORT']))"
    check_page([sys.executable, "-c", code], tmp_path, os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.mark.slow
def test_page_of_a_run_without_full_models_is_served_from_its_adapters(adapter_run_folder, tmp_path):
    for role in ("rag", "gar"):
        shutil.rmtree(adapter_run_folder / f"mint-{role}")
    code = f"import os; from hub_cards.serve import launch_app; launch_app({str(adapter_run_folder)!r}, server_port="
    code += "int(os.environ['GRADIO_SERVER_PORT']))"
    check_page([sys.executable, "-c", code], tmp_path, os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def check_page(command, folder, environment):
    """Starts a page in a process of its own and asks it by every strategy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment | own, stdout=log, stderr=log)
    try:
        client = connect(server, port, folder / "log")
        for strategy in ("rag", "gar", "ensemble", "cascade"):
            status, answer, confidence, scores, spans, comparison = client.predict(
                query=QUERY, strategy=strategy, top_k=2, threshold=0.0, api_name="/ask"
            )
            assert status.startswith(strategy)
            assert 0 <= confidence <= 1
            assert {bar["label"] for bar in scores["confidences"]} <= set(TITLES)
            assert len(comparison["data"]) == (3 if strategy == "ensemble" else 1)
    finally:
        server.terminate()
        server.wait(timeout=30)


def connect(server, port, log):
    """A client of the page, once it is up."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return Client(f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False)
        time.sleep(0.5)
    raise AssertionError(f"The page did not come up:\n{log.read_text()}")
