"""What the benchmarks share: a summary of repeated timings, the machine, tables and JSON."""

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch


def summarise(values: list[float]) -> dict[str, float]:
    """`median`, `min`, `max` and `calls` of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "calls": len(values)}


def spread(summary: dict[str, float], digits: int) -> str:
    """A summary as a table shows it: median / min / max."""
    return " / ".join(f"{summary[key]:.{digits}f}" for key in ("median", "min", "max"))


def machine() -> dict[str, str | int]:
    """What the figures depend on: `processor`, `cores`, `torch_threads`, `torch`, `python`."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def resident_bytes() -> int:
    """Memory (`int`, bytes) that this process holds now."""
    return psutil.Process().memory_info().rss


def in_fresh_process(function: Callable, *arguments):
    """
    Calls a module's function in a process of its own, so that no memory of other measurements is counted. Processes
    are forked from a server that has made the slow imports and nothing else.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["faiss", "modeling_mint"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def print_table(heading: list[str], rows: list[list[str]]) -> None:
    """Prints a Markdown table."""
    for row in [heading, ["---"] * len(heading), *rows]:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def write_json(path: str, report: dict) -> None:
    """Writes a report atomically."""
    folder = Path(path).resolve().parent
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False, encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    os.replace(file.name, path)
