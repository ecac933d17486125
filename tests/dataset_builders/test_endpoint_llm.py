import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest
from assets import smollm2_folder

from dataset_builders.endpoint_llm import EndpointLLM
from dataset_builders.llm import load_llm
from dataset_builders.local_llm import LocalLLM
from dataset_builders.replies import QUERY_AND_ANSWER, Reply
from tests.dataset_builders.chat_server import MALFORMED_BODIES, running_chat_server


def texts(replies):
    """Reply texts by index of the prompt; every index at most once."""
    replies = list(replies)
    assert len(replies) == len(dict(replies))
    return {index: reply.text for index, reply in replies}


def test_the_endpoint_is_asked_for_its_first_model_and_answers_every_prompt(chat_server):
    llm = load_llm(chat_server.url, first_pause=0.01)
    replies = texts(llm.complete([f"number {i}" for i in range(100)], QUERY_AND_ANSWER, shared_prefix="say: "))
    assert llm.name == "tiny-chat" and llm.chat
    assert replies == {i: f"SAY: NUMBER {i}" for i in range(100)}
    assert len(chat_server.bodies) == 100 and 1 < chat_server.most_in_flight <= 8
    assert list(llm.complete([], QUERY_AND_ANSWER)) == []


def test_a_structured_request_carries_the_schema_and_brings_json(chat_server):
    chat_server.reply_to = lambda prompt: f" {prompt}?\nAnswer: 1889"
    llm = EndpointLLM(chat_server.url)
    ((_, reply),) = llm.complete(["When"], QUERY_AND_ANSWER, max_new_tokens=10)
    assert QUERY_AND_ANSWER.parse(reply.text) == {"Question": "When?", "Answer": "1889"}
    (body,) = chat_server.bodies
    assert body["model"] == "tiny-chat" and body["temperature"] == 0 and body["seed"] == 42
    assert body["response_format"]["json_schema"]["schema"] == QUERY_AND_ANSWER.json_schema()
    assert body["max_tokens"] == 10 and "stop" not in body


def test_an_unstructured_request_stops_at_a_blank_line(chat_server):
    chat_server.reply_to = lambda prompt: f" {prompt}?\nAnswer: 1889\n\nPassage: and so on"
    ((_, reply),) = EndpointLLM(chat_server.url, structured=False).complete(["When"], QUERY_AND_ANSWER)
    assert reply.text == " When?\nAnswer: 1889"
    assert chat_server.bodies[0]["stop"] == ["\n\n"] and "response_format" not in chat_server.bodies[0]


def test_a_server_without_structured_replies_is_named_with_the_way_out(chat_server):
    chat_server.knows_response_format = False
    with pytest.raises(ValueError, match="structured=False"):
        list(EndpointLLM(chat_server.url).complete(["x"], QUERY_AND_ANSWER))
    replies = texts(EndpointLLM(chat_server.url, structured=False).complete(["x"], QUERY_AND_ANSWER))
    assert replies == {0: "X"} and len(chat_server.bodies) == 2


def test_tokens_are_those_that_the_server_counted(chat_server):
    llm = EndpointLLM(chat_server.url)
    assert list(llm.complete(["a b c"], QUERY_AND_ANSWER, shared_prefix="d e ")) == [(0, Reply("D E A B C", 5, 5))]
    chat_server.counts_tokens = False
    assert list(llm.complete(["a b c"], QUERY_AND_ANSWER)) == [(0, Reply("A B C", 0, 0))]


