"""Reads JSONL files, whole or in parts, naming the place of whatever is wrong."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

NUM_SHOWN = 10
"""How many places of malformed records a message names."""


class MalformedLines:
    """
    Counts the malformed records that a reader leaves out, up to a limit.

    Args:
        limit (`int`):
            How many may be left out. With 0 the first one raises.

    Example:

    ```python
    >>> malformed = MalformedLines(limit=1)
    >>> malformed.add("nq.jsonl, line 7", "nq.jsonl, line 7: not valid JSON.")
    >>> len(malformed)
    1
    ```
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.places: list[str] = []

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: str, error: str) -> None:
        """
        Counts one more.

        Args:
            place (`str`):
                Where it stands, such as "nq.jsonl, line 7".
            error (`str`):
                What is wrong with it, as the message of an exception says it.

        Raises:
            `ValueError`: if that is one too many: `error` itself where the limit is 0, else the first places and
                `error`.
        """
        self.places.append(place)
        if len(self.places) <= self.limit:
            return
        if self.limit == 0:
            raise ValueError(error)
        raise ValueError(
            f"More than {self.limit} malformed records: {self._first_places()}. Mend them or allow more. The last one "
            f"is: {error}"
        )

    def log(self, name: str) -> None:
        """
        Warns once, if there were any: how many, and the first ten places.

        Args:
            name (`str`):
                What was read, such as "nq".
        """
        if self.places:
            logger.warning("%s: %d malformed records left out: %s", name, len(self.places), self._first_places())

    def _first_places(self) -> str:
        return "; ".join(self.places[:NUM_SHOWN]) + ("; ..." if len(self.places) > NUM_SHOWN else "")


class FilePart(NamedTuple):
    """
    Whole lines of a file.

    Args:
        path (`str`):
            The file.
        start (`int`):
            Offset of the first line, in bytes.
        stop (`int`):
            Offset behind the last line, in bytes.
        first_line (`int`):
            Number of the first line, counted from 1.
    """

    path: str
    start: int
    stop: int
    first_line: int


def split_lines(path: str | Path, num_bytes: int = 4 << 20) -> list[FilePart]:
    """
    Splits a file at line ends into parts that processes can read side by side. It reads the file once.

    Args:
        path (`str` or `Path`):
            The file.
        num_bytes (`int`, *optional*, defaults to 4 MiB):
            Least size of a part. Its last line is whole, so that it can be larger.

    Returns:
        `list[FilePart]`: the parts in the file's order; none of an empty file.
    """
    parts, start, line = [], 0, 1
    with open(path, "rb") as file:
        while block := file.read(num_bytes):
            rest = file.readline()
            stop = start + len(block) + len(rest)
            parts.append(FilePart(str(path), start, stop, line))
            start = stop
            line += block.count(b"\n") + rest.count(b"\n")
    return parts


def read_json_lines(
    path: str | Path, malformed: MalformedLines | None = None, part: FilePart | None = None
) -> Iterator[tuple[str, dict]]:
    """
    Reads a JSONL file of objects; blank lines are passed over.

    Args:
        path (`str` or `Path`):
            The file.
        malformed ([`MalformedLines`], *optional*):
            Counts the malformed lines, which are left out. Without it the first one raises.
        part ([`FilePart`], *optional*):
            Part of the file to read; the whole file by default.

    Yields:
        `tuple[str, dict]`: the place of the record ("file, line n", for messages) and the record.

    Raises:
        `ValueError`: if a line is not UTF-8 or not a JSON object, naming file and line, and `malformed` is not given
            or full.
    """
    malformed = MalformedLines(limit=0) if malformed is None else malformed
    part = part or FilePart(str(path), 0, os.path.getsize(path), 1)
    with open(path, "rb") as file:
        file.seek(part.start)
        position = part.start
        for number, line in enumerate(file, start=part.first_line):
            if position >= part.stop:
                break
            position += len(line)
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                malformed.add(place, f"{place}: not valid JSON ({error}). Mend or delete this line.")
                continue
            if not isinstance(record, dict):
                found = type(record).__name__
                malformed.add(place, f"{place}: expected a JSON object, found {found}. Mend this line.")
                continue
            yield place, record
