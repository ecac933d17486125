"""Reading KILT's knowledge source into a collection: megabytes a second and core, and memory.

    python examples/benchmarks/kilt_reading.py --megabytes 1000 --json kilt_reading.json

The records are generated, in exactly the form of `kilt_knowledgesource.json`: about 6 kB a page, lognormal; dozens of
anchors; titles of several scripts. Megabytes (10^6 bytes) are those of the file. Against our builder stands what a
user would write otherwise, `load_dataset("json")` and a `map` to the same rows; both results are compared first. Each
measurement has a process of its own and starts without any cache.

Memory is what the process and its children hold for themselves: pages of files that they map, which the system takes
back when it needs them, are not counted. (With several processes, what a child still shares with its parent counts for
both.)
"""

import argparse
import json
import os
import random
import string
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil
from datasets import Dataset, disable_progress_bars, load_dataset
from measuring import in_fresh_process, machine, print_table, write_json

from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import COLLECTION_FEATURES
from dataset_builders.knowledge_source import kilt_rows
from dataset_builders.writing import build, collection_fingerprint, file_fingerprint, write_collection

ALPHABETS = (string.ascii_lowercase, "äéíñöçšžåø", "абвгдеклмнор", "山川田中大小東京", "אבגדהוזח")
OURS, PEER = "CollectionBuilder", "load_dataset and map"


def write_pages(path: Path, num_bytes: int) -> None:
    """Writes pages, always the same, until the file has `num_bytes` bytes."""
    rng = random.Random(0)
    alphabets = rng.choices(ALPHABETS, weights=(92, 4, 2, 1, 1), k=20_000)
    words = ["".join(rng.choices(alphabet, k=rng.randint(2, 9))) for alphabet in alphabets]
    titles = [" ".join(rng.choices(words, k=rng.randint(1, 4))).capitalize() for _ in range(50_000)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(8, 30))).capitalize() + ". " for _ in range(20_000)]
    with open(path, "w", encoding="utf-8") as file:
        number = size = 0
        while size < num_bytes:
            size += file.write(json.dumps(random_page(rng, number, titles, sentences)) + "\n")
            number += 1


def random_page(rng: random.Random, number: int, titles: list[str], sentences: list[str]) -> dict:
    """One page of the knowledge source."""
    title, text, anchors = rng.choice(titles), [], []
    text.append(f"{title}\n")
    for _ in range(1 + int(rng.lognormvariate(1.3, 1.0))):
        if len(text) > 1 and rng.random() < 0.4:
            text.append(f"Section::::{rng.choice(titles)}.\n")
        mark = "BULLET::::- " if rng.random() < 0.3 else ""
        paragraph = mark + "".join(rng.choices(sentences, k=1 if mark else rng.randint(1, 5)))
        for link in rng.choices(titles, k=rng.randint(0, 8)):
            start = rng.randrange(len(paragraph))
            anchors.append(
                {
                    "text": link,
                    "href": quote(link),
                    "paragraph_id": len(text),
                    "start": start,
                    "end": start + len(link),
                }
            )
        text.append(f"{paragraph}\n")
    history = {"pageid": number, "parentid": number, "revid": number, "pre_dump": True, "timestamp": "2019-08-01"}
    wikidata = {
        "wikidata_id": f"Q{number}",
        "enwikiquote_title": "",
        "description": "",
        "aliases": {},
        "sitelinks": {},
    }
    return {
        "_id": str(number),
        "wikipedia_id": str(number),
        "wikipedia_title": title,
        "text": text,
        "anchors": anchors,
        "categories": ",".join(rng.choices(titles, k=4)),
        "wikidata_info": wikidata,
        "history": history | {"url": f"https://en.wikipedia.org/w/index.php?title={quote(title)}&oldid={number}"},
    }


class PeakMemory:
    """Samples the memory of this process while the block runs, and of its children; `bytes` is the most of it."""

    def __init__(self, num_proc: int):
        self.bytes = 0
        # Looking for children goes through all processes of the machine, which the one that works would feel.
        self.has_children = num_proc > 1

    def __enter__(self):
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self) -> None:
        this = psutil.Process()
        while True:
            held = 0
            for process in [this, *(this.children(recursive=True) if self.has_children else [])]:
                try:
                    memory = process.memory_info()
                except psutil.NoSuchProcess:
                    continue
                held += memory.rss - memory.shared
            self.bytes = max(self.bytes, held)
            if self.stopped.wait(0.05):
                break

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()


def build_with_ours(path: Path, cache: str, num_proc: int) -> Dataset:
    """As a user of this library does it. The builder hashes the file first."""
    return build(CollectionBuilder(cache_dir=cache, data_files=str(path), format="kilt"), num_proc)["train"]