def test_the_hugging_face_token_is_not_sent_and_the_key_is_not_logged(chat_server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    chat_server.faults = [500]
    list(EndpointLLM(chat_server.url, first_pause=0.01).complete(["x"], QUERY_AND_ANSWER))
    assert chat_server.authorizations == {"Bearer sk-secret"}
    list(EndpointLLM(chat_server.url, api_key="key").complete(["x"], QUERY_AND_ANSWER))
    assert chat_server.authorizations == {"Bearer sk-secret", "Bearer key"}
    assert "trying again" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("fault", [408, 429, 500, 503, "cut", "slow", *MALFORMED_BODIES])
def test_faults_that_pass_are_tried_again_and_nothing_is_lost_or_doubled(chat_server, fault):
    llm = EndpointLLM(chat_server.url, first_pause=0.01, timeout=0.3)
    chat_server.faults = [fault] * 3
    replies = texts(llm.complete([f"number {i}" for i in range(10)], QUERY_AND_ANSWER))
    assert replies == {i: f"NUMBER {i}" for i in range(10)}
    assert chat_server.faults == [] and len(chat_server.bodies) == 13


def test_a_reply_without_the_form_is_handed_out_and_not_asked_for_again(chat_server):
    chat_server.reply_to = lambda prompt: "\n\nI am a helpful assistant.\n"
    replies = texts(EndpointLLM(chat_server.url).complete(["x"], QUERY_AND_ANSWER))
    assert replies == {0: "\n\nI am a helpful assistant.\n"} and len(chat_server.bodies) == 1


def test_a_server_that_stays_away_is_reported_and_a_refusal_is_not_tried_again(chat_server):
    llm = EndpointLLM(chat_server.url, first_pause=0.001, max_retries=2, concurrency=1)
    chat_server.faults = [500] * 3
    with pytest.raises(ConnectionError, match="(?s)3 tries.*server runs"):
        list(llm.complete(["x"], QUERY_AND_ANSWER))
    chat_server.faults = [401]
    with pytest.raises(OSError, match="401"):
        list(llm.complete(["x"], QUERY_AND_ANSWER))
    assert len(chat_server.bodies) == 4


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_keeps_all_requests_away(chat_server, status, as_date):
    llm = EndpointLLM(chat_server.url, first_pause=0.001, concurrency=1)
    # A date has whole seconds: the one after the next is at least a second away.
    value = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    chat_server.faults = [(status, {"retry-after": value})]
    start = time.monotonic()
    assert texts(llm.complete(["x", "y"], QUERY_AND_ANSWER)) == {0: "X", 1: "Y"}
    assert time.monotonic() - start >= 0.95


def test_the_rate_limit_holds_over_all_threads(chat_server):
    llm = EndpointLLM(chat_server.url, concurrency=8, requests_per_minute=1200)
    start = time.monotonic()
    list(llm.complete([f"number {i}" for i in range(11)], QUERY_AND_ANSWER))
    # Eleven requests, a twentieth of a second apart.
    assert time.monotonic() - start >= 10 * 60 / 1200


def test_prompts_spread_over_several_servers():
    with running_chat_server() as first, running_chat_server() as second:
        meeting = threading.Barrier(8)

        def reply_to(prompt):
            meeting.wait(timeout=20)  # nobody is answered before all eight are in flight
            return prompt.upper()

        first.reply_to = second.reply_to = reply_to
        llm = load_llm(f"{first.url}, {second.url}/", concurrency=4)
        assert texts(llm.complete([f"n{i}" for i in range(8)], QUERY_AND_ANSWER)) == {i: f"N{i}" for i in range(8)}
        assert first.most_in_flight == second.most_in_flight == 4


@pytest.mark.parametrize("fault", [500, "hang"])
def test_a_server_that_fails_again_and_again_does_not_stop_the_others(fault):
    with running_chat_server() as ill, running_chat_server() as well:
        ill.faults = [fault] * 1000
        llm = EndpointLLM([ill.url, well.url], first_pause=0.05, timeout=0.5, max_retries=2, concurrency=2)
        replies = texts(llm.complete([f"n{i}" for i in range(60)], QUERY_AND_ANSWER))
        assert replies == {i: f"N{i}" for i in range(60)}
        assert len(well.bodies) == 60 and 0 < len(ill.bodies) < 20


def test_a_server_that_is_not_there_is_no_hindrance():
    with running_chat_server() as gone:
        url = gone.url
    with running_chat_server() as server:
        llm = EndpointLLM([url, server.url], first_pause=0.01)
        assert texts(llm.complete(["x", "y"], QUERY_AND_ANSWER)) == {0: "X", 1: "Y"}


def test_prompts_are_handed_out_only_as_replies_are_taken(chat_server):
    llm = EndpointLLM(chat_server.url, concurrency=2)
    replies = llm.complete([f"number {i}" for i in range(1000)], QUERY_AND_ANSWER)
    next(replies)
    time.sleep(0.3)
    assert len(chat_server.bodies) <= 5
    replies.close()


def test_an_interrupt_does_not_wait_for_replies_under_way(chat_server):
    chat_server.faults = ["hang"] * 8
    code = (
        # A shell has its background jobs ignore interrupts, and they hand that on.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dataset_builders.endpoint_llm import EndpointLLM\n"
        "from dataset_builders.replies import QUERY_AND_ANSWER\n"
        f"llm = EndpointLLM({chat_server.url!r})\n"
        "list(llm.complete(['x'] * 100, QUERY_AND_ANSWER))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=os.environ)
    while chat_server.in_flight < 8:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)  # a reply may take 120 s
    assert b"KeyboardInterrupt" in errors


@pytest.mark.slow
def test_smollm2_behind_a_storm_of_faults_answers_every_prompt_once(chat_server):
    llm = LocalLLM(str(smollm2_folder()), chat=True)
    one_at_a_time = threading.Lock()

    def reply_to(prompt):
        with one_at_a_time:
            return next(llm.complete([prompt], QUERY_AND_ANSWER))[1].text

    chat_server.reply_to = reply_to
    prompts = [f"Ask a question about the number {number} and answer it." for number in range(16)]
    expected = {number: QUERY_AND_ANSWER.parse(reply_to(prompt)) for number, prompt in enumerate(prompts)}
    kinds = [429, (429, {"retry-after": "1"}), 500, 503, "cut", "slow", *MALFORMED_BODIES]
    draw = random.Random(0)
    chat_server.faults = [draw.choice([*kinds, None, None, None, None]) for _ in range(40)]
    asking = EndpointLLM(chat_server.url, first_pause=0.01, max_retries=12, concurrency=4)
    replies = texts(asking.complete(prompts, QUERY_AND_ANSWER))
    assert {number: QUERY_AND_ANSWER.parse(text) for number, text in replies.items()} == expected
    assert None not in expected.values()
