"""How often beam search misses the best docid, by the exact search of the same model; and what length penalties do.

python examples/benchmarks/beam_misses.py --model outputs/mine/mint-rag --data dev.jsonl --json beam_misses.json
"""

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import HfArgumentParser

from dataset_builders.writing import write_text
from modeling_mint import (
    MintForConditionalGeneration,
    MintProcessor,
    exact_search_docids,
    format_prompt,
    search_docids,
)

NUM_BEAMS = (1, 5, 10, 20)
LENGTH_PENALTIES = (-1.0, 0.0, 0.5, 1.0)
NUM_DOCIDS = 10
# Tokens, the end token included, up to which a title counts as short.
SHORT = 3


@dataclass
class Arguments:
    """
    Args:
        model (`str`, *optional*, defaults to `"outputs/demo/mint-rag"`): folder or Hub id of a MINT model of the role
            rag, with its processor.
        data (`str`, *optional*, defaults to the demo's questions): KILT JSONL (`input`, `output` with provenance
            titles) or JSONL of samples (`query`, `docids`).
        num_queries (`int`, *optional*, defaults to 200): the first that many questions.
        budget (`int`, *optional*, defaults to 500): prefixes that the exact search may expand per question.
        batch_size (`int`, *optional*, defaults to 4): questions searched at a time.
        dtype (`str`, *optional*, defaults to `"float32"`): precision of the model.
        json (`str`, *optional*): file for the figures.
    """

    model: str = field(default="outputs/demo/mint-rag", metadata={"help": "Folder or Hub id of a MINT model."})
    data: str = field(
        default=str(Path(__file__).parents[1] / "data" / "vital_questions.jsonl"),
        metadata={"help": "Questions with their titles, as JSONL."},
    )
    num_queries: int = field(default=200, metadata={"help": "Number of questions."})
    budget: int = field(default=500, metadata={"help": "Prefixes that the exact search may expand per question."})
    batch_size: int = field(default=4, metadata={"help": "Questions searched at a time."})
    dtype: str = field(default="float32", metadata={"help": "Precision of the model."})
    json: str = field(default="", metadata={"help": "File for the figures."})


def read_questions(path: str, number: int) -> list[tuple[str, set[str]]]:
    """(question, relevant titles) of the first lines of a JSONL file, of KILT's form or of samples."""
    questions = []
    with open(path, encoding="utf-8") as file:
        for line in list(file)[:number]:
            record = json.loads(line)
            if "query" in record:
                questions.append((record["query"], set(record["docids"])))
            else:
                outputs = [source for output in record["output"] for source in output.get("provenance", [])]
                questions.append((record["input"], {source["title"] for source in outputs}))
    return questions


def measure(arguments: Arguments) -> dict:
    """All figures, as a `dict` that JSON can hold."""
    model = MintForConditionalGeneration.from_pretrained(arguments.model, dtype=arguments.dtype).eval()
    processor = MintProcessor.from_pretrained(arguments.model)
    questions = sorted(read_questions(arguments.data, arguments.num_queries), key=lambda question: len(question[0]))
    prompts = [format_prompt("query_to_docid", query=query) for query, _ in questions]
    trie = processor.trie

    def search(function, **options) -> tuple[list, float]:
        start, results = time.perf_counter(), []
        for first in range(0, len(prompts), arguments.batch_size):
            inputs = processor(prompts[first : first + arguments.batch_size])
            results.append(function(model, trie, inputs["input_ids"], inputs["attention_mask"], **options))
        return results, time.perf_counter() - start

    batches, seconds = search(exact_search_docids, num_docids=NUM_DOCIDS, budget=arguments.budget)
    exact, complete, expanded = ([one for batch in batches for one in batch[i]] for i in range(3))
    figures = {
        "queries": len(prompts),
        "exact": {
            "complete": sum(complete) / len(complete),
            "expanded_median": statistics.median(expanded),
            "expanded_p95": sorted(expanded)[int(0.95 * (len(expanded) - 1))],
            "expanded_max": max(expanded),
            "seconds_per_query": seconds / len(prompts),
        },
        "beams": {},
        "length_penalties": {},
    }
    # Only what is proven can be missed.
    proven = [i for i, one in enumerate(complete) if one]
    for num_beams in NUM_BEAMS:
        options = {"num_beams": num_beams, "num_docids": min(num_beams, NUM_DOCIDS)}
        batches, seconds = search(search_docids, **options)
        found = [ranked for batch in batches for ranked in batch]
        figures["beams"][num_beams] = {
            "misses_best": share(proven, lambda i, found=found: best(found[i]) != best(exact[i])),
            "found_of_best_10": statistics.mean(
                len(leaves(found[i]) & leaves(exact[i])) / len(exact[i]) for i in proven
            )
            if proven
            else None,
            "seconds_per_query": seconds / len(prompts),
        }
    for penalty in LENGTH_PENALTIES:
        batches, _ = search(search_docids, length_penalty=penalty)
        found = [ranked for batch in batches for ranked in batch]
        figures["length_penalties"][penalty] = penalty_figures(found, questions, processor)
    return figures


def share(indices: list[int], is_so) -> float | None:
    """Share of the questions for which something is so, or `None` without questions."""
    return sum(map(is_so, indices)) / len(indices) if indices else None


def best(ranked: list[tuple[int, float]]) -> int | None:
    """The leaf of the first docid, or `None` where beam search reached none."""
    return ranked[0][0] if ranked else None


def leaves(ranked: list[tuple[int, float]]) -> set[int]:
    """The leaves of a ranking."""
    return {leaf for leaf, _ in ranked}


def penalty_figures(found: list, questions: list[tuple[str, set[str]]], processor: MintProcessor) -> dict:
    """Mean length of the first hit, and recall@1 of questions whose relevant title is short and long."""

    def num_tokens(title: str) -> int:
        return len(processor.encode_example("", (title,))[1])

    firsts = [processor.document(processor.trie.rows(best(ranked))[0])[0] if ranked else None for ranked in found]
    lengths = [[num_tokens(title) for title in relevant] for _, relevant in questions]
    short = [i for i, some in enumerate(lengths) if some and max(some) <= SHORT]
    long = [i for i, some in enumerate(lengths) if some and min(some) > SHORT]
    return {
        "mean_tokens_of_first": statistics.mean(num_tokens(title) for title in firsts if title is not None),
        "recall_at_1_short": share(short, lambda i: firsts[i] in questions[i][1]),
        "recall_at_1_long": share(long, lambda i: firsts[i] in questions[i][1]),
        "num_short": len(short),
        "num_long": len(long),
    }


def table(figures: dict) -> str:
    """The figures as Markdown tables."""
    lines = [f"{figures['queries']} queries; exact search: {json.dumps(figures['exact'])}", ""]
    for key in ("beams", "length_penalties"):
        columns = list(next(iter(figures[key].values())))
        lines += [f"| {key} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for setting, row in figures[key].items():
            cells = ["-" if cell is None else f"{cell:.4g}" for cell in row.values()]
            lines.append(f"| {setting} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(command_line: list[str] | None = None) -> None:
    """Measures, prints tables, and writes the figures where `--json` says."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses(command_line)
    with torch.inference_mode():
        figures = measure(arguments)
    print(table(figures))
    if arguments.json:
        write_text(Path(arguments.json), json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
