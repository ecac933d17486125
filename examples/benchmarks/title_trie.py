"""Size, build, load, subset and mask times of the title trie, and of what else constrains generation.

    python examples/benchmarks/title_trie.py --titles 10000 100000 1000000 5900000 --json title_trie.json

Titles are synthetic (see synthetic_titles.py). Each measurement of memory has a process of its own. Masks are timed
for 80 rows (8 queries of 10 beams) as `generate` asks for them: a new processor, then step by step, the beams of a
query in another order each time, all systems in turn on the same rows; their masks are compared first.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import peers
import torch
from measuring import in_fresh_process, machine, print_table, resident_bytes, spread, summarise, write_json
from synthetic_titles import SyntheticTitles, in_order, smollm2_folder
from transformers import AutoTokenizer, PrefixConstrainedLogitsProcessor

from modeling_mint import TitleTrie, TitleTrieLogitsProcessor

NUM_QUERIES, NUM_BEAMS, PROMPT_LENGTH, NUM_DEPTHS = 8, 10, 16, 6
NUM_SECTIONS = 3
TRIE, SECTIONS, DICT, MARISA = "title trie", "title, section trie", "dict trie", "marisa-trie"
FLAT, PASSAGES, IVF_PQ = "FAISS flat, title vectors", "FAISS flat, passage vectors", "FAISS IVF-PQ, title vectors"


def write_paths(folder: Path, tokenizer_folder: str, count: int, num_with_sections: int, num_names: int) -> None:
    """Writes `count` title paths, and those of `num_with_sections` titles with sections, as NumPy files."""
    source = SyntheticTitles(AutoTokenizer.from_pretrained(tokenizer_folder), num_names=num_names)
    paths = {"titles": source.paths(count)}
    if num_with_sections:
        paths["sections"] = source.paths(num_with_sections, NUM_SECTIONS)
    for name, arrays in paths.items():
        for part, array in zip(("tokens", "lengths"), arrays, strict=True):
            np.save(folder / f"{name}_{part}.npy", array)


def read_paths(folder: Path, name: str, count: int, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` paths; `stride` spreads the token ids over a wider vocabulary and leaves the trie's shape."""
    lengths = np.load(folder / f"{name}_lengths.npy")[:count]
    tokens = np.load(folder / f"{name}_tokens.npy", mmap_mode="r")[: lengths.sum(dtype=np.int64)]
    return (np.array(tokens) if stride == 1 else tokens.astype(np.uint32) * np.uint32(stride)), lengths


def measure_build(
    folder: Path, name: str, count: int, stride: int, eos_token_id: int, vocab_size: int, repeats: int
) -> dict:
    """
    Builds the trie from flat arrays of tokens, titles in random order. The peak is that of the first build. Then saves
    in `folder` the trie of the same collection stored in leaf order.
    """
    paths, seconds = read_paths(folder, name, count, stride), []
    for repeat in range(repeats):
        start = time.perf_counter()
        trie = TitleTrie.from_token_ids(paths, eos_token_id, vocab_size)
        seconds.append(time.perf_counter() - start)
        if repeat == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stored = TitleTrie.from_token_ids(in_order(paths, trie.leaf_order().numpy()), eos_token_id, vocab_size)
    stored.save_pretrained(folder)
    return {
        "titles": count,
        "bytes_per_title": stored.nbytes / count,
        "bytes_per_title_any_order": trie.nbytes / count,
        "build_seconds": summarise(seconds),
        "peak_bytes": peak,
        "nbytes": stored.nbytes,
    }


