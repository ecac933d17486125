import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from trainers.blocks import in_blocks

# Works in blocks of 3 and prints all records; dies in the block with the number given, if there is one. At the very
# end it says whether it is still in a process group: what is registered first is called last.
WORK = """
import atexit, json, os, signal, sys
import torch
atexit.register(lambda: print("in a group:", torch.distributed.is_initialized(), file=sys.stderr))
from trainers.blocks import in_blocks

def work(items):
    if str(items.start // 3) == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"item": item, "rank": os.environ.get("RANK", "0")} for item in items]

print(json.dumps(in_blocks(8, 3, sys.argv[1], work)))
"""


def squares(items):
    return [{"item": item, "square": item * item} for item in items]


def never(items):
    raise AssertionError(f"{items} was worked on again")


@pytest.mark.parametrize("number, sizes", [(0, []), (3, [3]), (7, [3, 3, 1])])
def test_the_records_come_in_order_and_each_block_has_its_file(tmp_path, number, sizes):
    assert in_blocks(number, 3, tmp_path / "blocks", squares) == squares(range(number))
    files = sorted((tmp_path / "blocks").iterdir())
    assert [path.name for path in files] == [f"block-0000{index}.jsonl" for index in range(len(sizes))]
    assert [len(path.read_text().splitlines()) for path in files] == sizes


def test_what_is_there_is_not_worked_on_again(tmp_path):
    records = in_blocks(7, 3, tmp_path, squares)
    assert in_blocks(7, 3, tmp_path, never) == records


def test_work_that_fails_keeps_the_blocks_before(tmp_path):
    def fails_late(items):
        if items.start == 3:
            raise OSError("No space left on device")
        return squares(items)

    with pytest.raises(OSError, match="No space left"):
        in_blocks(7, 3, tmp_path, fails_late)
    assert [path.name for path in tmp_path.iterdir()] == ["block-00000.jsonl"]
    done = []
    assert in_blocks(7, 3, tmp_path, lambda items: done.append(items) or squares(items)) == squares(range(7))
    assert done == [range(3, 6), range(6, 7)]


def test_a_block_that_was_cut_short_in_writing_does_not_count(tmp_path):
    """Half a file under its temporary name is what a kill in the middle of writing leaves."""
    in_blocks(7, 3, tmp_path, squares)
    whole = (tmp_path / "block-00001.jsonl").read_text()
    (tmp_path / "block-00001.jsonl").unlink()
    (tmp_path / ".block-00001.jsonl.tmp").write_text(whole[: len(whole) // 2])
    assert in_blocks(7, 3, tmp_path, squares) == squares(range(7))
    assert (tmp_path / "block-00001.jsonl").read_text() == whole


def test_records_keep_their_characters_and_numbers(tmp_path):
    record = {"text": 'São Paulo\u2028\n"2"', "score": -0.1234567890123456, "none": None}
    assert in_blocks(1, 1, tmp_path, lambda items: [record]) == [record]
    assert in_blocks(1, 1, tmp_path, never) == [record]


def start(folder, dies_in="", rank=None, port=None):
    process_group = {} if rank is None else {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    if rank is not None:
        process_group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder), dies_in],
        env=os.environ | process_group,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_goes_on_with_the_block_that_it_died_in(tmp_path):
    killed = start(tmp_path, dies_in="1")
    assert killed.wait() == -signal.SIGKILL, killed.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["block-00000.jsonl"]
    records, errors = start(tmp_path).communicate()
    assert [record["item"] for record in json.loads(records)] == list(range(8)), errors


def test_two_processes_share_the_blocks_and_both_get_all_records(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(tmp_path, rank=rank, port=port) for rank in (0, 1)]
    replies = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], replies[0][1] + replies[1][1]
    first, second = (json.loads(records) for records, _ in replies)
    assert first == second
    assert [record["item"] for record in first] == list(range(8))
    assert [record["rank"] for record in first] == ["0", "0", "0", "1", "1", "1", "0", "0"]
    # Its threads would outlive the interpreter, and may abort the process.
    assert all("in a group: False" in errors for _, errors in replies)
