"""Stage 3: RAG and GAR are warmed up, each on its own, on the joint loss -> work/warm-up/mint-rag/ and mint-gar/.

    python examples/warm_up.py --output_dir outputs/mine --learning_rate 1e-3 --lambda_auxiliary 0.5

Several GPUs: `accelerate launch` in place of `python`; `--train_batch_size` is that of each.
"""

import json
from pathlib import Path

from accelerate import PartialState
from arguments import Settings, parse_settings
from build_collection import load_processor, resolve
from datasets import Dataset, concatenate_datasets, load_dataset
from run_folder import RunFolder, plain_errors, set_up_logging
from training_settings import adapter_config, judging_arguments, quantization_config, training_arguments
from transformers import EarlyStoppingCallback

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.features import SAMPLE_FEATURES, new_sample
from dataset_builders.sentence_queries import sentence_queries
from modeling_mint import MintProcessor
from trainers.dev_judge import DevJudge
from trainers.role_models import AdapterModels, FullModels
from trainers.task_examples import tokenize_examples
from trainers.training_stage import TRAINING_LOG_NAME, whole_folder


def role_models(settings: Settings, folder: RunFolder, processor: MintProcessor) -> FullModels | AdapterModels:
    """The two models of the run: two adapters on the base that the warm-up wrote, or two full models."""
    training = settings.training
    if training.adapters:
        return AdapterModels(
            folder.base, processor, adapter_config(training), quantization_config=quantization_config(training)
        )
    return FullModels(resolve(settings.run.backbone), processor, docid_granularity=settings.run.docid_granularity)


def example_options(settings: Settings) -> dict:
    """Options of `tokenize_examples`, the same in the warm-up and in co-training."""
    return {
        "retrieved_share": settings.run.retrieved_share,
        "num_documents": settings.run.num_documents,
        "title_substitutions": settings.run.title_substitutions,
        "task_sampling": settings.training.task_sampling,
        "sampling_temperature": settings.training.sampling_temperature,
        "task_rates": settings.training.task_rates,
    }


def inference_options(settings: Settings) -> dict:
    """Options of `StrategyInference` for this run."""
    return {
        "num_beams": settings.run.num_beams,
        "num_documents": settings.run.num_documents,
        "batch_size": settings.run.inference_batch_size,
        "show_progress": PartialState().is_main_process,
    }


def index_samples(rows: list[int], titles: list[str]) -> Dataset:
    """The bare documents as samples, for `document_to_docid`."""
    return Dataset.from_list(
        [new_sample(id=f"collection-{row}", docids=[titles[row]], rows=[row], source="collection") for row in rows],
        features=SAMPLE_FEATURES,
    )


def warm_up_examples(settings: Settings, folder: RunFolder, processor: MintProcessor) -> dict[str, Dataset]:
    """
    The examples that each role learns from. The main process makes them, once; all read them from the disk.

    Returns:
        `dict[str, datasets.Dataset]`: tokenized examples by role.
    """
    paths = {role: folder.warm_up / f"{role}-examples" for role in ("rag", "gar")}
    with PartialState().main_process_first():
        if not all(path.is_dir() for path in paths.values()):
            titles, texts = processor.collection["title"][:], processor.collection["text"][:]
            retriever = Bm25Retriever(titles, texts)
            run, rows = settings.run, folder.facts("build_collection")["index_rows"]
            parts = [
                load_dataset(str(folder.pseudo), "basic", split="train"),
                load_dataset(str(folder.pseudo), "auxiliary", split="train"),
                index_samples(rows, titles),
            ]
            if run.sentence_queries:
                number, answer = run.sentence_queries, run.sentence_answer
                parts.append(sentence_queries(processor.collection, rows, number, answer=answer, seed=run.seed))
            samples = concatenate_datasets(parts)
            for role, path in paths.items():
                examples = tokenize_examples(
                    samples,
                    role,
                    processor,
                    retriever=retriever,
                    seed=run.seed,
                    **example_options(settings),
                )
                with whole_folder(path) as partial:
                    examples.save_to_disk(partial)
    return {role: Dataset.load_from_disk(path) for role, path in paths.items()}


def judging_options(settings: Settings, folder: RunFolder, processor: MintProcessor, role: str) -> dict:
    """Options of a role's training that judge it by validation samples, where `--eval_steps` asks for that."""
    training, run = settings.training, settings.run
    if not training.eval_steps:
        return {}
    samples = load_dataset(str(folder.pseudo), "basic", split="validation").shuffle(run.seed)
    samples = samples.select(range(min(training.judge_samples, len(samples))))
    patience = training.early_stopping_patience
    return {
        "eval_examples": tokenize_examples(samples, role, processor, num_documents=run.num_documents, seed=run.seed),
        "judge": DevJudge(samples, processor, **inference_options(settings)),
        "callbacks": [EarlyStoppingCallback(patience)] if patience else None,
    }


def warm_up(settings: Settings, folder: RunFolder) -> dict:
    """
    Trains both models from the backbone, on all processes.

    Returns:
        `dict`: `examples` (number by role and task) and `losses` (the last logged ones by role).
    """
    training, run = settings.training, settings.run
    processor = load_processor(settings, folder)
    if training.adapters:
        with PartialState().main_process_first():
            AdapterModels.save_base(
                resolve(run.backbone), processor, folder.base, docid_granularity=run.docid_granularity
            )
    models = role_models(settings, folder, processor)
    arguments = training_arguments(training, training.warm_up_epochs, training.learning_rate, run.seed)
    if training.eval_steps:
        arguments |= judging_arguments(training)
    facts = {"examples": {}, "losses": {}}
    for role, examples in warm_up_examples(settings, folder, processor).items():
        tasks = examples["task"][:]
        facts["examples"][role] = {task: tasks.count(task) for task in sorted(set(tasks))}
        target = folder.warm_up / f"mint-{role}"
        if not (target / TRAINING_LOG_NAME).is_file():
            judging = judging_options(settings, folder, processor, role)
            models.train(role, None, examples, target, arguments, **judging)
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
        folder.run_stage("warm_up", lambda: warm_up(settings, folder), on_all_processes=True)
