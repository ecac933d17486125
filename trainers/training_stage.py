"""One training stage: a model folder and tokenized examples in, a trained model folder out."""

import gc
import json
import logging
import os
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from modeling_mint import MintForConditionalGeneration, MintProcessor

from .joint_trainer import joint_trainer

logger = logging.getLogger(__name__)

TRAINING_LOG_NAME = "training_log.json"


def train_stage(
    model: MintForConditionalGeneration,
    examples: Dataset,
    processor: MintProcessor,
    output_dir: str | os.PathLike,
    arguments: dict,
    peft_config=None,
    save_dtype: torch.dtype = torch.bfloat16,
) -> list[dict]:
    """
    Trains `model` on the joint loss and writes it to `output_dir` as a whole model (adapters are merged).

    The folder appears complete or not at all. An interrupted stage goes on from its last checkpoint, if the arguments
    have `save_strategy` on; checkpoints are removed at the end.

    Args:
        model ([`MintForConditionalGeneration`]):
            Model to train, in float32 (mixed precision is the trainer's `bf16`). It is used up.
        examples (`datasets.Dataset`):
            Examples made by [`tokenize_examples`].
        processor ([`MintProcessor`]):
            Saved beside the weights.
        output_dir (`str` or `os.PathLike`):
            Folder to write.
        arguments (`dict`):
            Training arguments, see [`joint_trainer`].
        peft_config (`peft.PeftConfig`, *optional*):
            Train an adapter; without it all weights are trained.
        save_dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`):
            Type in which the weights are saved.

    Returns:
        `list[dict]`: the trainer's log history, also written to `training_log.json` in the folder.

    Raises:
        ValueError: if there is no example to train on.
    """
    if len(examples) == 0:
        raise ValueError(f"There is no training example for {output_dir}: check the samples and `task_rates`.")
    output_dir = Path(output_dir)
    checkpoints = output_dir.with_name(f".{output_dir.name}.checkpoints")
    if not torch.cuda.is_available():
        # For short prompts on a CPU, plain attention trains about a fifth faster than the fused kernel.
        model.set_attn_implementation("eager")
    trainer = joint_trainer(
        model, {"output_dir": str(checkpoints), **arguments}, examples, processor, peft_config=peft_config
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
    log_history = trainer.state.log_history

    trained = trainer.accelerator.unwrap_model(trainer.model)
    if peft_config is not None:
        trained = trained.merge_and_unload()
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained.to(save_dtype).save_pretrained(partial)
    processor.save_pretrained(partial)
    (partial / TRAINING_LOG_NAME).write_text(json.dumps(log_history, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(output_dir, ignore_errors=True)
    os.replace(partial, output_dir)
    shutil.rmtree(checkpoints, ignore_errors=True)
    # A trainer and its model refer to each other in circles: free them before the next stage loads its own.
    del trainer, trained, model
    gc.collect()
    logger.info("Trained on %d examples, wrote %s.", len(examples), output_dir)
    return log_history


def _last_checkpoint(folder: Path) -> str | None:
    """The last complete checkpoint; Trainer writes its state last, so one without was cut short and is removed."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / TRAINER_STATE_NAME).is_file():
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(folder) if folder.is_dir() else None
