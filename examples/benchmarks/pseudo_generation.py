"""Pseudo-samples per second: MINT's local engine, a loop of `model.generate`, and transformers' pipeline in batches.

    python examples/benchmarks/pseudo_generation.py --json pseudo_generation.json

All systems continue the same prompts (few-shot examples, a passage) with the same model in the same precision,
greedily, and stop at the end of a reply's second line, in turn. Not all replies are the same text: in bfloat16 the
sums of a batch round otherwise than those of one row, so that near ties between two tokens fall the other way; and
only MINT's engine writes the label of the second line itself. So it is counted how many are the same and how many have
the form.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import machine, print_table, spread, summarise, write_json
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    pipeline,
)

from dataset_builders.local_llm import LocalLLM
from dataset_builders.passages import split_passages
from dataset_builders.prompt_template import PROMPT_FOLDER, PromptTemplate
from dataset_builders.replies import QUERY_AND_ANSWER
from dataset_builders.writing import load_collection

sys.path.append(str(Path(__file__).parents[1]))
from assets import smollm2_folder, vital_articles  # noqa: E402

OURS, LOOP = "LocalLLM", "generate, one by one"
MAX_NEW_TOKENS = 48
PASSAGE_CHARS = 450


class SecondLineEnd(StoppingCriteria):
    """Ends a row two line ends behind a prompt that has `num_line_ends` of them; MINT's engine stops there, too."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_line_ends: int):
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        self.line_ends_of_token = torch.tensor([text.count("\n") for text in texts])
        self.num_line_ends = num_line_ends

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        found = self.line_ends_of_token.to(input_ids.device)[input_ids].sum(dim=1)
        return found >= self.num_line_ends + 2


def make_prompts(template: PromptTemplate, arguments: argparse.Namespace) -> list[str]:
    """The prompts of `num_documents` random documents: of each its first passage."""
    if arguments.collection:
        collection = load_collection(arguments.collection)
        documents = list(zip(collection["title"], collection["text"], strict=True))
    else:
        articles = json.loads(vital_articles().read_text(encoding="utf-8")).values()
        documents = [(article["title"], article["extract"]) for article in articles]
    documents = random.Random(0).sample(documents, len(documents))
    passages = (split_passages(title, text, PASSAGE_CHARS) for title, text in documents)
    prompts = [template.render(passage=found[0]) for found in passages if found]
    return prompts[: arguments.num_documents]


def make_systems(
    llm: str, template: PromptTemplate, arguments: argparse.Namespace
) -> dict[str, Callable[[list[str]], list[str]]]:
    """The systems to compare, each from prompts to replies; MINT's first, the loop second."""
    ours = LocalLLM(llm, dtype=arguments.dtype, batch_size=arguments.batch_size)
    tokenizer = AutoTokenizer.from_pretrained(llm, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(llm, dtype=arguments.dtype).to(ours.model.device).eval()
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    num_line_ends = template.render(passage="").count("\n")
    options = {
        "max_new_tokens": MAX_NEW_TOKENS,
        "do_sample": False,
        "stopping_criteria": StoppingCriteriaList([SecondLineEnd(tokenizer, num_line_ends)]),
    }

    def local_llm(prompts):
        prefix = template.shared_prefix
        suffixes = [prompt.removeprefix(prefix) for prompt in prompts]
        replies = dict(ours.complete(suffixes, QUERY_AND_ANSWER, shared_prefix=prefix, max_new_tokens=MAX_NEW_TOKENS))
        return [replies[i].text for i in range(len(prompts))]

    def loop(prompts):
        replies = []
        for prompt in prompts:
            inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
            output = model.generate(**inputs, **options)
            replies.append(tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
        return replies

    def in_batches(batch_size):
        return lambda prompts: [
            reply["generated_text"]
            for (reply,) in generator(prompts, batch_size=batch_size, return_full_text=False, **options)
        ]

    batched = {f"pipeline, batches of {size}": in_batches(size) for size in arguments.pipeline_batch_sizes}
    return {OURS: local_llm, LOOP: loop} | batched


def measure(systems: dict[str, Callable], prompts: list[str], arguments: argparse.Namespace) -> dict:
    """
    Times all systems in turn, `repeats` times; the loop on the first `loop_documents` prompts.

    Returns:
        `dict`: `samples_per_second` (a summary per system), `times` (MINT's median over that of each other system),
        `same_text` and `parsed` (per system: how many replies are MINT's to the letter, and how many have the form),
        `asked` (per system: prompts) and `replies` (per system: the texts).
    """
    asked = {name: prompts[: arguments.loop_documents] if name == LOOP else prompts for name in systems}
    speeds, replies = {name: [] for name in systems}, {}
    for system in systems.values():
        system(prompts[:2])
    for _ in range(arguments.repeats):
        for name, system in systems.items():
            start = time.perf_counter()
            texts = system(asked[name])
            speeds[name].append(len(texts) / (time.perf_counter() - start))
            # What stands behind the second line's end in the same token, and spaces, are no difference.
            replies[name] = ["\n".join(line.strip() for line in text.split("\n")[:2]) for text in texts]
    speeds = {name: summarise(values) for name, values in speeds.items()}
    return {
        "samples_per_second": speeds,
        "times": {name: speeds[OURS]["median"] / speed["median"] for name, speed in speeds.items()},
        "same_text": {
            name: sum(text == ours for text, ours in zip(texts, replies[OURS], strict=False))
            for name, texts in replies.items()
        },
        "parsed": {
            name: sum(QUERY_AND_ANSWER.parse(text) is not None for text in texts) for name, texts in replies.items()
        },
        "asked": {name: len(texts) for name, texts in asked.items()},
        "replies": replies,
    }


def print_result(result: dict) -> None:
    """Prints what was measured, and MINT's speed beside what it should be."""
    rows = [
        [
            name,
            spread(speed, 2),
            f"{result['times'][name]:.2f}",
            f"{result['same_text'][name]} of {result['asked'][name]}",
            f"{result['parsed'][name]} of {result['asked'][name]}",
        ]
        for name, speed in result["samples_per_second"].items()
    ]
    print_table(["system", "samples per second", "times as fast is MINT", "same text as MINT's", "in the form"], rows)
    pipelines = min(times for name, times in result["times"].items() if name.startswith("pipeline"))
    print(f"at least 5 times the loop: {result['times'][LOOP]:.2f}; at least 1.3 times the pipeline: {pipelines:.2f}")


def main() -> None:
    """Measures, prints the table, and writes the report where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", help="Folder or Hub id of the model (default: SmolLM2-135M-Instruct).")
    parser.add_argument("--collection", help="Folder or Hub id of a collection (default: the vital articles).")
    parser.add_argument("--num_documents", type=int, default=64)
    parser.add_argument("--loop_documents", type=int, default=16, help="Documents for the loop, which is slow.")
    parser.add_argument("--batch_size", type=int, default=32, help="Batch of MINT's engine.")
    parser.add_argument("--pipeline_batch_sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="File to write the report to.")
    arguments = parser.parse_args()

    template = PromptTemplate(PROMPT_FOLDER / "query_and_answer.jinja", {"passage"})
    prompts = make_prompts(template, arguments)
    systems = make_systems(arguments.llm or str(smollm2_folder()), template, arguments)
    result = measure(systems, prompts, arguments)
    print_result(result)
    settings = {key: value for key, value in vars(arguments).items() if key != "json"}
    report = {"machine": machine(), "settings": settings | {"num_documents": len(prompts)}} | result
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
