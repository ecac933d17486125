"""The two models of a run, RAG and GAR: two full models, or one base with two adapters, behind one interface."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset

from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.compute_dtype import compute_dtype

from .adapter_models import AdapterModels
from .training_stage import set_calibrated, train_stage, whole_folder

__all__ = ["AdapterModels", "FullModels"]


class FullModels:
    """
    RAG and GAR as two separate models, all of whose weights are trained (MINT, SIGIR 2025: parameters theta and psi).

    Args:
        backbone (`str` or `os.PathLike`):
            Folder or Hub id of the language model that both start from.
        processor ([`MintProcessor`]):
            Saved with each model.
        docid_granularity (`str`, *optional*, defaults to `"title"`):
            What docids name, see [`MintConfig`].
    """

    def __init__(self, backbone: str | os.PathLike, processor: MintProcessor, *, docid_granularity: str = "title"):
        self.backbone = backbone
        self.processor = processor
        self.docid_granularity = docid_granularity

    def load(self, folders: Mapping[str, Path]) -> dict[str, MintForConditionalGeneration]:
        """
        Loads models for inference.

        Args:
            folders (`Mapping[str, Path]`): folders that `train` wrote, by role.

        Returns:
            `dict[str, MintForConditionalGeneration]`: the models by role, in
            [`~modeling_mint.compute_dtype.compute_dtype`].
        """
        device = PartialState().device
        return {
            role: MintForConditionalGeneration.from_pretrained(folder, dtype=compute_dtype()).to(device)
            for role, folder in folders.items()
        }

    def train(
        self,
        role: str,
        start: Path | None,
        examples: Dataset,
        output_dir: Path,
        arguments: dict,
        *,
        eval_examples: Dataset | None = None,
        judge=None,
        callbacks: list | None = None,
    ) -> list[dict]:
        """
        Trains the model of a role, from the folder `start` or from the backbone; for the rest see [`train_stage`].

        Args:
            role (`str`):
                `"rag"` or `"gar"`.
            start (`Path`, *optional*):
                Folder of the model to go on from; `None` starts from the backbone.
            examples, output_dir, arguments, eval_examples, judge, callbacks:
                As for [`train_stage`].

        Returns:
            `list[dict]`: the trainer's log history.
        """
        if start is None:
            model = MintForConditionalGeneration.from_backbone_pretrained(
                self.backbone, role=role, docid_granularity=self.docid_granularity, dtype=torch.float32
            )
        else:
            model = MintForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        return train_stage(
            model,
            examples,
            self.processor,
            output_dir,
            arguments,
            eval_examples=eval_examples,
            judge=judge,
            callbacks=callbacks,
        )

    def publish(self, role: str, source: Path, target: Path, **calibrated: float) -> None:
        """
        Copies a trained model to its final place and puts what was calibrated into the configuration.

        Args:
            role (`str`): `"rag"` or `"gar"`.
            source (`Path`): folder that `train` wrote.
            target (`Path`): folder to write; appears complete or not at all.
            **calibrated (`float`): settings that were calibrated, see [`MintConfig`].
        """
        with whole_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            set_calibrated(folder, **calibrated)
