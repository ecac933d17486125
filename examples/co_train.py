"""Stage 4: RAG and GAR teach each other -> the trained models and the `co_training` config of mint-pseudo/.

    python examples/co_train.py --output_dir outputs/mine --max_iterations 3 --keep threshold --keep_threshold 0.6

The models are adapters, mint-rag-adapter/ and mint-gar-adapter/ on mint-base/, and merged into mint-rag/ and
mint-gar/; with `--no_adapters`, mint-rag/ and mint-gar/ alone. Several GPUs: `accelerate launch` in place of `python`.
"""

from pathlib import Path

from accelerate import PartialState
from arguments import Settings, parse_settings
from build_collection import load_processor
from datasets import load_dataset
from run_folder import RunFolder, plain_errors, set_up_logging
from training_settings import training_arguments
from warm_up import example_options, inference_options, role_models

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.co_training import CoTrainingBuilder
from dataset_builders.writing import build, write_config
from modeling_mint.configuration_mint import CALIBRATED
from trainers.co_trainer import PARTNER, CoTrainer
from trainers.role_models import AdapterModels, FullModels


def co_train(settings: Settings, folder: RunFolder) -> dict:
    """
    Runs the co-training iterations on all processes; the main one publishes the samples and the best models.

    Returns:
        `dict`: what [`CoTrainer.run`] returns.
    """
    processor = load_processor(settings, folder)
    models = role_models(settings, folder, processor)
    training = settings.training
    trainer = CoTrainer(
        models,
        {role: folder.warm_up / f"mint-{role}" for role in ("rag", "gar")},
        processor,
        labelled=load_dataset(str(folder.pseudo), "basic", split="train"),
        validation=load_dataset(str(folder.pseudo), "basic", split="validation"),
        unlabelled_rows=folder.facts("build_collection")["index_rows"],
        output_dir=folder.co_training,
        training_arguments=training_arguments(
            training, training.exchange_epochs, training.exchange_learning_rate, settings.run.seed
        ),
        arguments=settings.co_training,
        confidence=settings.confidence,
        retriever=Bm25Retriever(processor.collection["title"][:], processor.collection["text"][:]),
        example_options=example_options(settings),
        inference_options=inference_options(settings),
        seed=settings.run.seed,
    )
    result = trainer.run()
    if PartialState().is_main_process:
        publish_samples(folder, len(result["iterations"]) - 1)
        publish_models(models, folder, result, merge=training.adapters and training.merge_adapters)
    return result


def publish_samples(folder: RunFolder, num_iterations: int) -> None:
    """Writes what the models wrote in all iterations, kept or not, as the `co_training` config."""
    iterations = range(1, num_iterations + 1)
    written = [folder.co_training / f"iteration-{i}" / f"{role}_samples.jsonl" for i in iterations for role in PARTNER]
    builder = CoTrainingBuilder(cache_dir=str(folder.cache), data_files=[str(path) for path in written])
    write_config(build(builder), folder.pseudo, "co_training")


def publish_models(models: FullModels | AdapterModels, folder: RunFolder, result: dict, *, merge: bool) -> None:
    """Puts the best models, calibrated, to their places in the run."""
    best_scores = result["iterations"][result["best_iteration"]]["dev_scores"]
    for role, source in result["models"].items():
        calibrated = {name: best_scores[role][name] for name in CALIBRATED}
        models.publish(role, Path(source), folder.trained[role], **calibrated)
        if merge:
            models.merge(role, Path(source), folder.models[role], **calibrated)


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        settings = parse_settings()
        folder = RunFolder(settings)
        folder.run_stage("co_train", lambda: co_train(settings, folder), on_all_processes=True)
