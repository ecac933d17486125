"""The joint-loss trainers: one for each kind of backbone, one loss."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.nn import functional
from transformers import Seq2SeqTrainer
from transformers.integrations.liger import apply_liger_kernel
from transformers.trainer_utils import unwrap_peft_model
from trl import SFTTrainer

from modeling_mint import MintProcessor
from modeling_mint.tasks_mint import COMPONENTS, TASKS

from .collator import IGNORED, TARGET_COLUMNS, MintDataCollator
from .epoch_sampler import EpochSampler, fill_up
from .joint_arguments import MintSeq2SeqArguments, MintSFTConfig
from .packing import PaddingFreeCollator, pack_examples


class JointLossMixin:
    """
    Computes `L = sum over components c of lambda_c * L_c`, where each `L_c` is the mean negative log-likelihood over
    *its own* target tokens of the whole optimizer step (all micro-batches, all processes), weighted by confidence
    (`mint.md`, Stages 1 and 2). A lambda therefore means the same whatever the task mix, batch size or world size. A
    component that is absent from a step counts 0. `eval_loss` is the same sum over the whole evaluation set.

    Each component and each task is logged on its own, as a mean over its target tokens since the last log:
    `loss_retrieval`, `loss_generation`, `loss_auxiliary`, `loss_exchange_<writer>_to_<learner>` and
    `task_loss_<task>`, in evaluation with `eval_` before the name.

    Args:
        judge (`Callable[[torch.nn.Module], dict[str, float]]`, *optional*):
            Called in each evaluation, see [`joint_trainer`].
        kwargs:
            Arguments of the trainer that the loss is mixed into.
    """

    def __init__(self, *, args, train_dataset, judge=None, **kwargs):
        self.judge = judge
        self._num_train_examples = len(train_dataset)
        train_dataset = _whole_micro_batches(train_dataset, args.train_batch_size, args.world_size)
        super().__init__(args=args, train_dataset=train_dataset, **kwargs)
        # The loss is divided by the counts of the whole step; Trainer must not divide by the accumulation steps again.
        self.loss_is_scaled_for_ga = True
        self._lambdas = torch.tensor(args.lambdas, device=args.device)
        # Sums of losses and of weights, by component and task: on the device, so that no step waits for them.
        self._totals = {
            mode: torch.zeros(2, len(COMPONENTS), len(TASKS), device=args.device) for mode in ("train", "eval")
        }
        learner = unwrap_peft_model(self.model).config.role
        exchange = {"rag": "exchange_gar_to_rag", "gar": "exchange_rag_to_gar"}[learner]
        self._component_names = [exchange if name == "exchange" else name for name in COMPONENTS]

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        lengths = self.train_dataset["length"][:]
        self._epoch_sampler = EpochSampler(step_size, lengths, self._num_train_examples, self.args.seed)
        return self._epoch_sampler

    def _run_epoch(self, *, epoch, **kwargs):
        # On several processes a data loader that skips batches, to resume, does not pass the epoch on.
        if self.args.train_sampling_strategy == "group_by_length":
            self._epoch_sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def get_eval_dataloader(self, eval_dataset=None):
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        filled = _whole_micro_batches(eval_dataset, self.args.eval_batch_size, self.args.world_size)
        return super().get_eval_dataloader(filled)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """Weights of each component's target tokens in the optimizer step, float32 of shape `(num_components,)`."""
        if not batch_samples:
            return None
        counts = sum(_sums_by_component_and_task(batch, batch["weight"]) for batch in batch_samples).to(device)
        self._totals["train"][1] += counts
        counts = counts.sum(1)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, reduction="sum")
        return counts

    def _token_losses(self, model: nn.Module, inputs: dict) -> torch.Tensor:
        """Negative log-likelihood of each target token, float32 of the shape of `labels`; 0 for padding."""
        labels = inputs["labels"]
        model_inputs = {name: inputs[name] for name in inputs if name not in ("labels", *TARGET_COLUMNS)}
        logits = model(**model_inputs, use_cache=False).logits
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.args.label_smoothing_factor,
        )
        return losses.view_as(labels)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The share of one micro-batch in the joint loss of its optimizer step; see the class."""
        sums = _sums_by_component_and_task(inputs, self._token_losses(model, inputs) * inputs["weight"])
        self._totals["train"][0] += sums.detach()
        # Without any weight, a component's sum is 0 too.
        means = sums.sum(1) / num_items_in_batch.clamp(min=torch.finfo(torch.float32).tiny)
        # Gradients are averaged over processes while the counts are summed over them.
        return self.accelerator.num_processes * (self._lambdas * means).sum()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **kwargs):
        """Adds one batch to the sums that [`evaluation_loop`] turns into the losses."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            losses = self._token_losses(model, inputs) * inputs["weight"]
        self._totals["eval"][0] += _sums_by_component_and_task(inputs, losses)
        self._totals["eval"][1] += _sums_by_component_and_task(inputs, inputs["weight"])
        return None, None, None

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """Evaluates the joint loss, its components and tasks, and adds what the judge says of the model."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        metrics = self._mean_losses("eval")
        lambdas = dict(zip(self._component_names, self.args.lambdas, strict=True))
        metrics["loss"] = sum(lambdas[name] * metrics.get(f"loss_{name}", 0.0) for name in lambdas)
        if self.judge is not None:
            model = unwrap_peft_model(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))
            with torch.no_grad():
                metrics |= self.judge(model.eval())
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each component and task since the last log to the logs of training."""
        if "loss" in logs:
            logs |= self._mean_losses("train")
        super().log(logs, start_time)

    def _mean_losses(self, mode: str) -> dict[str, float]:
        """Losses by component and task, over all processes, since they were asked for last."""
        totals = self.accelerator.reduce(self._totals[mode], reduction="sum")
        # By component, then by task.
        sums, counts = torch.cat([totals.sum(2), totals.sum(1)], dim=1).tolist()
        self._totals[mode].zero_()
        names = [f"loss_{name}" for name in self._component_names] + [f"task_loss_{name}" for name in TASKS]
        return {name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count}

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """
        Saves the model; of a model with adapters the active one alone, into the folder itself: PEFT gives an adapter
        with a name a folder of its own, where `load_best_model_at_end` does not look.
        """
        if not isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder, name = Path(output_dir or self.args.output_dir), self.model.active_adapter
            # Without `save_embedding_layers`, PEFT would ask the Hub whether the base's vocabulary was resized.
            self.model.save_pretrained(
                folder, selected_adapters=[name], state_dict=state_dict, save_embedding_layers=False
            )
            if name != "default":
                for file in (folder / name).iterdir():
                    os.replace(file, folder / file.name)
                (folder / name).rmdir()


