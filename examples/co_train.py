"""Stage 4: RAG and GAR teach each other -> mint-rag/, mint-gar/ and the `co_training` config of mint-pseudo/.

python examples/co_train.py --output_dir outputs/mine --max_iterations 3 --keep threshold --keep_threshold 0.6
"""

import shutil
from pathlib import Path

from arguments import Settings, parse_settings
from build_collection import load_processor
from datasets import load_dataset
from run_folder import RunFolder, plain_errors, set_up_logging
from warm_up import adapter_config, example_options, training_arguments

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.co_training import CoTrainingBuilder
from dataset_builders.writing import build, write_config
from modeling_mint import MintForConditionalGeneration
from trainers.co_trainer import PARTNER, CoTrainer


def inference_options(settings: Settings) -> dict:
    """Options of `StrategyInference` for this run."""
    return {
        "num_beams": settings.run.num_beams,
        "num_documents": settings.run.num_documents,
        "batch_size": settings.run.inference_batch_size,
        "show_progress": True,
    }


def co_train(settings: Settings, folder: RunFolder) -> dict:
    """
    Runs the co-training iterations and publishes the best models.

    Returns:
        `dict`: what [`CoTrainer.run`] returns.
    """
    processor = load_processor(settings, folder)
    trainer = CoTrainer(
        {role: folder.warm_up / f"mint-{role}" for role in ("rag", "gar")},
        processor,
        labelled=load_dataset(str(folder.pseudo), "basic", split="train"),
        validation=load_dataset(str(folder.pseudo), "basic", split="validation"),
        unlabelled_rows=folder.facts("build_collection")["index_rows"],
        output_dir=folder.co_training,
        training_arguments=training_arguments(
            settings, settings.training.exchange_epochs, settings.training.exchange_learning_rate
        ),
        arguments=settings.co_training,
        confidence=settings.confidence,
        retriever=Bm25Retriever(processor.collection["title"][:], processor.collection["text"][:]),
        peft_config=adapter_config(settings),
        example_options=example_options(settings),
        inference_options=inference_options(settings),
        seed=settings.run.seed,
    )
    result = trainer.run()

    iterations = range(1, len(result["iterations"]))
    written = [folder.co_training / f"iteration-{i}" / f"{role}_samples.jsonl" for i in iterations for role in PARTNER]
    builder = CoTrainingBuilder(cache_dir=str(folder.cache), data_files=[str(path) for path in written])
    write_config(build(builder), folder.pseudo, "co_training")

    best_scores = result["iterations"][result["best_iteration"]]["dev_scores"]
    for role, source in result["models"].items():
        publish(Path(source), folder.models[role], best_scores[role]["answer_temperature"])
    return result


def publish(source: Path, target: Path, answer_temperature: float) -> None:
    """Copies a model's folder to its place in the run and puts its calibrated temperature into the config."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    config = MintForConditionalGeneration.config_class.from_pretrained(partial)
    config.answer_temperature = answer_temperature
    config.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        settings = parse_settings()
        folder = RunFolder(settings)
        folder.run_stage("co_train", lambda: co_train(settings, folder))
