"""Reads JSONL files, naming the place of whatever is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path


def read_json_lines(path: str | Path) -> Iterator[tuple[str, dict]]:
    """
    Reads a JSONL file of objects; blank lines are passed over.

    Args:
        path (`str` or `Path`):
            The file.

    Yields:
        `tuple[str, dict]`: the place of the record ("file, line n", for messages) and the record.

    Raises:
        `ValueError`: if a line is not UTF-8 or not a JSON object, naming file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{place}: not valid JSON ({error}). Mend or delete this line.") from error
            if not isinstance(record, dict):
                raise ValueError(f"{place}: expected a JSON object, found {type(record).__name__}. Mend this line.")
            yield place, record
