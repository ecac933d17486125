"""Work in blocks: the unit of resuming and of sharing among processes."""

import atexit
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState

from dataset_builders.writing import write_text


def this_process() -> PartialState:
    """
    This process among those that `accelerate launch` or `torchrun` started; a plain process is the only one.

    On a machine without accelerator `PartialState()` takes every process for the only one, unless it is told that the
    CPU is meant.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


@atexit.register
def _leave_process_group() -> None:
    """The threads of a process group that is still there when the interpreter ends may abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def in_blocks(
    number: int, block_size: int, folder: str | os.PathLike, work: Callable[[range], list[dict]]
) -> list[dict]:
    """
    Works on items 0 to `number` - 1 in blocks and keeps each block's records in a file of its own, written whole or
    not at all: work that was interrupted goes on with the blocks that are not there yet.

    All processes call it, and block b is worked on by process b modulo their number. Each block is worked on alone,
    so that the records depend neither on the number of processes nor on interruptions, as long as `work` depends on
    nothing but its items. The processes must share the folder.

    Args:
        number (`int`):
            Number of items.
        block_size (`int`):
            Items of a block; the last block may have fewer.
        folder (`str` or `os.PathLike`):
            Folder of the block files, `block-00000.jsonl` and so on. What it holds is taken as done, so it must
            belong to the same work with the same `number` and `block_size`.
        work (`Callable[[range], list[dict]]`):
            Makes the records of a block from the numbers of its items; they must be fit for JSON.

    Returns:
        `list[dict]`: the records of all blocks in order, the same list in every process.

    Example:

    ```python
    records = in_blocks(1000, 64, "squares", lambda items: [{"square": item * item} for item in items])
    ```
    """
    process = this_process()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [range(start, min(start + block_size, number)) for start in range(0, number, block_size)]
    paths = [folder / f"block-{index:05d}.jsonl" for index in range(len(blocks))]
    for index in range(process.process_index, len(blocks), process.num_processes):
        if not paths[index].is_file():
            write_json_lines(paths[index], work(blocks[index]))
    process.wait_for_everyone()
    return [record for path in paths for record in load_json_lines(path)]


def write_json_lines(path: Path, records: list[dict]) -> None:
    """Writes records, one JSON object a line; the file is there whole or not at all."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def load_json_lines(path: Path) -> list[dict]:
    """Reads what [`write_json_lines`] wrote."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
