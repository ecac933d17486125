"""Peak memory of co-training: two adapters on one base, or two full models, beside training one adapter.

    python examples/benchmarks/co_training_memory.py --json co_training_memory.json

Co-training is: warm up RAG, then GAR; load both, and let each write queries, retrieve and answer; train both once more
on from there. All of it runs in one process, as the co-trainer does it, and every system in a process of its own. What
the process takes before it starts (imports, the collection, the title trie) is left out of the ratios.
"""

import os
import resource
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, load_from_disk
from measuring import in_fresh_process, machine, print_table, resident_bytes, spread, summarise, write_json
from mixed_examples import made_up_collection, made_up_examples
from peft import LoraConfig
from transformers import AutoTokenizer, HfArgumentParser

from dataset_builders.writing import write_collection
from modeling_mint import MintProcessor
from modeling_mint.compute_dtype import compute_dtype
from trainers.evaluation import predict_role
from trainers.role_models import AdapterModels, FullModels

sys.path.append(str(Path(__file__).parents[1]))
from assets import smollm2_folder  # noqa: E402

ONE_ADAPTER, TWO_ADAPTERS, FULL_MODELS = (
    "one adapter, trained",
    "two adapters, co-trained",
    "two full models, co-trained",
)
# What make sets for glibc keeps freed memory for the next step: peaks would tell of that, not of what is needed.
KEEPING_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
SYSTEMS = (ONE_ADAPTER, TWO_ADAPTERS, FULL_MODELS)


