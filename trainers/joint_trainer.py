"""The joint-loss trainers: one for each kind of backbone, one loss."""

import torch
from torch.nn import functional
from transformers import Seq2SeqTrainer, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.tasks_mint import COMPONENTS

from .collator import IGNORED, MintDataCollator
from .joint_arguments import MintSeq2SeqArguments, MintSFTConfig


class EpochSampler(LengthGroupedSampler):
    """
    Groups examples by length in an order that the seed and the epoch alone decide, so that a run that goes on from a
    checkpoint inside an epoch sees the examples that it had not seen yet.

    Args:
        batch_size (`int`): examples of an optimizer step.
        lengths (`list[int]`): tokens of each example.
        seed (`int`): seed of the order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


class JointLossMixin:
    """
    Computes `L = sum over components c of lambda_c * L_c`, where each `L_c` is the mean negative log-likelihood over
    *its own* target tokens of the whole optimizer step (all micro-batches, all processes), weighted by confidence
    (`mint.md`, Stages 1 and 2). A lambda therefore means the same whatever the task mix, batch size or world size. A
    component that is absent from a step counts 0.

    Each component is logged on its own as `loss_<component>` and `eval_loss_<component>`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The loss is divided by the counts of the whole step; Trainer must not divide by the accumulation steps again.
        self.loss_is_scaled_for_ga = True
        self._component_totals = {}

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(step_size, self.train_dataset["length"][:], self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """Weighted target tokens of each component in the optimizer step, float32 of shape `(num_components,)`."""
        if not batch_samples:
            return None
        counts = sum(_component_sums(batch, (batch["labels"] != IGNORED).float()) for batch in batch_samples)
        counts = counts.to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        return counts

    def _token_losses(self, model, inputs: dict) -> torch.Tensor:
        """Negative log-likelihood of each target token, float32 `(batch_size, target_length)`; 0 for padding."""
        labels = inputs["labels"]
        model_inputs = {name: inputs[name] for name in inputs if name not in ("labels", "component", "weight")}
        if "decoder_input_ids" in inputs:
            logits = model(**model_inputs, use_cache=False).logits
        else:
            # The last prompt column predicts the first target column.
            target_length = labels.shape[1]
            logits = model(**model_inputs, use_cache=False, logits_to_keep=target_length + 1).logits[:, :-1]
        return functional.cross_entropy(
            logits.float().transpose(1, 2),
            labels,
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.args.label_smoothing_factor,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The joint loss of one micro-batch; see the class."""
        token_losses = self._token_losses(model, inputs)
        sums = _component_sums(inputs, token_losses)
        own_counts = _component_sums(inputs, (inputs["labels"] != IGNORED).float())
        self._record("train" if model.training else "eval", sums.detach(), own_counts)
        counts = own_counts if num_items_in_batch is None else num_items_in_batch
        lambdas = torch.tensor(self.args.lambdas, device=sums.device)
        # Gradients are averaged over processes while `counts` are summed over them.
        scale = self.accelerator.num_processes if num_items_in_batch is not None else 1
        loss = scale * (lambdas * sums / counts.clamp(min=torch.finfo(counts.dtype).tiny)).sum()
        return (loss, {"token_losses": token_losses}) if return_outputs else loss

    def _record(self, mode: str, sums: torch.Tensor, counts: torch.Tensor) -> None:
        totals = torch.stack([sums, counts])
        self._component_totals[mode] = self._component_totals.get(mode, 0) + totals

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each component since the last log."""
        mode = "eval" if any(name.startswith("eval_") for name in logs) else "train"
        if mode in self._component_totals:
            sums, counts = self.accelerator.reduce(self._component_totals.pop(mode), reduction="sum").tolist()
            prefix = "eval_loss_" if mode == "eval" else "loss_"
            for name, total, count in zip(COMPONENTS, sums, counts, strict=True):
                if count:
                    logs[prefix + name] = total / count
        super().log(logs, start_time)


def _component_sums(batch: dict, token_values: torch.Tensor) -> torch.Tensor:
    """Weighted sums of `(batch_size, target_length)` values by component, shape `(num_components,)`."""
    weighted = token_values.sum(1) * batch["weight"]
    return weighted.new_zeros(len(COMPONENTS)).index_add(0, batch["component"], weighted)


class MintSeq2SeqTrainer(JointLossMixin, Seq2SeqTrainer):
    """Joint-loss trainer for encoder-decoder backbones, on `transformers.Seq2SeqTrainer`; see [`JointLossMixin`]."""


class MintSFTTrainer(JointLossMixin, SFTTrainer):
    """Joint-loss trainer for decoder-only backbones, on TRL's `SFTTrainer`; see [`JointLossMixin`]."""


def joint_trainer(
    model: MintForConditionalGeneration,
    arguments: dict,
    train_dataset,
    processor: MintProcessor,
    eval_dataset=None,
    peft_config=None,
    callbacks=None,
) -> MintSeq2SeqTrainer | MintSFTTrainer:
    """
    The trainer that fits the model's backbone, on examples made by [`tokenize_examples`].

    Args:
        model ([`MintForConditionalGeneration`]):
            Model to train.
        arguments (`dict`):
            Arguments of [`MintSeq2SeqArguments`] or [`MintSFTConfig`]; what both have in common, such as `output_dir`,
            `learning_rate`, `lambda_retrieval`.
        train_dataset (`datasets.Dataset`):
            Tokenized examples.
        processor ([`MintProcessor`]):
            Gives the padding id.
        eval_dataset (`datasets.Dataset`, *optional*):
            Tokenized examples to evaluate the loss on.
        peft_config (`peft.PeftConfig`, *optional*):
            Train an adapter instead of all weights.
        callbacks (`list[transformers.TrainerCallback]`, *optional*):
            Further callbacks.
    """
    common = {
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
        **arguments,
    }
    if model.config.is_encoder_decoder:
        args = MintSeq2SeqArguments(**common)
        if peft_config is not None:
            from peft import get_peft_model

            # An adapter starts with random weights.
            set_seed(args.seed)
            model = get_peft_model(model, peft_config)
        return MintSeq2SeqTrainer(
            model=model,
            args=args,
            data_collator=MintDataCollator(
                processor.tokenizer.pad_token_id, model.prepare_decoder_input_ids_from_labels
            ),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processor.tokenizer,
            callbacks=callbacks,
        )
    return MintSFTTrainer(
        model=model,
        args=MintSFTConfig(**common, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        data_collator=MintDataCollator(processor.tokenizer.pad_token_id),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor.tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