def measure_load(folder: Path, repeats: int) -> dict:
    """Maps the trie that was saved in `folder`, then takes a sixth of its rows."""
    load_seconds, subset_seconds = [], []
    # What the first load imports is no part of the trie.
    TitleTrie.from_pretrained(folder)
    before = resident_bytes()
    for repeat in range(repeats):
        start = time.perf_counter()
        trie = TitleTrie.from_pretrained(folder)
        load_seconds.append(time.perf_counter() - start)
        if repeat == 0:
            resident = resident_bytes() - before
    rows = torch.from_numpy(np.random.default_rng(0).permutation(trie.num_rows)[: trie.num_rows // 6]).sort().values
    for _ in range(repeats):
        start = time.perf_counter()
        trie.subset(rows)
        subset_seconds.append(time.perf_counter() - start)
    return {
        "load_seconds": summarise(load_seconds),
        "resident_bytes": resident,
        "subset_seconds": summarise(subset_seconds),
    }


def measure_dict_trie(folder: Path, count: int) -> int:
    """Memory (bytes) by which this process grows when it builds the dict trie of `count` titles."""
    paths = read_paths(folder, "titles", count)
    before = resident_bytes()
    trie = peers.dict_trie(*paths)
    grown = resident_bytes() - before
    del trie
    return grown


def measure_marisa(folder: Path, count: int) -> int:
    """Bytes of the MARISA trie of `count` titles, which are the same in memory and in a file."""
    return len(peers.marisa(*read_paths(folder, "titles", count)).tobytes())


def measure_masks(
    folder: Path, count: int, stride: int, eos_token_id: int, with_peers: bool, calls: int, budget: float
) -> dict[str, list[dict]]:
    """
    Times the masks of each system, depth by depth.

    Returns:
        `dict[str, list[dict]]`: per system and depth `median`, `min`, `max` (milliseconds) and `calls`. A system that
        has used up `budget` seconds is not called any more.

    Raises:
        `RuntimeError`: if two systems allow different tokens.
    """
    tokens, lengths = read_paths(folder, "titles", count, stride)
    trie = TitleTrie.from_pretrained(folder)
    systems = {TRIE: lambda: TitleTrieLogitsProcessor(trie, PROMPT_LENGTH)}
    if with_peers:
        for name, allowed_tokens in (
            (DICT, peers.dict_allowed_tokens(peers.dict_trie(tokens, lengths), PROMPT_LENGTH, eos_token_id)),
            (MARISA, peers.marisa_allowed_tokens(peers.marisa(tokens, lengths), PROMPT_LENGTH, eos_token_id)),
        ):
            systems[name] = lambda function=allowed_tokens: PrefixConstrainedLogitsProcessor(function, NUM_BEAMS)

    rng = np.random.default_rng(0)
    num_rows = NUM_QUERIES * NUM_BEAMS
    start = np.cumsum(lengths, dtype=np.int64) - lengths
    long_enough = np.flatnonzero(lengths >= NUM_DEPTHS)
    scores = torch.randn(num_rows, trie.vocab_size, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    prompt = torch.zeros(num_rows, PROMPT_LENGTH, dtype=torch.long)
    spent = dict.fromkeys(systems, 0.0)
    milliseconds = {name: [[] for _ in range(NUM_DEPTHS)] for name in systems}
    for _ in range(calls):
        rows = rng.choice(long_enough, num_rows)
        titles = torch.from_numpy(tokens[start[rows, None] + np.arange(NUM_DEPTHS)].astype(np.int64))
        processors = {name: make() for name, make in systems.items() if spent[name] < budget}
        for depth in range(NUM_DEPTHS):
            input_ids = torch.cat([prompt, titles[:, :depth]], dim=1)
            masked = {}
            for name, processor in processors.items():
                begin = time.perf_counter()
                masked[name] = processor(input_ids, scores)
                seconds = time.perf_counter() - begin
                milliseconds[name][depth].append(seconds * 1000)
                spent[name] += seconds
            for name, other in masked.items():
                if not torch.equal(masked[TRIE], other):
                    raise RuntimeError(f"At depth {depth} the {name} allows other tokens than the {TRIE}.")
            # As `generate` does: nobody holds the scores of the step before.
            del masked, other
            order = torch.cat([i * NUM_BEAMS + torch.randperm(NUM_BEAMS) for i in range(NUM_QUERIES)])
            titles = titles[order]
    return {name: [summarise(values) for values in depths] for name, depths in milliseconds.items()}


def measure(arguments: argparse.Namespace) -> list[dict]:
    """One record for each number of titles and each vocabulary, as README.md describes it."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    sizes = sorted(arguments.titles)
    records, per_title = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with_sections = min(sizes[-1], arguments.max_peer_titles)
        in_fresh_process(write_paths, folder, arguments.tokenizer, sizes[-1], with_sections, arguments.num_names)
        for count in sizes:
            for vocab_size in (len(tokenizer), *arguments.vocab_size):
                stride = vocab_size // len(tokenizer)
                eos_token_id = tokenizer.eos_token_id * stride
                facts = (stride, eos_token_id, vocab_size, arguments.repeats)
                built = in_fresh_process(measure_build, folder, "titles", count, *facts)
                loaded = in_fresh_process(measure_load, folder, arguments.repeats)
                first = vocab_size == len(tokenizer)
                with_peers = first and count <= arguments.max_peer_titles
                effort = (with_peers, arguments.calls, arguments.budget)
                masks = in_fresh_process(measure_masks, folder, count, stride, eos_token_id, *effort)
                nbytes = built.pop("nbytes")
                memory, computed = {TRIE: nbytes}, []
                if first:
                    others, computed = peer_memory(arguments, folder, count, with_peers, facts, per_title)
                    memory |= others
                records.append(
                    {"vocab_size": vocab_size, **built, **loaded}
                    | {"mask_ms": masks, "memory_bytes": memory, "computed": computed}
                )
                print_record(records[-1])
    return records


def peer_memory(
    arguments: argparse.Namespace, folder: Path, count: int, with_peers: bool, facts: tuple, per_title: dict
) -> tuple[dict[str, int], list[str]]:
    """
    Memory of each peer, and which of them are computed: vectors by their size, tries by the bytes per title of the
    largest size that was measured, which `per_title` carries from size to size.
    """
    memory = {FLAT: peers.flat_bytes(count), IVF_PQ: peers.ivf_pq_bytes(count)}
    memory[PASSAGES] = peers.flat_bytes(count * peers.PASSAGES_PER_TITLE)
    computed = [PASSAGES]
    if count <= arguments.max_vector_titles:
        memory[FLAT] = in_fresh_process(peers.index_bytes, peers.flat_index, count)
        memory[IVF_PQ] = in_fresh_process(peers.index_bytes, peers.ivf_pq_index, count)
    else:
        computed += [FLAT, IVF_PQ]
    if with_peers:
        tries = {
            DICT: in_fresh_process(measure_dict_trie, folder, count),
            MARISA: in_fresh_process(measure_marisa, folder, count),
        }
        sections = Path(tempfile.mkdtemp(dir=folder))
        for part in ("tokens", "lengths"):
            (sections / f"sections_{part}.npy").symlink_to(folder / f"sections_{part}.npy")
        built = in_fresh_process(measure_build, sections, "sections", NUM_SECTIONS * count, *facts)
        tries[SECTIONS] = built["nbytes"]
        per_title.update({peer: size / count for peer, size in tries.items()})
    else:
        computed += list(per_title)
    return memory | {peer: int(size * count) for peer, size in per_title.items()}, computed


def print_record(record: dict) -> None:
    """Prints what was measured for one number of titles and one vocabulary."""
    print(f"{record['titles']:,} titles, vocabulary of {record['vocab_size']:,} (median / min / max)\n")
    print_table(
        ["bytes per title", "in any order", "build s", "peak MB", "load s", "MB in memory", "subset of a sixth s"],
        [
            [
                f"{record['bytes_per_title']:.2f}",
                f"{record['bytes_per_title_any_order']:.2f}",
                spread(record["build_seconds"], 2),
                f"{record['peak_bytes'] / 1e6:,.0f}",
                spread(record["load_seconds"], 3),
                f"{record['resident_bytes'] / 1e6:,.1f}",
                spread(record["subset_seconds"], 3),
            ]
        ],
    )
    print_table(
        ["mask ms, 80 rows", *(f"depth {depth}" for depth in range(NUM_DEPTHS))],
        [[name, *(spread(depth, 2) for depth in depths)] for name, depths in record["mask_ms"].items()],
    )
    ours = record["memory_bytes"][TRIE]
    print_table(
        ["memory", "MB", "times ours", ""],
        [
            [
                name,
                f"{size / 1e6:,.1f}",
                f"{size / ours:,.1f}",
                "computed" if name in record["computed"] else "measured",
            ]
            for name, size in record["memory_bytes"].items()
        ],
    )


def main() -> None:
    """Measures, prints tables, and writes the report where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_900_000])
    parser.add_argument(
        "--vocab_size", type=int, nargs="*", default=[262_144], help="Wider vocabularies than the tokenizer's."
    )
    parser.add_argument("--tokenizer", help="Folder of a byte-level BPE tokenizer (default: SmolLM2's).")
    parser.add_argument("--num_names", type=int, default=300_000, help="Names of the titles' lexicon.")
    parser.add_argument(
        "--max_peer_titles", type=int, default=1_000_000, help="Titles up to which peers are built (0: none)."
    )
    parser.add_argument("--max_vector_titles", type=int, default=100_000, help="Titles up to which vectors are built.")
    parser.add_argument("--repeats", type=int, default=5, help="Builds, loads and subsets.")
    parser.add_argument("--calls", type=int, default=20, help="Masks at each depth.")
    parser.add_argument("--budget", type=float, default=60.0, help="Seconds after which a peer's masks are enough.")
    parser.add_argument("--json", help="File to write the report to.")
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer or str(smollm2_folder())
    report = {"machine": machine(), "results": measure(arguments)}
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
