"""Queries per second and latency of docid search over 10,033 real titles: MINT's own, and transformers' `generate`.

    python examples/benchmarks/docid_search.py --json docid_search.json

All systems search with the same model, beams, batches and precision, in turn, and score a docid by the plain sum of
its log-probabilities (`length_penalty=0.0, early_stopping="never"` in `generate`); `trie` renormalises over what the
trie allows and so ranks otherwise. The T5 is random, of t5-small's size, with a tokenizer learnt from the articles.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peers
import torch
from datasets import Dataset
from measuring import machine, print_table, spread, summarise, write_json
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LogitsProcessorList, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from dataset_builders.features import COLLECTION_FEATURES
from modeling_mint import MintForConditionalGeneration, MintProcessor, TitleTrieLogitsProcessor, format_prompt
from modeling_mint.tokenization_mint import encode_targets

sys.path.append(str(Path(__file__).parents[1]))
from assets import smollm2_folder, vital_articles  # noqa: E402

QUESTIONS = Path(__file__).parents[1] / "data" / "vital_questions.jsonl"
SMOLLM2, RANDOM_T5 = "smollm2-135m-instruct", "t5-small-random"
OURS, OURS_TRIE = "retrieve, vocabulary", "retrieve, trie"
GENERATE, REFERENCE = "generate, TitleTrieLogitsProcessor", "generate, prefix_allowed_tokens_fn"
TOLERANCE = 1e-4

# What was found for one query: (row of the collection, score), best first.
Ranking = list[tuple[int, float]]


def load_collection(num_documents: int | None) -> Dataset:
    """The articles (the first `num_documents` of them) as a collection."""
    articles = list(json.loads(vital_articles().read_text(encoding="utf-8")).values())[:num_documents]
    columns = dict.fromkeys(COLLECTION_FEATURES, "") | {"related": []}
    return Dataset.from_list(
        [columns | {"title": article["title"], "text": article["extract"], "metadata": "{}"} for article in articles],
        features=COLLECTION_FEATURES,
    )


def save_random_t5(folder: Path, collection: Dataset, seed: int = 0) -> None:
    """Saves a random T5 of t5-small's size, and a tokenizer of 32,000 pieces learnt from the collection."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=32_000, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(collection["title"][:] + collection["text"][:], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    T5ForConditionalGeneration(T5Config(decoder_start_token_id=tokenizer.pad_token_id)).save_pretrained(folder)


def make_systems(
    model: MintForConditionalGeneration, processor: MintProcessor, arguments: argparse.Namespace
) -> dict[str, Callable[[list[str]], list[Ranking]]]:
    """The searches to compare, each from queries to rankings; they take their queries in the order given."""
    trie, eos_token_id = processor.trie, processor.tokenizer.eos_token_id
    paths = encode_targets(processor.tokenizer, processor.collection["title"][:])
    root = peers.dict_trie(np.concatenate(paths), np.array([len(path) for path in paths]))

    def retrieve(scoring: str) -> Callable:
        def search(queries: list[str]) -> list[Ranking]:
            found = model.retrieve(
                queries,
                processor,
                arguments.k,
                num_beams=arguments.num_beams,
                scoring=scoring,
                batch_size=arguments.batch_size,
            )
            return [list(zip(*ranking, strict=True)) for ranking in zip(found.rows, found.scores, strict=True)]

        return search

    def generate(constrain: Callable[[int], dict]) -> Callable:
        def search(queries: list[str]) -> list[Ranking]:
            rankings = []
            for start in range(0, len(queries), arguments.batch_size):
                batch = queries[start : start + arguments.batch_size]
                inputs = processor([format_prompt("query_to_docid", query=query) for query in batch])
                prompt_length = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
                output = model.generate(
                    **inputs,
                    **constrain(prompt_length),
                    num_beams=arguments.num_beams,
                    num_return_sequences=arguments.k,
                    max_new_tokens=trie.max_depth,
                    do_sample=False,
                    length_penalty=0.0,
                    early_stopping="never",
                    pad_token_id=processor.tokenizer.pad_token_id,
                    eos_token_id=eos_token_id,
                    return_dict_in_generate=True,
                    output_scores=True,
                )
                leaves = trie.walk(output.sequences[:, prompt_length:]).tolist()
                rows = [trie.rows(leaf)[0] for leaf in leaves]
                found = list(zip(rows, output.sequences_scores.tolist(), strict=True))
                rankings += [found[i : i + arguments.k] for i in range(0, len(found), arguments.k)]
            return rankings

        return search

    return {
        OURS: retrieve("vocabulary"),
        OURS_TRIE: retrieve("trie"),
        GENERATE: generate(
            lambda prompt_length: {
                "logits_processor": LogitsProcessorList([TitleTrieLogitsProcessor(trie, prompt_length)])
            }
        ),
        REFERENCE: generate(
            lambda prompt_length: {
                "prefix_allowed_tokens_fn": peers.dict_allowed_tokens(root, prompt_length, eos_token_id)
            }
        ),
    }


