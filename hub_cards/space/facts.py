"""What the page knows besides the answers: the topics of the collection, the machine's type of numbers, the memory."""

import json
import resource
import sys
from pathlib import Path

import torch


def read_topics(collection, field: str) -> dict[str, list[int]]:
    """
    Rows of the documents on each topic.

    Args:
        collection (`datasets.Dataset`):
            The documents.
        field (`str`):
            Column, or key of the JSON objects in the column `metadata`, that names a document's topic.

    Returns:
        `dict[str, list[int]]`: topic to rows, topics in the order of their names; documents without one are left out.
    """
    if field in collection.column_names:
        values = collection[field]
    else:
        values = (json.loads(metadata).get(field) for metadata in collection["metadata"])
    topics: dict[str, list[int]] = {}
    for row, topic in enumerate(values):
        if topic:
            topics.setdefault(str(topic), []).append(row)
    return dict(sorted(topics.items()))


def compute_dtype() -> torch.dtype:
    """bfloat16 where the machine multiplies in it; most CPUs without AVX-512 are several times faster in float32."""
    if torch.accelerator.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def resident_bytes() -> int:
    """Memory that this process holds, in bytes; where the system does not tell, the most that it ever held."""
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
