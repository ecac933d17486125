"""Does it pay to filter auxiliary data? Retrieval learnt from filtered replies against as many unfiltered ones.

python examples/benchmarks/auxiliary_quality.py --collection outputs/mine/mint-collection --llm smollm2 \
    --journal outputs/mine/work/auxiliary --labelled dev.jsonl --json auxiliary_quality.json
"""

import json
import random
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from measuring import machine, print_table
from transformers import HfArgumentParser

from dataset_builders.auxiliary import AuxiliaryBuilder
from dataset_builders.basic import BasicBuilder
from dataset_builders.features import SAMPLE_FEATURES
from dataset_builders.quality import QualityArguments
from dataset_builders.writing import build, load_collection, write_text
from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.compute_dtype import compute_dtype
from modeling_mint.tasks_mint import TASKS
from trainers.evaluation import title_in_query
from trainers.task_examples import tokenize_examples
from trainers.training_stage import train_stage

ARMS = {"filtered": True, "unfiltered": False}
SUBSETS = ("all", "title_in_query", "title_not_in_query")


@dataclass
class Arguments:
    """
    The filters take the options of `QualityArguments`, such as `--max_bm25_rank 10`; a folder `--work` belongs to one
    setting of them.

    Args:
        collection (`str`): folder or Hub id of the collection.
        llm (`str`): folder, Hub id or URL of the LLM that wrote the replies.
        journal (`str`): folder of the LLM's replies; those that are missing are asked for.
        labelled (`str`): KILT JSONL of the queries to judge by.
        backbone (`str`, *optional*): folder or Hub id of the model to train. Defaults to `llm`.
        work (`str`, *optional*, defaults to `"outputs/auxiliary_quality"`): folder of what was computed so far; a run
            that was interrupted goes on from there.
        num_documents (`int`, *optional*, defaults to 0): documents that the LLM writes for; 0 takes the collection.
        num_samples (`int`, *optional*, defaults to 2000): training samples of each arm.
        seeds (`list[int]`, *optional*, defaults to `[0, 1]`): each draws its own samples and trains both arms once.
        learning_rate (`float`, *optional*, defaults to 1e-4): of all weights, linear to zero.
        batch_size (`int`, *optional*, defaults to 16): samples of an optimizer step.
        num_beams (`int`, *optional*, defaults to 5): beams of the docid search.
        json (`str`, *optional*): file for the figures.
    """

    collection: str = field(metadata={"help": "Folder or Hub id of the collection."})
    llm: str = field(metadata={"help": "LLM that wrote the replies."})
    journal: str = field(metadata={"help": "Folder of the LLM's replies."})
    labelled: str = field(metadata={"help": "KILT JSONL of the queries to judge by."})
    backbone: str = field(default="", metadata={"help": "Model to train (default: the LLM)."})
    work: str = field(default="outputs/auxiliary_quality", metadata={"help": "Folder of what was computed so far."})
    num_documents: int = field(default=0, metadata={"help": "Documents that the LLM writes for (0: all)."})
    num_samples: int = field(default=2000, metadata={"help": "Training samples of each arm."})
    seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "Seeds of draws and training."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate."})
    batch_size: int = field(default=16, metadata={"help": "Samples of an optimizer step."})
    num_beams: int = field(default=5, metadata={"help": "Beams of the docid search."})
    json: str = field(default="", metadata={"help": "File for the figures."})


def arms(arguments: Arguments, quality: QualityArguments) -> dict[str, Dataset]:
    """All samples of each arm, from the same replies."""
    collection = load_collection(arguments.collection)
    return {
        name: build(
            AuxiliaryBuilder(
                cache_dir=f"{arguments.work}/cache",
                collection=arguments.collection,
                llm=arguments.llm,
                journal=arguments.journal,
                num_documents=arguments.num_documents or len(collection),
                num_related=0,
                filter=filtered,
                quality=quality,
            )
        )["train"]
        for name, filtered in ARMS.items()
    }


def retrieval_samples(samples: Dataset, number: int, seed: int) -> Dataset:
    """
    A random draw of samples as `query_to_docid` alone learns from them: as if a human had named the source document.
    """
    chosen = samples.select(sorted(random.Random(seed).sample(range(len(samples)), number)))
    rows = [sample | {"source": "labelled", "docids": sample["docids"][:1], "answers": []} for sample in chosen]
    return Dataset.from_list(rows, features=SAMPLE_FEATURES)