def same_ranking(found: Ranking, reference: Ranking) -> bool:
    """
    Tells whether two rankings are the same: place by place the same document, or one whose score differs by no more
    than `TOLERANCE` from the document's there; and every score within `TOLERANCE`.
    """
    return len(found) == len(reference) and all(
        abs(found_score - reference_score) <= TOLERANCE
        and (
            found_row == reference_row
            or any(row == found_row and abs(score - reference_score) <= TOLERANCE for row, score in reference)
            or reference_score - reference[-1][1] <= TOLERANCE
        )
        for (found_row, found_score), (reference_row, reference_score) in zip(found, reference, strict=True)
    )


def same_set(found: Ranking, reference: Ranking) -> bool:
    """Tells whether two rankings hold the same documents, whatever their order and scores."""
    return {row for row, _ in found} == {row for row, _ in reference}


def measure(name: str, collection: Dataset, queries: list[str], arguments: argparse.Namespace) -> dict:
    """
    Compares the systems on one backbone.

    Returns:
        `dict`: per system `queries_per_second`, `latency_seconds` (of one query at a time), `same_top_k` (share of
        queries with the ranking of `REFERENCE`) and `same_top_k_set` (share with its documents).
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = smollm2_folder() if name == SMOLLM2 else Path(name)
        if name == RANDOM_T5:
            folder = Path(temporary)
            save_random_t5(folder, collection)
        model = MintForConditionalGeneration.from_backbone_pretrained(folder, dtype=getattr(torch, arguments.dtype))
        processor = MintProcessor.from_backbone_pretrained(folder, collection)
    systems = make_systems(model, processor, arguments)
    # `retrieve` sorts its queries by length; so sorted, `generate` gets the same batches.
    queries = sorted(queries, key=len)
    found = {system: search(queries) for system, search in systems.items()}
    # A renormalised score ranks otherwise and is not compared.
    compared = [system for system in systems if system != OURS_TRIE]

    speed, latency = {system: [] for system in systems}, {system: [] for system in systems}
    for _ in range(arguments.repeats):
        for system, search in systems.items():
            start = time.perf_counter()
            search(queries)
            speed[system].append(len(queries) / (time.perf_counter() - start))
    for query in queries[: arguments.num_latency_queries]:
        for system, search in systems.items():
            start = time.perf_counter()
            search([query])
            latency[system].append(time.perf_counter() - start)

    def share(same: Callable[[Ranking, Ranking], bool]) -> dict[str, float]:
        pairs = {system: list(zip(found[system], found[REFERENCE], strict=True)) for system in compared}
        return {system: sum(same(*pair) for pair in pairs[system]) / len(queries) for system in compared}

    return {
        "queries_per_second": {system: summarise(values) for system, values in speed.items()},
        "latency_seconds": {system: summarise(values) for system, values in latency.items()},
        "same_top_k": share(same_ranking),
        "same_top_k_set": share(same_set),
    }


def print_result(name: str, result: dict) -> None:
    """Prints one backbone's table."""
    print(f"{name} (median / min / max)\n")
    reference = result["queries_per_second"][REFERENCE]["median"]
    print_table(
        ["system", "queries per second", "times the last", "latency s", "same top k", "same documents"],
        [
            [
                system,
                spread(speed, 2),
                f"{speed['median'] / reference:.1f}",
                spread(result["latency_seconds"][system], 2),
                f"{result['same_top_k'][system]:.1%}" if system in result["same_top_k"] else "",
                f"{result['same_top_k_set'][system]:.1%}" if system in result["same_top_k_set"] else "",
            ]
            for system, speed in result["queries_per_second"].items()
        ],
    )


def main() -> None:
    """Measures, prints tables, and writes the report where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", default=[SMOLLM2, RANDOM_T5], help="These two, or folders of backbones of either kind."
    )
    parser.add_argument("--num_documents", type=int, help="Articles in the collection (default: all 10,033).")
    parser.add_argument("--num_queries", type=int, default=32)
    parser.add_argument("--num_latency_queries", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_beams", type=int, default=10)
    parser.add_argument("--k", type=int, default=10, help="Documents per query, at most --num_beams.")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="File to write the report to.")
    arguments = parser.parse_args()

    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["input"] for line in random.Random(0).sample(lines, arguments.num_queries)]
    collection = load_collection(arguments.num_documents)
    results = {}
    for name in arguments.model:
        results[name] = measure(name, collection, queries, arguments)
        print_result(name, results[name])
    # One entry a measure, with the backbones below it.
    measures = next(iter(results.values()))
    report = {measure: {name: result[measure] for name, result in results.items()} for measure in measures}
    settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "model")}
    report = {"machine": machine(), "settings": settings | {"num_documents": len(collection)}} | report
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
