"""Tokens per second and peak memory of the joint trainer: beside the plain trainers that it extends, and by the way
batches are made.

    python examples/benchmarks/training.py --run outputs/demo --json training.json

*Plain* is what one would write without MINT: TRL's SFTTrainer with completion-only loss on the same token ids for a
decoder-only backbone, transformers' Seq2SeqTrainer for an encoder-decoder. It trains the same backbone on the same
batches in the same order, those of an epoch that is grouped by length. *Naive* are the same examples in random order,
each batch padded to its longest; *packed* the same examples one behind the other (decoder-only). All in the same
precision and attention, with the same optimizer, without gradient checkpointing.

Tokens are those of prompts and targets, padding left out. Every measurement has a process of its own, systems take
turns, the first steps are left out. A ratio is the median of the turns' ratios.
"""

import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, load_from_disk
from measuring import in_fresh_process, machine, print_table, spread, summarise, write_json
from mixed_examples import made_up_examples, run_examples, save_random_t5, two_orders
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    ProgressCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.compute_dtype import compute_dtype
from trainers.joint_trainer import joint_trainer

sys.path.append(str(Path(__file__).parents[1]))
from assets import smollm2_folder  # noqa: E402

DECODER, ENCODER_DECODER = "decoder-only", "encoder-decoder"
GROUPED, PACKED, NAIVE = "joint, grouped", "joint, packed", "joint, naive"
PLAIN = {DECODER: "plain SFTTrainer, grouped", ENCODER_DECODER: "plain Seq2SeqTrainer, grouped"}
SYSTEMS = {
    DECODER: [GROUPED, PLAIN[DECODER], PACKED, NAIVE],
    ENCODER_DECODER: [GROUPED, PLAIN[ENCODER_DECODER], NAIVE],
}


@dataclass
class Arguments:
    """
    Args:
        run (`str`, *optional*): folder of a finished run, whose samples are trained on. Without it examples are made
            up, with the tasks and lengths of the demo's, see `mixed_examples.py`.
        backbone (`str`, *optional*): folder or Hub id of a decoder-only backbone with its tokenizer. Defaults to the
            demo's, SmolLM2-135M-Instruct.
        encoder_decoder (`str`, *optional*): folder or Hub id of an encoder-decoder backbone with its tokenizer.
            Defaults to a random T5 of t5-small's size over the other backbone's vocabulary.
        max_document_chars (`int`, *optional*, defaults to 220): characters of a document in a prompt, with `run`.
        num_examples (`int`, *optional*, defaults to 4000): examples of the epoch that batches are taken from.
        num_steps (`int`, *optional*, defaults to 16): optimizer steps that are timed, spread over the epoch.
        warmup_steps (`int`, *optional*, defaults to 2): steps before them that are not.
        batch_size (`int`, *optional*, defaults to 8): examples of a step.
        repeats (`int`, *optional*, defaults to 5): turns.
        bf16 (`bool`, *optional*, defaults to `True`): mixed precision, if the machine computes in bfloat16.
        attention (`str`, *optional*, defaults to `"eager"`): attention implementation.
        json (`str`, *optional*): file for the figures.
    """

    run: str = field(default="", metadata={"help": "Folder of a finished run (default: made-up examples)."})
    backbone: str = field(default="", metadata={"help": "Decoder-only backbone (default: the demo's)."})
    encoder_decoder: str = field(default="", metadata={"help": "Encoder-decoder backbone (default: a random T5)."})
    max_document_chars: int = field(default=220, metadata={"help": "Characters of a document in a prompt."})
    num_examples: int = field(default=4000, metadata={"help": "Examples of the epoch that batches are taken from."})
    num_steps: int = field(default=16, metadata={"help": "Optimizer steps that are timed."})
    warmup_steps: int = field(default=2, metadata={"help": "Steps before them that are not."})
    batch_size: int = field(default=8, metadata={"help": "Examples of a step."})
    repeats: int = field(default=5, metadata={"help": "Turns."})
    bf16: bool = field(default=True, metadata={"help": "Where the machine can, mixed precision."})
    attention: str = field(default="eager", metadata={"help": "Attention implementation."})
    json: str = field(default="", metadata={"help": "File for the figures."})