def hits(arguments: Arguments, name: str, seed: int, samples: Dataset, judged: Dataset) -> list[bool]:
    """Trains one arm and says for each judged query whether its first docid is a gold one; computed once."""
    path = Path(arguments.work) / f"hits-{name}-{seed}.json"
    if not path.is_file():
        backbone = arguments.backbone or arguments.llm
        processor = MintProcessor.from_backbone_pretrained(backbone, load_collection(arguments.collection))
        only_retrieval = dict.fromkeys(TASKS.keys() - {"query_to_docid"}, 0.0)
        examples = tokenize_examples(
            retrieval_samples(samples, arguments.num_samples, seed), "rag", processor, task_rates=only_retrieval
        )
        model = MintForConditionalGeneration.from_backbone_pretrained(backbone, role="rag", dtype=torch.float32)
        folder = Path(arguments.work) / f"model-{name}-{seed}"
        train_stage(
            model,
            examples,
            processor,
            folder,
            {
                "num_train_epochs": 1,
                "learning_rate": arguments.learning_rate,
                "per_device_train_batch_size": arguments.batch_size,
                "lr_scheduler_type": "linear",
                "warmup_steps": 0.05,
                "bf16": compute_dtype() == torch.bfloat16,
                "use_cpu": not torch.cuda.is_available(),
                "gradient_checkpointing": False,
                "logging_steps": 25,
                "save_steps": 50,
                "save_total_limit": 1,
                "report_to": "none",
                "seed": seed,
            },
        )
        del model
        trained = MintForConditionalGeneration.from_pretrained(folder, dtype=compute_dtype()).eval()
        found = trained.retrieve(judged["query"], processor, num_beams=arguments.num_beams, k=1, show_progress=True)
        first_is_gold = [rows[0] in gold for rows, gold in zip(found.rows, judged["rows"], strict=True)]
        write_text(path, json.dumps(first_is_gold) + "\n")
        shutil.rmtree(folder)
    return json.loads(path.read_text(encoding="utf-8"))


def interval(differences: np.ndarray, draws: int = 10_000) -> list[float]:
    """Bootstrap 95 % interval of the mean over queries; `differences` has one value per query."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(differences), size=(draws, len(differences)), dtype=np.int32)
    return np.quantile(differences[chosen].mean(axis=1), [0.025, 0.975]).tolist()


def main() -> None:
    """Builds both arms, trains and judges them, prints the table and writes the figures where `--json` says."""
    arguments, quality = HfArgumentParser((Arguments, QualityArguments)).parse_args_into_dataclasses()
    Path(arguments.work).mkdir(parents=True, exist_ok=True)
    samples = arms(arguments, quality)
    if (available := min(map(len, samples.values()))) < arguments.num_samples:
        raise ValueError(
            f"--num_samples is {arguments.num_samples}, and an arm has {available} samples. Ask for fewer."
        )
    judged = build(
        BasicBuilder(
            cache_dir=f"{arguments.work}/cache", data_files=arguments.labelled, collection=arguments.collection
        )
    )["train"]
    contains = np.array([title_in_query(sample) for sample in judged])
    members = dict(zip(SUBSETS, (np.ones_like(contains), contains, ~contains), strict=True))
    figures = {
        "machine": machine(),
        "quality": asdict(quality),
        "available": {name: len(all_samples) for name, all_samples in samples.items()},
        "num_samples": arguments.num_samples,
        "recall@1": {},
    }
    # Shape (seeds, queries).
    scores = {
        name: np.array([hits(arguments, name, seed, samples[name], judged) for seed in arguments.seeds], dtype=float)
        for name in ARMS
    }
    for subset, chosen in members.items():
        difference = (scores["filtered"] - scores["unfiltered"])[:, chosen].mean(axis=0)
        figures["recall@1"][subset] = {
            "queries": int(chosen.sum()),
            **{name: scores[name][:, chosen].mean(axis=1).tolist() for name in ARMS},
            "difference": float(difference.mean()),
            "interval": interval(difference),
        }
    print_table(
        ["queries", *[f"{name}, recall@1 (by seed)" for name in ARMS], "difference [95 %]"],
        [
            [
                f"{subset} ({row['queries']})",
                *[f"{np.mean(row[name]):.3f} ({', '.join(f'{value:.3f}' for value in row[name])})" for name in ARMS],
                f"{row['difference']:+.3f} [{row['interval'][0]:+.3f}, {row['interval'][1]:+.3f}]",
            ]
            for subset, row in figures["recall@1"].items()
        ],
    )
    if arguments.json:
        write_text(arguments.json, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