def _whole_micro_batches(examples: Dataset, batch_size: int, world_size: int) -> Dataset:
    return fill_up(examples, batch_size * world_size) if world_size > 1 else examples


def _sums_by_component_and_task(batch: dict, token_values: torch.Tensor) -> torch.Tensor:
    """Sums of values of the shape of `labels`, float32 of shape `(num_components, num_tasks)`."""
    group = batch["component"] * len(TASKS) + batch["task"]
    sums = token_values.new_zeros(len(COMPONENTS) * len(TASKS))
    return sums.index_add(0, group.flatten(), token_values.flatten()).view(len(COMPONENTS), len(TASKS))


class MintSeq2SeqTrainer(JointLossMixin, Seq2SeqTrainer):
    """Joint-loss trainer for encoder-decoder backbones, on `transformers.Seq2SeqTrainer`; see [`JointLossMixin`]."""


class MintSFTTrainer(JointLossMixin, SFTTrainer):
    """Joint-loss trainer for decoder-only backbones, on TRL's `SFTTrainer`; see [`JointLossMixin`]."""

    def __init__(self, *, data_collator, **kwargs):
        super().__init__(**kwargs)
        # SFTTrainer takes no collator but its own for rows without padding.
        self.data_collator = data_collator
        # It replaces the model's forward by one with a fused head. The joint loss does not use it, and the model
        # outlives its trainer: put the class's own back.
        del unwrap_peft_model(self.model).forward