class Counter:
    """
    Counts what a collator's batches hold: `tokens` of prompts and targets, `positions` that the model runs on, and how
    many of those are `padding`.
    """

    def __init__(self, collator, is_encoder_decoder: bool):
        self.collator = collator
        self.is_encoder_decoder = is_encoder_decoder
        self.tokens, self.positions, self.padding = [], [], []

    def __call__(self, examples: list[dict]) -> dict:
        batch = self.collator(examples)
        # Rows without padding have no mask.
        masks = [batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"])]
        if self.is_encoder_decoder:
            masks.append(batch["labels"] != -100)
        self.tokens.append(sum(map(self._num_tokens, examples)))
        self.positions.append(sum(mask.numel() for mask in masks))
        self.padding.append(sum(int((mask == 0).sum()) for mask in masks))
        return batch

    def _num_tokens(self, example: dict) -> int:
        if "length" in example:
            return example["length"]
        return len(example["input_ids"]) + (len(example["labels"]) if self.is_encoder_decoder else 0)


class Stopwatch(TrainerCallback):
    """Times training from the end of step `warmup_steps` to the end of the last one."""

    def __init__(self, warmup_steps: int):
        self.warmup_steps = warmup_steps

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warmup_steps:
            self.start = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.start


def make_trainer(system: str, kind: str, backbone: str, examples: Dataset, common: dict, attention: str):
    """The trainer of a system, on examples that are in its order."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    options = {"dtype": torch.float32, "attn_implementation": attention}
    if system != PLAIN[kind]:
        model = MintForConditionalGeneration.from_backbone_pretrained(backbone, **options)
        return joint_trainer(model, common, examples, MintProcessor(tokenizer))
    if kind == ENCODER_DECODER:
        model = AutoModelForSeq2SeqLM.from_pretrained(backbone, **options)
        columns = {"input_ids": examples["prompt_ids"][:], "labels": examples["target_ids"][:]}
        return Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(**common),
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
        )
    pairs = list(zip(examples["prompt_ids"], examples["target_ids"], strict=True))
    columns = {
        "input_ids": [prompt + target for prompt, target in pairs],
        "completion_mask": [[0] * len(prompt) + [1] * len(target) for prompt, target in pairs],
    }
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(backbone, **options),
        args=SFTConfig(**common, completion_only_loss=True, max_length=None),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )


def measure(system: str, kind: str, backbone: str, folder: str, arguments: Arguments) -> dict:
    """
    Trains on the examples in `folder`.

    Returns:
        `dict`: `tokens_per_second`, `peak_bytes`, `tokens` (of the timed steps), `tokens_by_step` (of all steps) and
        `padding` (share of the positions that the model runs on).
    """
    set_seed(0)
    examples = load_from_disk(folder)
    common = {
        "output_dir": f"{folder}-output",
        "num_train_epochs": 1,
        "per_device_train_batch_size": arguments.batch_size,
        "train_sampling_strategy": "sequential",
        "learning_rate": 1e-5,
        "bf16": arguments.bf16 and compute_dtype() == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": False,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
    }
    if system == PACKED:
        # Rows as long as the longest example, and as many of them as hold the tokens of a batch.
        longest, total = max(examples["length"]), sum(examples["length"])
        rows = max(1, round(arguments.batch_size * total / len(examples) / longest))
        common |= {"packing": True, "max_length": longest, "per_device_train_batch_size": rows}
    trainer = make_trainer(system, kind, backbone, examples, common, arguments.attention)
    trainer.data_collator = counter = Counter(trainer.data_collator, kind == ENCODER_DECODER)
    stopwatch = Stopwatch(arguments.warmup_steps)
    trainer.add_callback(stopwatch)
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    counts = (counter.tokens, counter.positions, counter.padding)
    tokens, positions, padding = (sum(by_step[arguments.warmup_steps :]) for by_step in counts)
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens_per_second": tokens / stopwatch.seconds,
        "peak_bytes": peak,
        "tokens": tokens,
        "tokens_by_step": counter.tokens,
        "padding": padding / positions,
    }


def save_examples(arguments: Arguments, backbone: str, folder: Path) -> None:
    """Writes the examples of one backbone to `grouped/` and `naive/`: the same ones, in the two orders."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    if arguments.run:
        pool = run_examples(arguments.run, arguments.num_examples, tokenizer, arguments.max_document_chars)
    else:
        pool = made_up_examples(arguments.num_examples, tokenizer)
    grouped, naive = two_orders(pool, arguments.batch_size, arguments.warmup_steps, arguments.num_steps)
    grouped.save_to_disk(folder / "grouped")
    naive.save_to_disk(folder / "naive")


def compare(kind: str, backbone: str, folder: Path, arguments: Arguments) -> dict:
    """
    Measures the systems of one kind of backbone in turn.

    Returns:
        `dict`: `systems` (per system what [`measure`] returned, speed and memory as summaries), `joint_to_plain` and
        `to_naive` (ratios of tokens per second; the latter by way of batching).
    """
    save_examples(arguments, backbone, folder)
    turns = {system: [] for system in SYSTEMS[kind]}
    for _ in range(arguments.repeats):
        for system, measured in turns.items():
            order = str(folder / ("naive" if system in (NAIVE, PACKED) else "grouped"))
            measured.append(in_fresh_process(measure, system, kind, backbone, order, arguments))

    def ratio(system: str, other: str) -> float:
        pairs = zip(turns[system], turns[other], strict=True)
        return statistics.median(one["tokens_per_second"] / two["tokens_per_second"] for one, two in pairs)

    systems = {
        system: {name: summarise([turn[name] for turn in measured]) for name in ("tokens_per_second", "peak_bytes")}
        | {name: measured[0][name] for name in ("tokens", "tokens_by_step", "padding")}
        for system, measured in turns.items()
    }
    batchings = [system for system in (GROUPED, PACKED) if system in turns]
    return {
        "systems": systems,
        "joint_to_plain": ratio(GROUPED, PLAIN[kind]),
        "to_naive": {system: ratio(system, NAIVE) for system in batchings},
    }


def print_result(kind: str, result: dict) -> None:
    """Prints what was measured, and the ratios beside what they should be."""
    rows = [
        [
            system,
            spread(figures["tokens_per_second"], 1),
            f"{figures['peak_bytes']['median'] / 1e6:.0f}",
            str(figures["tokens"]),
            f"{figures['padding']:.0%}",
        ]
        for system, figures in result["systems"].items()
    ]
    print_table([kind, "tokens per second", "peak MB", "tokens", "padding"], rows)
    best = max(result["to_naive"].values())
    print(f"at least 0.97 times plain: {result['joint_to_plain']:.3f}; at least 1.4 times naive: {best:.2f}\n")


def main() -> None:
    """Measures, prints a table for each kind of backbone, and writes the report where `--json` says."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        decoder = arguments.backbone or str(smollm2_folder())
        backbones = {DECODER: decoder}
        backbones[ENCODER_DECODER] = arguments.encoder_decoder or save_random_t5(decoder, folder / "t5")
        for kind, backbone in backbones.items():
            results[kind] = compare(kind, backbone, folder / kind, arguments)
            print_result(kind, results[kind])
    report = {"machine": machine(), "settings": asdict(arguments), "results": results}
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
