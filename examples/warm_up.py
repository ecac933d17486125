"""Stage 3: RAG and GAR are warmed up, each on its own, on the joint loss -> work/warm-up/mint-rag/ and mint-gar/.

python examples/warm_up.py --output_dir outputs/mine --learning_rate 1e-3 --lambda_auxiliary 0.5
"""

import json
from pathlib import Path

import torch
from arguments import Settings, parse_settings
from build_collection import load_processor, resolve
from datasets import Dataset, concatenate_datasets, load_dataset
from peft import LoraConfig
from run_folder import RunFolder, plain_errors, set_up_logging

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.features import SAMPLE_FEATURES, new_sample
from modeling_mint import MintForConditionalGeneration
from trainers.task_examples import tokenize_examples
from trainers.training_stage import TRAINING_LOG_NAME, train_stage


def training_arguments(settings: Settings, epochs: float, learning_rate: float) -> dict:
    """Arguments of the joint-loss trainer, for either kind of backbone."""
    training = settings.training
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": training.train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "lambda_retrieval": training.lambda_retrieval,
        "lambda_generation": training.lambda_generation,
        "lambda_auxiliary": training.lambda_auxiliary,
        "lambda_exchange": training.lambda_exchange,
        "bf16": training.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "logging_steps": 10,
        "save_steps": training.save_steps,
        "save_total_limit": 1,
        "report_to": "none",
        "seed": settings.run.seed,
    }


def adapter_config(settings: Settings) -> LoraConfig | None:
    """LoRA on all linear layers, or `None` where all weights are trained."""
    rank = settings.training.lora_rank
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear") if rank else None


def example_options(settings: Settings) -> dict:
    """Options of `tokenize_examples`, the same in the warm-up and in co-training."""
    return {
        "retrieved_share": settings.run.retrieved_share,
        "num_documents": settings.run.num_documents,
        "task_rates": settings.training.task_rates,
    }


def index_samples(rows: list[int], titles: list[str]) -> Dataset:
    """The bare documents as samples, for `document_to_docid`."""
    return Dataset.from_list(
        [new_sample(id=f"collection-{row}", docids=[titles[row]], rows=[row], source="collection") for row in rows],
        features=SAMPLE_FEATURES,
    )


def warm_up(settings: Settings, folder: RunFolder) -> dict:
    """
    Trains both models from the backbone.

    Returns:
        `dict`: `examples` (number by role and task) and `losses` (the last logged ones by role).
    """
    processor = load_processor(settings, folder)
    titles, texts = processor.collection["title"][:], processor.collection["text"][:]
    retriever = Bm25Retriever(titles, texts)
    samples = concatenate_datasets(
        [
            load_dataset(str(folder.pseudo), "basic", split="train"),
            load_dataset(str(folder.pseudo), "auxiliary", split="train"),
            index_samples(folder.facts("build_collection")["index_rows"], titles),
        ]
    )
    facts = {"examples": {}, "losses": {}}
    for role in ("rag", "gar"):
        examples = tokenize_examples(
            samples,
            role,
            processor,
            retriever=retriever,
            seed=settings.run.seed,
            **example_options(settings),
        )
        tasks = examples["task"][:]
        facts["examples"][role] = {task: tasks.count(task) for task in sorted(set(tasks))}
        target = folder.warm_up / f"mint-{role}"
        if not (target / TRAINING_LOG_NAME).is_file():
            model = MintForConditionalGeneration.from_backbone_pretrained(
                resolve(settings.run.backbone),
                role=role,
                docid_granularity=settings.run.docid_granularity,
                dtype=torch.float32,
            )
            arguments = training_arguments(settings, settings.training.warm_up_epochs, settings.training.learning_rate)
            train_stage(model, examples, processor, target, arguments, adapter_config(settings))
            del model
        facts["losses"][role] = last_losses(target)
    return facts


def last_losses(model_folder) -> dict[str, float]:
    """The mean of each component's loss over the last fifth of a model's training."""
    history = read_training_log(model_folder)
    last = history[-max(1, len(history) // 5) :]
    names = sorted({name for entry in last for name in entry if name.startswith("loss_")})
    means = {}
    for name in names:
        values = [entry[name] for entry in last if name in entry]
        means[name] = round(sum(values) / len(values), 4)
    return means


def read_training_log(model_folder) -> list[dict]:
    """The logged training steps of a model folder (without the closing summary)."""
    history = json.loads((Path(model_folder) / TRAINING_LOG_NAME).read_text(encoding="utf-8"))
    return [entry for entry in history if "loss" in entry]


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        settings = parse_settings()
        folder = RunFolder(settings)
        folder.run_stage("warm_up", lambda: warm_up(settings, folder))
