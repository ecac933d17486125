"""RAG and GAR as two adapters on one base: trained, loaded, published and merged, with the base in memory once."""

import copy
import json
import os
import shutil
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments, set_seed

from modeling_mint import MintConfig, MintForConditionalGeneration, MintProcessor
from modeling_mint.adapters_mint import ADAPTER_CONFIG_NAME
from modeling_mint.compute_dtype import compute_dtype
from modeling_mint.configuration_mint import ROLES

from .training_stage import TRAINING_LOG_NAME, run_stage, set_calibrated, whole_folder

ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"


class AdapterModels:
    """
    RAG and GAR as two LoRA adapters, named by their roles, on one base that is held in memory once (`mint.md`,
    Notation; the adapters are our choice). `load` and `train` put adapter weights onto that base and never copy it.

    The base is frozen and in [`~modeling_mint.compute_dtype.compute_dtype`] (in float32 while an adapter trains on a
    CPU), or quantized (QLoRA); adapters are in float32.

    Args:
        base_folder (`str` or `os.PathLike`):
            Folder of a MINT model that has not been trained, see `save_base`.
        processor ([`MintProcessor`]):
            Gives the padding id; saved with merged models.
        peft_config (`peft.PeftConfig`):
            What an adapter is. Without `target_modules` it is put on all linear layers but the language-model head.
        quantization_config (`transformers.BitsAndBytesConfig`, *optional*):
            Holds the base quantized; needs bitsandbytes and a GPU.
    """

    def __init__(
        self,
        base_folder: str | os.PathLike,
        processor: MintProcessor,
        peft_config: PeftConfig,
        *,
        quantization_config=None,
    ):
        self.base_folder = Path(base_folder)
        self.processor = processor
        self.peft_config = peft_config
        self.quantization_config = quantization_config

    @staticmethod
    def save_base(
        backbone: str | os.PathLike,
        processor: MintProcessor,
        folder: str | os.PathLike,
        *,
        docid_granularity: str = "title",
    ) -> None:
        """
        Writes the base of two adapters: the backbone, untrained, as a MINT model in bfloat16. Does nothing where it is
        there already; appears complete or not at all.

        Args:
            backbone (`str` or `os.PathLike`): folder or Hub id of the language model.
            processor ([`MintProcessor`]): saved beside the weights.
            folder (`str` or `os.PathLike`): folder to write.
            docid_granularity (`str`, *optional*, defaults to `"title"`): what docids name, see [`MintConfig`].
        """
        if Path(folder).is_dir():
            return
        with whole_folder(folder) as empty:
            base = MintForConditionalGeneration.from_backbone_pretrained(
                backbone, docid_granularity=docid_granularity, dtype=torch.bfloat16
            )
            base.save_pretrained(empty)
            processor.save_pretrained(empty)

    @cached_property
    def _model(self) -> PeftModel:
        """The base, loaded when first needed, with an adapter for each role."""
        device = PartialState().device
        options = {} if self.quantization_config is None else {"device_map": {"": device}}
        base = MintForConditionalGeneration.from_pretrained(
            self.base_folder, dtype=torch.bfloat16, quantization_config=self.quantization_config, **options
        )
        if self.quantization_config is None:
            base.to(device)
        else:
            base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
        # Before PEFT adds the adapters' weights.
        self._bfloat16_weights = [weight for weight in base.parameters() if weight.dtype == torch.bfloat16]
        self._hold_base_in(compute_dtype())
        model = get_peft_model(base, self._new_config(), adapter_name=ROLES[0])
        for role in ROLES[1:]:
            model.add_adapter(role, self._new_config())
        return model

    def _new_config(self) -> PeftConfig:
        # A copy: PEFT writes the names of the layers into the configuration of each adapter.
        config = copy.deepcopy(self.peft_config)
        if config.target_modules is None:
            config.target_modules = "all-linear"
        return config

    def _put(self, role: str, folder: Path | None) -> None:
        """Puts a role's adapter onto the base anew, so that nothing of the earlier one is left."""
        # The active adapter would be deleted with a warning.
        self._model.set_adapter(next(partner for partner in ROLES if partner != role))
        self._model.delete_adapter(role)
        self._model.add_adapter(role, self._new_config())
        calibrated = MintConfig().calibrated
        if folder is not None:
            config = MintConfig.from_pretrained(folder)
            if config.role != role:
                raise ValueError(f"{folder} is an adapter of the role {config.role!r}, given for {role!r}.")
            set_peft_model_state_dict(self._model, load_file(folder / ADAPTER_WEIGHTS_NAME), adapter_name=role)
            calibrated = config.calibrated
        self._model.get_base_model().calibrate(role, **calibrated)

    def _activate(self, role: str, *, trainable: bool) -> MintForConditionalGeneration:
        self._model.set_adapter(role, inference_mode=not trainable)
        base = self._model.get_base_model()
        base.config.role = role
        base.config.update(base.calibrations[role])
        return base

    def _hold_base_in(self, dtype: torch.dtype) -> None:
        """Changes the type of the base's bfloat16 weights; to float32 and back loses nothing."""
        for weight in self._bfloat16_weights:
            weight.data = weight.data.to(dtype)

    def load(self, folders: Mapping[str, Path]) -> dict[str, MintForConditionalGeneration]:
        """
        Puts adapters onto the base for inference.

        Args:
            folders (`Mapping[str, Path]`): folders that `train` wrote, by role.

        Returns:
            `dict[str, MintForConditionalGeneration]`: the same object for each role; `set_role` switches it.

        Raises:
            ValueError: if an adapter has another role than it is given for.
        """
        for role, folder in folders.items():
            self._put(role, Path(folder))
        model = self._activate(next(iter(folders)), trainable=False).eval()
        return dict.fromkeys(folders, model)

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
        Trains the adapter of a role, from the folder `start` or from a fresh one that the seed alone decides. Writes
        a folder with the adapter, its [`MintConfig`] and the log; see [`train_stage`] for checkpoints and processes.

        Args:
            role (`str`):
                `"rag"` or `"gar"`.
            start (`Path`, *optional*):
                Folder of the adapter to go on from; `None` starts a fresh one.
            examples, output_dir, arguments, eval_examples, judge, callbacks:
                As for [`train_stage`].

        Returns:
            `list[dict]`: the trainer's log history.

        Raises:
            ValueError: if there is no example to train on, or `start` has another role.
        """
        seed = arguments.get("seed", TrainingArguments.seed)
        base = self._model.get_base_model()
        set_seed(seed)
        self._put(role, start)
        self._activate(role, trainable=True)
        attention = base.config._attn_implementation
        if not torch.cuda.is_available():
            # On a CPU, mixed precision over float32 weights trains faster than over bfloat16 ones, and plain attention
            # is faster for short prompts.
            self._hold_base_in(torch.float32)
            base.set_attn_implementation("eager")
        log_history = run_stage(
            self._model,
            examples,
            self.processor,
            output_dir,
            arguments,
            partial(self._write, role, Path(output_dir)),
            eval_dataset=eval_examples,
            judge=judge,
            callbacks=callbacks,
        )
        base.activation_checkpointing_disable()
        base.disable_input_require_grads()
        base.set_attn_implementation(attention)
        self._hold_base_in(compute_dtype())
        self._activate(role, trainable=False).eval()
        return log_history

    def _write(self, role: str, final: Path, trained: PeftModel, state_dict: dict, folder: Path) -> None:
        """Writes the adapter of `trained` to `folder`, to be moved to `final`."""
        weights = get_peft_model_state_dict(trained, state_dict, adapter_name=role, save_embedding_layers=False)
        weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        save_file(weights, folder / ADAPTER_WEIGHTS_NAME, metadata={"format": "pt"})
        config = copy.deepcopy(trained.peft_config[role])
        config.inference_mode = True
        config.base_model_name_or_path = os.path.relpath(self.base_folder, final)
        config.target_modules = sorted(config.target_modules)
        config.save_pretrained(folder)
        mint_config = MintConfig.from_pretrained(self.base_folder)
        mint_config.role = role
        mint_config.save_pretrained(folder)

    def publish(self, role: str, source: Path, target: Path, **calibrated: float) -> None:
        """
        Copies a trained adapter to its final place and puts what was calibrated into the configuration.

        Args:
            role (`str`): `"rag"` or `"gar"`.
            source (`Path`): folder that `train` wrote.
            target (`Path`): folder to write; appears complete or not at all.
            **calibrated (`float`): settings that were calibrated, see [`MintConfig`].
        """
        with whole_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            set_calibrated(folder, **calibrated)
            settings = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
            settings["base_model_name_or_path"] = os.path.relpath(self.base_folder, target)
            (folder / ADAPTER_CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def merge(self, role: str, source: Path, target: Path, **calibrated: float) -> None:
        """
        Merges a trained adapter into a copy of the base: a full model that stands alone, as `FullModels.publish` makes
        it. The sum is taken in float32 and saved in bfloat16.

        Args:
            role (`str`): `"rag"` or `"gar"`.
            source (`Path`): folder that `train` wrote.
            target (`Path`): folder to write; appears complete or not at all.
            **calibrated (`float`): settings that were calibrated, see [`MintConfig`].
        """
        base = MintForConditionalGeneration.from_pretrained(self.base_folder, dtype=torch.float32)
        base.config.role = role
        base.config.update(calibrated)
        merged = PeftModel.from_pretrained(base, source).merge_and_unload()
        with whole_folder(target) as folder:
            merged.to(torch.bfloat16).save_pretrained(folder)
            self.processor.save_pretrained(folder)
            shutil.copyfile(source / TRAINING_LOG_NAME, folder / TRAINING_LOG_NAME)
