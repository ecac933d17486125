import json
import re
import signal
import subprocess
import sys
import time

import pytest
from arguments import ShardArguments
from datasets import load_dataset

from tests.dataset_builders.chat_server import running_chat_server


@pytest.fixture
def chat_server():
    """A server that asks and answers as the tiny LLM of these tests does."""
    with running_chat_server() as server:
        server.reply_to = lambda prompt: "Who founded it in Paris?\nAnswer: Gustave Eiffel"
        yield server


@pytest.fixture
def generate(command, build_in_process, monkeypatch):
    """The stage's script in this process, with the command line's options, the first stage done if need be."""

    def call(output_dir, **options):
        from generate_auxiliary import main

        if not (output_dir / "work" / "build_collection.json").is_file():
            build_in_process(output_dir, llm=options["llm"])
        monkeypatch.setattr(sys, "argv", command("generate_auxiliary", output_dir, **options)[1:])
        main()

    return call


def samples(output_dir):
    return load_dataset(str(output_dir / "mint-pseudo"), "auxiliary", split="train").to_list()


def passages_asked(server):
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    return [re.search(r"<passage>\n(.*)\n</passage>", prompt).group(1) for prompt in prompts]


def test_shards_write_the_journal_and_the_command_without_shards_the_dataset(generate, chat_server, tmp_path, capsys):
    generate(tmp_path / "whole", llm=chat_server.url)
    asked = sorted(passages_asked(chat_server))
    assert len(asked) == 8
    chat_server.bodies.clear()
    for shard in (1, 2, 0):
        generate(tmp_path / "sharded", llm=chat_server.url, num_shards=3, shard_index=shard)
        assert not (tmp_path / "sharded" / "mint-pseudo" / "auxiliary").exists()
        assert "start this command there without --num_shards" in capsys.readouterr().out
    assert sorted(passages_asked(chat_server)) == asked
    generate(tmp_path / "sharded", llm=chat_server.url)
    assert len(chat_server.bodies) == 8
    assert samples(tmp_path / "sharded") == samples(tmp_path / "whole")


def test_several_urls_share_the_work(generate, chat_server, tmp_path):
    with running_chat_server() as second:
        second.reply_to = chat_server.reply_to
        generate(tmp_path, llm=f"{chat_server.url},{second.url}", llm_concurrency=1)
        assert len(chat_server.bodies) + len(second.bodies) == 8
        assert chat_server.bodies and second.bodies
    assert {sample["model"] for sample in samples(tmp_path)} == {"tiny-chat"}


@pytest.mark.parametrize(("num_shards", "shard_index"), [(2, 2), (2, -1), (0, 0)])
def test_a_shard_that_is_none_is_refused(num_shards, shard_index):
    with pytest.raises(ValueError, match="shard_index is"):
        ShardArguments(num_shards, shard_index)


@pytest.mark.slow
def test_killed_and_started_again_asks_nothing_twice(
    command, build_in_process, environment, run, chat_server, tmp_path
):
    build_in_process(tmp_path, llm=chat_server.url)

    def reply_to(prompt):
        time.sleep(0.2)
        return "Who founded it in Paris?\nAnswer: Gustave Eiffel"

    chat_server.reply_to = reply_to
    words = command("generate_auxiliary", tmp_path, llm=chat_server.url, llm_concurrency=1)
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "work" / "auxiliary" / "replies.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes().count(b"\n")
    time.sleep(0.5)
    before = passages_asked(chat_server)
    # What was under way when the process died is the only thing asked for again.
    assert kept <= len(before) <= kept + 1
    ended = run(words)
    assert ended.returncode == 0, ended.stderr
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(entries) == len({entry["key"] for entry in entries}) == 8
    assert len(passages_asked(chat_server)) - len(before) == 8 - kept
    assert set(passages_asked(chat_server)[len(before) :]).isdisjoint(before[:kept])


@pytest.mark.slow
def test_processes_of_accelerate_share_the_work(command, build_in_process, run, tmp_path):
    for name in ("one", "two"):
        build_in_process(tmp_path / name)
    alone = run(command("generate_auxiliary", tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    words = command("generate_auxiliary", tmp_path / "two")
    # Without a GPU, --multi_gpu starts processes that compute on the CPU; --cpu would start one only.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    further = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    launched = run([*launch, *further, *words[1:]])
    assert launched.returncode == 0, launched.stderr
    journal = tmp_path / "two" / "work" / "auxiliary"
    lines = [path.read_text().count("\n") for path in sorted(journal.glob("*.jsonl"))]
    # Documents of one passage each: eight requests, four a process, and none for the main process to add.
    assert lines == [4, 4]
    assert samples(tmp_path / "two") == samples(tmp_path / "one")