def joint_trainer(
    model: nn.Module,
    arguments: dict,
    train_dataset: Dataset,
    processor: MintProcessor,
    eval_dataset: Dataset | None = None,
    callbacks: list | None = None,
    judge: Callable[[nn.Module], dict[str, float]] | None = None,
) -> MintSeq2SeqTrainer | MintSFTTrainer:
    """
    The trainer that fits the model's backbone, on examples made by [`tokenize_examples`].

    Batches are grouped by length, or packed for a decoder-only backbone (`packing=True`, rows of `max_length` tokens,
    of which `per_device_train_batch_size` make a micro-batch; `padding_free=True` without making rows beforehand).
    Losses are logged as they are, NaN included: looking at each step's for NaN would make the device wait.

    Args:
        model ([`MintForConditionalGeneration`] or `peft.PeftModel` around one):
            Model to train. Checkpoints of a PeftModel hold its active adapter only.
        arguments (`dict`):
            Arguments of [`MintSeq2SeqArguments`] or [`MintSFTConfig`]; what both have in common, such as `output_dir`,
            `learning_rate`, `lambda_retrieval`, and `packing`, `padding_free`, `max_length` (ignored by an
            encoder-decoder as long as they are off).
        train_dataset (`datasets.Dataset`):
            Tokenized examples.
        processor ([`MintProcessor`]):
            Gives the padding id.
        eval_dataset (`datasets.Dataset`, *optional*):
            Tokenized examples to evaluate the loss on.
        callbacks (`list[transformers.TrainerCallback]`, *optional*):
            Further callbacks.
        judge (`Callable[[torch.nn.Module], dict[str, float]]`, *optional*):
            Called in each evaluation, on all processes, with the model in eval mode, out of DDP, `torch.compile` and
            PEFT (its adapter in place). What it returns is added to the metrics as `eval_<name>`, so that
            `metric_for_best_model`, `load_best_model_at_end` and `EarlyStoppingCallback` can go by it.

    Raises:
        ImportError: if `use_liger_kernel` is set and liger-kernel is not installed.
        ValueError: if an encoder-decoder is to be trained on packed or padding-free rows.
    """
    base = unwrap_peft_model(model)
    arguments = {
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        **arguments,
    }
    if arguments.pop("use_liger_kernel", False):
        # Trainer would look for kernels for "mint". The loss is our own, so the fused one is off.
        kernels = arguments.pop("liger_kernel_config", None) or {}
        apply_liger_kernel(base.backbone, {**kernels, "fused_linear_cross_entropy": False})
    common = {
        "model": model,
        "train_dataset": train_dataset,
        "eval_dataset": eval_dataset,
        "processing_class": processor.tokenizer,
        "callbacks": callbacks,
        "judge": judge,
    }
    if base.config.is_encoder_decoder:
        unpacked = {name: arguments.pop(name, None) for name in ("packing", "padding_free", "max_length")}
        if unpacked["packing"] or unpacked["padding_free"]:
            raise ValueError(
                "`packing` and `padding_free` need a decoder-only backbone. This one is an encoder-decoder: leave "
                "them out, its batches are grouped by length."
            )
        collator = MintDataCollator(processor.tokenizer.pad_token_id, base.prepare_decoder_input_ids_from_labels)
        return MintSeq2SeqTrainer(args=MintSeq2SeqArguments(**arguments), data_collator=collator, **common)
    if not arguments.get("packing"):
        # TRL would demand examples cut to this length, and would not look at it: ours are never cut.
        arguments["max_length"] = None
    args = MintSFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True})
    if args.packing:
        common["train_dataset"] = pack_examples(train_dataset, args.max_length)
        common["eval_dataset"] = eval_dataset and pack_examples(eval_dataset, args.max_length)
    if args.packing or args.padding_free:
        collator = PaddingFreeCollator(packed=args.packing)
    else:
        collator = MintDataCollator(processor.tokenizer.pad_token_id)
    return MintSFTTrainer(args=args, data_collator=collator, **common)