@dataclass
class Arguments:
    """
    Args:
        backbone (`str`, *optional*): folder or Hub id of the backbone with its tokenizer. Defaults to the demo's,
            SmolLM2-135M-Instruct.
        lora_rank (`int`, *optional*, defaults to 16): rank of the adapters, on all linear layers.
        num_steps (`int`, *optional*, defaults to 4): optimizer steps of each training.
        batch_size (`int`, *optional*, defaults to 8): examples of a step.
        num_documents (`int`, *optional*, defaults to 32): documents that each model writes for.
        inference_batch_size (`int`, *optional*, defaults to 16): queries worked on at a time.
        num_beams (`int`, *optional*, defaults to 10): beams of the docid search.
        bf16 (`bool`, *optional*, defaults to `True`): mixed precision of the full models, if the machine computes in
            bfloat16.
        repeats (`int`, *optional*, defaults to 3): turns.
        json (`str`, *optional*): file for the figures.
    """

    backbone: str = field(default="", metadata={"help": "Folder or Hub id of the backbone (default: the demo's)."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapters."})
    num_steps: int = field(default=4, metadata={"help": "Optimizer steps of each training."})
    batch_size: int = field(default=8, metadata={"help": "Examples of a step."})
    num_documents: int = field(default=32, metadata={"help": "Documents that each model writes for."})
    inference_batch_size: int = field(default=16, metadata={"help": "Queries worked on at a time."})
    num_beams: int = field(default=10, metadata={"help": "Beams of the docid search."})
    bf16: bool = field(default=True, metadata={"help": "Where the machine can, mixed precision of the full models."})
    repeats: int = field(default=3, metadata={"help": "Turns."})
    json: str = field(default="", metadata={"help": "File for the figures."})


def prepare(backbone: str, folder: Path, arguments: Arguments) -> None:
    """Writes the collection, the examples and the base of the adapters."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    write_collection(made_up_collection(1000), folder / "mint-collection")
    made_up_examples(arguments.num_steps * arguments.batch_size, tokenizer).save_to_disk(folder / "examples")
    processor = MintProcessor.from_backbone_pretrained(backbone, str(folder / "mint-collection"))
    AdapterModels.save_base(backbone, processor, folder / "mint-base")


def make_models(system: str, backbone: str, processor: MintProcessor, base: Path, rank: int):
    """The models of a system."""
    if system == FULL_MODELS:
        return FullModels(backbone, processor)
    return AdapterModels(base, processor, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


def write_and_answer(loaded: dict, processor: MintProcessor, arguments: Arguments) -> None:
    """Each model writes a query for each document, retrieves and answers."""
    rows, batch_size = list(range(arguments.num_documents)), arguments.inference_batch_size
    for role, model in loaded.items():
        model.set_role(role)
        samples = Dataset.from_dict({"query": model.write_queries(rows, processor, batch_size=batch_size).texts})
        predict_role(samples, processor, model, batch_size=batch_size, num_beams=arguments.num_beams)


def measure(system: str, backbone: str, folder: Path, turn: int, arguments: Arguments) -> dict:
    """
    Trains one adapter, or co-trains.

    Returns:
        `dict[str, int]`: bytes: `before` (taken before the first model), and the peak so far after each step:
        `warm_up_rag`; of co-training also `warm_up_gar`, `generate`, `train_rag`, `train_gar`.
    """
    on_gpu = torch.cuda.is_available()

    def peak_bytes() -> int:
        on_host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return torch.cuda.max_memory_allocated() if on_gpu else on_host

    work = folder / f"{SYSTEMS.index(system)}-{turn}"
    examples = load_from_disk(folder / "examples")
    processor = MintProcessor.from_backbone_pretrained(backbone, str(folder / "mint-collection"))
    training = {
        "max_steps": arguments.num_steps,
        "per_device_train_batch_size": arguments.batch_size,
        "learning_rate": 1e-4,
        "bf16": arguments.bf16 and compute_dtype() == torch.bfloat16,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    taken = {"before": 0 if on_gpu else resident_bytes()}
    models = make_models(system, backbone, processor, folder / "mint-base", arguments.lora_rank)
    models.train("rag", None, examples, work / "warm-rag", training)
    taken["warm_up_rag"] = peak_bytes()
    if system == ONE_ADAPTER:
        return taken
    models.train("gar", None, examples, work / "warm-gar", training)
    taken["warm_up_gar"] = peak_bytes()
    warm = {role: work / f"warm-{role}" for role in ("rag", "gar")}
    write_and_answer(models.load(warm), processor, arguments)
    taken["generate"] = peak_bytes()
    for role, start in warm.items():
        models.train(role, start, examples, work / f"trained-{role}", training)
        taken[f"train_{role}"] = peak_bytes()
    return taken


def compare(backbone: str, folder: Path, arguments: Arguments) -> dict:
    """
    Measures the systems in turn.

    Returns:
        `dict`: `peak_bytes` (a summary per system), `net_bytes` (the same without what was taken before),
        `to_one_adapter` (ratio of the medians of `net_bytes` by system) and `steps` (per system what [`measure`]
        returned in the first turn).
    """
    in_fresh_process(prepare, backbone, folder, arguments)
    turns = {system: [] for system in SYSTEMS}
    for turn in range(arguments.repeats):
        for system, measured in turns.items():
            measured.append(in_fresh_process(measure, system, backbone, folder, turn, arguments))
    peak = {system: [max(taken.values()) for taken in measured] for system, measured in turns.items()}
    net = {
        system: summarise([most - taken["before"] for most, taken in zip(peak[system], measured, strict=True)])
        for system, measured in turns.items()
    }
    return {
        "peak_bytes": {system: summarise(values) for system, values in peak.items()},
        "net_bytes": net,
        "to_one_adapter": {system: net[system]["median"] / net[ONE_ADAPTER]["median"] for system in SYSTEMS},
        "steps": {system: measured[0] for system, measured in turns.items()},
    }


def print_result(result: dict) -> None:
    """Prints what was measured, and the ratio beside what it should be."""

    def megabytes(summary: dict) -> str:
        return spread({key: value / 1e6 for key, value in summary.items()}, 0)

    rows = [
        [system, megabytes(result["peak_bytes"][system]), megabytes(net), f"{result['to_one_adapter'][system]:.2f}"]
        for system, net in result["net_bytes"].items()
    ]
    print_table(["system", "peak MB", "peak MB without what was there before", "times one adapter"], rows)
    for system, taken in result["steps"].items():
        print(f"{system}: " + ", ".join(f"{step} {most / 1e6:.0f}" for step, most in taken.items()))
    print(f"\ntwo adapters at most 1.2 times one: {result['to_one_adapter'][TWO_ADAPTERS]:.3f}")


def main() -> None:
    """Measures, prints the table, and writes the report where `--json` says."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    for name in KEEPING_MEMORY:
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(arguments.backbone or str(smollm2_folder()), Path(folder), arguments)
    print_result(result)
    report = {"machine": machine(), "settings": asdict(arguments)} | result
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
