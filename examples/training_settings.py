"""The settings of training, and the trainer's arguments made of them."""

import json
from dataclasses import dataclass, field

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from modeling_mint.compute_dtype import compute_dtype
from trainers.evaluation import METRICS
from trainers.task_sampling import TASK_SAMPLING, TaskSampling

REPORTERS = ("none", "trackio", "tensorboard", "wandb")


@dataclass
class TrainingSettings:
    """
    How RAG and GAR are trained, in the warm-up and in co-training.

    Args:
        adapters (`bool`, *optional*, defaults to `True`): train a LoRA adapter for each role on one base that is held
            in memory once; otherwise two separate models, all of whose weights are trained.
        merge_adapters (`bool`, *optional*, defaults to `True`): also write each adapter merged into a copy of the
            base, as a full model.
        lora_rank (`int`, *optional*, defaults to 16): rank of the adapters, which are on all linear layers.
        load_in_4bit (`bool`, *optional*, defaults to `False`): hold the base in 4 bits (QLoRA); needs bitsandbytes and
            a GPU.
        warm_up_epochs (`float`, *optional*, defaults to 3.0): passes over the warm-up examples.
        exchange_epochs (`float`, *optional*, defaults to 2.0): passes over the examples of one co-training iteration.
        learning_rate (`float`, *optional*, defaults to 1e-3): of the warm-up.
        exchange_learning_rate (`float`, *optional*, defaults to 3e-4): of co-training.
        train_batch_size (`int`, *optional*, defaults to 16): examples of a micro-batch on each device.
        gradient_accumulation_steps (`int`, *optional*, defaults to 1): micro-batches of an optimizer step.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`): compute activations again in the backward
            pass instead of keeping them.
        packing (`bool`, *optional*, defaults to `False`): pack examples into rows of `max_length` tokens without
            padding, of which `train_batch_size` make a micro-batch; for decoder-only backbones.
        max_length (`int`, *optional*, defaults to 1024): tokens of such a row.
        lambda_retrieval, lambda_generation, lambda_auxiliary, lambda_exchange (`float`, *optional*, defaults to 1.0):
            the weights of the joint loss.
        task_sampling (`str`, *optional*, defaults to `"proportional"`): how often a task's examples are taken:
            `"proportional"` as many as there are, `"temperature"` evened out, `"explicit"` by `task_rates`, see
            [`TaskSampling`].
        sampling_temperature (`float`, *optional*, defaults to 2.0): of `"temperature"`; 1 is proportional, and the
            higher, the more even.
        task_rates (`str`, *optional*): JSON object, how often a task's examples are taken, such as
            `{"document_to_query": 0.5, "query_to_docid": 3}`.
        bf16 (`bool`, *optional*, defaults to `True`): mixed precision, if the machine computes in bfloat16.
        save_steps (`int`, *optional*, defaults to 100): optimizer steps between checkpoints.
        logging_steps (`int`, *optional*, defaults to 10): optimizer steps between logs of the losses.
        report_to (`str`, *optional*, defaults to `"none"`): where logs go besides standard error: `"trackio"`,
            `"tensorboard"`, `"wandb"`.
        eval_steps (`int`, *optional*, defaults to 0): optimizer steps of the warm-up between evaluations on validation
            data, the model retrieving and answering; the best checkpoint is kept then. 0 evaluates nothing while
            training.
        judge_samples (`int`, *optional*, defaults to 200): validation samples that such an evaluation draws.
        metric_for_best_model (`str`, *optional*, defaults to `"eval_r_precision"`): what the best checkpoint is chosen
            by: `eval_` and one of `evaluation.METRICS`, or `eval_loss`.
        early_stopping_patience (`int`, *optional*, defaults to 0): evaluations without a better one after which the
            warm-up stops; 0 never stops early.

    Raises:
        ValueError: if settings contradict each other or are out of their range.
    """

    adapters: bool = field(default=True, metadata={"help": "Two LoRA adapters on one base (or two full models)."})
    merge_adapters: bool = field(default=True, metadata={"help": "Also write each adapter merged, as a full model."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA adapters."})
    load_in_4bit: bool = field(default=False, metadata={"help": "Hold the base in 4 bits (QLoRA)."})
    warm_up_epochs: float = field(default=3.0, metadata={"help": "Passes over the warm-up examples."})
    exchange_epochs: float = field(default=2.0, metadata={"help": "Passes over an iteration's examples."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of the warm-up."})
    exchange_learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of co-training."})
    train_batch_size: int = field(default=16, metadata={"help": "Examples of a micro-batch on each device."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Micro-batches of an optimizer step."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Compute activations twice, keep none."})
    packing: bool = field(default=False, metadata={"help": "Pack examples into rows without padding."})
    max_length: int = field(default=1024, metadata={"help": "Tokens of a packed row."})
    lambda_retrieval: float = field(default=1.0, metadata={"help": "Weight of the retrieval loss L_GR."})
    lambda_generation: float = field(default=1.0, metadata={"help": "Weight of the generation loss L_G."})
    lambda_auxiliary: float = field(default=1.0, metadata={"help": "Weight of the auxiliary loss L_AUX."})
    lambda_exchange: float = field(default=1.0, metadata={"help": "Weight of the loss on the partner's samples."})
    task_sampling: str = field(
        default="proportional",
        metadata={"help": "How often a task's examples are taken.", "choices": list(TASK_SAMPLING)},
    )
    sampling_temperature: float = field(default=2.0, metadata={"help": "Of the temperature sampling of tasks."})
    task_rates: dict | str | None = field(
        default=None, metadata={"help": "JSON object: how often a task's examples are taken.", "type": str}
    )
    bf16: bool = field(default=True, metadata={"help": "Mixed precision, if the machine computes in bfloat16."})
    save_steps: int = field(default=100, metadata={"help": "Optimizer steps between checkpoints."})
    logging_steps: int = field(default=10, metadata={"help": "Optimizer steps between logs of the losses."})
    report_to: str = field(default="none", metadata={"help": "Where logs go.", "choices": list(REPORTERS)})
    eval_steps: int = field(default=0, metadata={"help": "Warm-up steps between evaluations (0: none)."})
    judge_samples: int = field(default=200, metadata={"help": "Validation samples of such an evaluation."})
    metric_for_best_model: str = field(
        default="eval_r_precision", metadata={"help": "What the best checkpoint of the warm-up is chosen by."}
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Evaluations without a better one that end the warm-up (0: never)."}
    )

    def __post_init__(self):
        if isinstance(self.task_rates, str):
            try:
                self.task_rates = json.loads(self.task_rates)
            except ValueError as error:
                raise ValueError(f"--task_rates is not a JSON object ({error}): {self.task_rates}") from error
        metrics = [f"eval_{name}" for name in (*METRICS, "loss")]
        # argparse checks choices on the command line only, not in the file that --config names.
        for name, allowed in (("report_to", REPORTERS), ("metric_for_best_model", metrics)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
        # Here as well as in hours, when examples are made.
        TaskSampling(self.task_sampling, self.sampling_temperature, self.task_rates)
        if self.adapters and self.lora_rank < 1:
            raise ValueError(f"lora_rank is {self.lora_rank}: give adapters a rank of at least 1, or --no_adapters.")
        if self.load_in_4bit and not self.adapters:
            raise ValueError("load_in_4bit holds the base of adapters: the weights of full models are trained.")
        if self.eval_steps and self.save_steps % self.eval_steps:
            raise ValueError(
                f"save_steps is {self.save_steps} and eval_steps {self.eval_steps}: only a checkpoint that was judged "
                "can be the best one, so save_steps must be a multiple of eval_steps."
            )
        if self.early_stopping_patience and not self.eval_steps:
            raise ValueError("early_stopping_patience counts evaluations while training: set eval_steps too.")


def training_arguments(training: TrainingSettings, epochs: float, learning_rate: float, seed: int) -> dict:
    """
    Arguments of the joint-loss trainer, for either kind of backbone.

    Args:
        training ([`TrainingSettings`]): the settings.
        epochs (`float`): passes over the examples.
        learning_rate (`float`): the highest one of the schedule.
        seed (`int`): seed of the order and of fresh adapters.

    Returns:
        `dict`: see [`joint_trainer`].
    """
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": training.train_batch_size,
        "per_device_eval_batch_size": training.train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "packing": training.packing,
        "max_length": training.max_length,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "lambda_retrieval": training.lambda_retrieval,
        "lambda_generation": training.lambda_generation,
        "lambda_auxiliary": training.lambda_auxiliary,
        "lambda_exchange": training.lambda_exchange,
        "bf16": training.bf16 and compute_dtype() == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        # Each weight that is trained takes part in every step.
        "ddp_find_unused_parameters": False,
        "logging_steps": training.logging_steps,
        "save_steps": training.save_steps,
        "save_total_limit": 1,
        "report_to": training.report_to,
        "seed": seed,
    }


def judging_arguments(training: TrainingSettings) -> dict:
    """Arguments of a trainer that is given a judge: it evaluates every `eval_steps` and ends with its best weights."""
    return {
        "eval_strategy": "steps",
        "eval_steps": training.eval_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": training.metric_for_best_model,
    }


def adapter_config(training: TrainingSettings) -> LoraConfig:
    """LoRA on all linear layers, as large as its rank."""
    return LoraConfig(r=training.lora_rank, lora_alpha=2 * training.lora_rank, target_modules="all-linear")


def quantization_config(training: TrainingSettings) -> BitsAndBytesConfig | None:
    """How the base of adapters is quantized (QLoRA: NF4, the scales quantized too), if it is."""
    if not training.load_in_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