def build_with_peer(path: Path, cache: str, num_proc: int) -> Dataset:
    """As a user of `datasets` alone does it."""
    processes = num_proc if num_proc > 1 else None  # for a pool of 1 it would start a process
    pages = load_dataset("json", data_files=str(path), cache_dir=cache, split="train", num_proc=processes)
    options = {"remove_columns": pages.column_names, "features": COLLECTION_FEATURES, "num_proc": processes}
    return pages.map(peer_row, **options)


def peer_row(page: dict) -> dict:
    """The row of a page: the same work for the peer as for our builder."""
    return next(kilt_rows("", page))


SYSTEMS = {OURS: build_with_ours, PEER: build_with_peer}


def cpu_seconds() -> float:
    """What this process and its children that have ended used of the processor: a busy machine hardly changes that."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure_build(system: str, path: Path, num_proc: int, compare: bool) -> dict:
    """Builds a collection and writes it as Parquet. `fingerprint` is that of the rows, made if `compare`."""
    disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        with PeakMemory(num_proc) as build_memory:
            start, cpu_start = time.perf_counter(), cpu_seconds()
            collection = SYSTEMS[system](path, cache, num_proc)
            build_seconds, build_cpu_seconds = time.perf_counter() - start, cpu_seconds() - cpu_start
        with PeakMemory(1) as write_memory:
            start = time.perf_counter()
            write_collection(collection, Path(cache) / "collection")
            write_seconds = time.perf_counter() - start
        megabytes = path.stat().st_size / 1e6
        return {
            "system": system,
            "megabytes": megabytes,
            "num_proc": num_proc,
            "rows": len(collection),
            "build_seconds": build_seconds,
            "build_mb_per_second_and_core": megabytes / build_seconds / num_proc,
            "build_mb_per_cpu_second": megabytes / build_cpu_seconds,
            "build_peak_bytes": build_memory.bytes,
            "write_seconds": write_seconds,
            "write_mb_per_second": megabytes / write_seconds,
            "write_peak_bytes": write_memory.bytes,
            "fingerprint": collection_fingerprint(collection) if compare else None,
        }


def measure_hash(path: Path) -> dict:
    """How fast a builder hashes its files, which it does once when it is made."""
    start = time.perf_counter()
    file_fingerprint(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "gb_per_second": path.stat().st_size / 1e9 / seconds}


def measure(arguments: argparse.Namespace) -> dict:
    """
    The records of all systems, first at the small size, where their rows are compared, then at the full one.

    Raises:
        RuntimeError: if the systems built different rows.
    """
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in sorted({min(arguments.small, arguments.megabytes), arguments.megabytes}):
            path = Path(folder) / f"pages-{megabytes}.json"
            write_pages(path, megabytes * 1_000_000)
            compare = not records
            results = [
                in_fresh_process(measure_build, system, path, num_proc, compare)
                for num_proc in arguments.num_proc
                for system in SYSTEMS
            ]
            if len({result.pop("fingerprint") for result in results}) > 1:
                raise RuntimeError(f"At {megabytes} MB the systems built different rows.")
            records += results
        hashing = measure_hash(path)
    return {"results": records, "hashing": hashing}


def print_records(records: list[dict]) -> None:
    """Prints one row for each measurement."""
    print_table(
        [
            "system",
            "MB",
            "processes",
            "pages",
            "build MB/s/core",
            "build MB/CPU second",
            "build peak MB",
            "write MB/s",
            "write peak MB",
        ],
        [
            [
                record["system"],
                f"{record['megabytes']:,.0f}",
                str(record["num_proc"]),
                f"{record['rows']:,}",
                f"{record['build_mb_per_second_and_core']:.1f}",
                f"{record['build_mb_per_cpu_second']:.1f}",
                f"{record['build_peak_bytes'] / 1e6:,.0f}",
                f"{record['write_mb_per_second']:.1f}",
                f"{record['write_peak_bytes'] / 1e6:,.0f}",
            ]
            for record in records
        ],
    )


def main() -> None:
    """Measures, prints a table, and writes the report where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="Full size of the generated file.")
    parser.add_argument("--small", type=int, default=100, help="Size to compare the memory with.")
    parser.add_argument("--num_proc", type=int, nargs="+", default=[1], help="Numbers of processes that build.")
    parser.add_argument("--json", help="File to write the report to.")
    arguments = parser.parse_args()
    report = {"machine": machine(), **measure(arguments)}
    print_records(report["results"])
    print(f"hashing: {report['hashing']['gb_per_second']:.2f} GB/s")
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
