"""One training stage: a model and tokenized examples in, a folder of what was trained out."""

import gc
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from modeling_mint import MintConfig, MintForConditionalGeneration, MintProcessor

from .joint_trainer import joint_trainer

logger = logging.getLogger(__name__)

TRAINING_LOG_NAME = "training_log.json"


def train_stage(
    model: MintForConditionalGeneration,
    examples: Dataset,
    processor: MintProcessor,
    output_dir: str | os.PathLike,
    arguments: dict,
    save_dtype: torch.dtype = torch.bfloat16,
    *,
    eval_examples: Dataset | None = None,
    judge: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    callbacks: list | None = None,
) -> list[dict]:
    """
    Trains all weights of `model` on the joint loss and writes it to `output_dir` with its processor (`mint.md`, Stages
    1 and 2).

    The folder appears complete or not at all. An interrupted stage goes on from its last checkpoint, if the arguments
    have `save_strategy` on; checkpoints are removed at the end. Under `accelerate launch` every process calls it; the
    main one writes and the others wait.

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
        save_dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`):
            Type in which the weights are saved.
        eval_examples (`datasets.Dataset`, *optional*):
            Examples to evaluate the loss on while training.
        judge (`Callable[[torch.nn.Module], dict[str, float]]`, *optional*):
            Judges the model at each evaluation, see [`joint_trainer`].
        callbacks (`list[transformers.TrainerCallback]`, *optional*):
            Further callbacks.

    Returns:
        `list[dict]`: the trainer's log history, also written to `training_log.json` in the folder.

    Raises:
        ValueError: if there is no example to train on.
    """

    def write(trained: MintForConditionalGeneration, state_dict: dict, folder: Path) -> None:
        trained.save_pretrained(folder, state_dict=_cast(state_dict, save_dtype))
        trained.config.dtype = save_dtype
        trained.config.save_pretrained(folder)
        processor.save_pretrained(folder)

    if not torch.cuda.is_available():
        # For short prompts on a CPU, plain attention trains about a fifth faster than the fused kernel.
        model.set_attn_implementation("eager")
    options = {"eval_dataset": eval_examples, "judge": judge, "callbacks": callbacks}
    return run_stage(model, examples, processor, output_dir, arguments, write, **options)


def run_stage(
    model: torch.nn.Module,
    examples: Dataset,
    processor: MintProcessor,
    output_dir: str | os.PathLike,
    arguments: dict,
    write: Callable[[torch.nn.Module, dict, Path], None],
    **options,
) -> list[dict]:
    """
    What the training of a model and of an adapter have in common: checkpoints, and a folder that appears complete.

    Args:
        model ([`MintForConditionalGeneration`] or `peft.PeftModel`):
            Model to train.
        examples, processor, output_dir, arguments:
            As for [`train_stage`].
        write (`Callable[[torch.nn.Module, dict, Path], None]`):
            Called on the main process to write what was trained: with the model, its whole state dict and the folder.
        **options:
            Further arguments of [`joint_trainer`].

    Returns:
        `list[dict]`: the trainer's log history, also written to `training_log.json` in the folder.

    Raises:
        ValueError: if there is no example to train on.
    """
    if len(examples) == 0:
        raise ValueError(f"There is no training example for {output_dir}: check the samples and `task_rates`.")
    output_dir = Path(output_dir)
    checkpoints = output_dir.with_name(f".{output_dir.name}.checkpoints")
    trainer = joint_trainer(model, {"output_dir": str(checkpoints), **arguments}, examples, processor, **options)
    processes = PartialState()
    if processes.is_main_process:
        _remove_cut_short(checkpoints)
    processes.wait_for_everyone()
    last_checkpoint = get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last_checkpoint)

    log_history = trainer.state.log_history
    state_dict = _whole_state_dict(trainer)
    # Accelerate's wrapper of mixed precision goes, and its mark: a base that trains again must be wrapped again, once.
    trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    vars(trained).pop("_is_accelerate_prepared", None)
    if processes.is_main_process:
        with whole_folder(output_dir) as partial:
            write(trained, state_dict, partial)
            (partial / TRAINING_LOG_NAME).write_text(json.dumps(log_history, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(checkpoints, ignore_errors=True)
    processes.wait_for_everyone()
    # A trainer and its model refer to each other in circles: free them before the next stage loads its own.
    del trainer, trained, state_dict, model
    gc.collect()
    logger.info("Trained on %d examples, wrote %s.", len(examples), output_dir)
    return log_history


@contextmanager
def whole_folder(target: str | os.PathLike) -> Iterator[Path]:
    """
    A folder that appears complete or not at all.

    Args:
        target (`str` or `os.PathLike`): folder to write; what is there already goes when the new one is complete.

    Returns:
        `Iterator[Path]`: an empty folder beside it to write into, which takes the target's place at the end.
    """
    target = Path(target)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def set_calibrated(folder: str | os.PathLike, **calibrated: float) -> None:
    """Puts settings that were calibrated into the configuration of a model's or adapter's folder ([`MintConfig`])."""
    config = MintConfig.from_pretrained(folder)
    config.update(calibrated)
    config.save_pretrained(folder)


def _whole_state_dict(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights, gathered where FSDP or DeepSpeed keeps a part of them in each process: all processes call it."""
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def _cast(state_dict: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights in another type; tied ones stay one tensor, which is saved once."""
    copies = {}
    for tensor in state_dict.values():
        if tensor.data_ptr() not in copies:
            copies[tensor.data_ptr()] = tensor.to(dtype)
    return {name: copies[tensor.data_ptr()] for name, tensor in state_dict.items()}


def _remove_cut_short(checkpoints: Path) -> None:
    """Removes checkpoints that are not whole: Trainer writes its state last, and a kill can leave half of it."""
    for checkpoint in checkpoints.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            logger.warning("%s was cut short and is removed.", checkpoint)
            shutil.rmtree(checkpoint)
