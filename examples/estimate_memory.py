"""What a run takes: memory of each GPU by strategy, and time, estimated before anything is rented.

    python examples/estimate_memory.py --config examples/recipes/kilt_flan_t5_large.yaml --processes 8

The model is built from its configuration without any weights (on PyTorch's meta device), so that parameters and the
activations that the backward pass needs are counted and not guessed. Attention counts with its plain kernel; the fused
ones keep less. Nothing is trained.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from arguments import Settings, parse_settings
from build_collection import resolve
from peft import get_peft_model
from run_folder import plain_errors
from torch.nn import functional
from training_settings import adapter_config
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel

from dataset_builders.writing import write_text

STRATEGIES = ("DDP", "ZeRO-2", "ZeRO-3", "FSDP2")

# Bytes of a title in the trie of 5.9 million titles in leaf order, see examples/benchmarks/README.md.
TRIE_BYTES_PER_TITLE = 6.75

# NF4 with quantized scales: 4 bits, and 8 bits for 64 weights, and 32 bits for 64 * 256 (Dettmers et al., 2023).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8


@dataclass
class EstimateArguments:
    """
    What to estimate.

    Args:
        backbone_config (`str`, *optional*): folder or Hub id of the backbone's configuration. Defaults to the
            backbone.
        processes (`int`, *optional*, defaults to 8): GPUs.
        prompt_tokens (`int`, *optional*): tokens of the longest prompt. By default, 4 characters a token, those of a
            prompt with all its documents, and 64 for the question and the words around.
        target_tokens (`int`, *optional*, defaults to 32): tokens of the longest target.
        num_examples (`int`, *optional*, defaults to 1000000): training examples of a role in the warm-up.
        mean_tokens (`int`, *optional*, defaults to 128): mean tokens of an example, prompt and target.
        sustained_tflops (`float`, *optional*, defaults to 150.0): what a GPU really reaches, in 10^12 floating-point
            operations a second.
        num_titles (`int`, *optional*, defaults to 5900000): titles in the trie; as many as KILT has.
        json (`str`, *optional*): file for the figures.
    """

    backbone_config: str = field(default="", metadata={"help": "Folder or Hub id of the backbone's configuration."})
    processes: int = field(default=8, metadata={"help": "GPUs."})
    prompt_tokens: int | None = field(default=None, metadata={"help": "Tokens of the longest prompt."})
    target_tokens: int = field(default=32, metadata={"help": "Tokens of the longest target."})
    num_examples: int = field(default=1_000_000, metadata={"help": "Training examples of a role in the warm-up."})
    mean_tokens: int = field(default=128, metadata={"help": "Mean tokens of an example."})
    sustained_tflops: float = field(default=150.0, metadata={"help": "TFLOP/s that a GPU really reaches."})
    num_titles: int = field(default=5_900_000, metadata={"help": "Titles in the trie."})
    json: str = field(default="", metadata={"help": "File for the figures."})


@dataclass
class Counts:
    """
    What there is to hold.

    Args:
        parameters (`int`): weights of the backbone.
        linear (`int`): those of them in linear layers other than the head, which 4-bit bases quantize.
        trainable (`int`): weights that are trained for one role.
        layer (`int`): weights of the largest layer, which sharded strategies gather at a time.
        activations (`int`): bytes kept for the backward pass of one micro-batch.
    """

    parameters: int
    linear: int
    trainable: int
    layer: int
    activations: int


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The backbone without memory for its weights."""
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return auto_class.from_config(config, dtype=dtype).train()


def step_loss(model: PreTrainedModel, batch_size: int, prompt_tokens: int, target_tokens: int) -> torch.Tensor:
    """The loss of a micro-batch of the joint trainer's shapes, on the device of the model."""
    prompt, target = (
        torch.zeros(batch_size, length, dtype=torch.int64, device=model.device)
        for length in (prompt_tokens, target_tokens)
    )
    if model.config.is_encoder_decoder:
        inputs = {"input_ids": prompt, "decoder_input_ids": target}
    else:
        length = prompt_tokens + target_tokens
        # Four dimensions: a mask of two would be looked at, and there is nothing to see on the meta device.
        mask = torch.ones(batch_size, 1, length, length, dtype=torch.bool, device=model.device).tril()
        ids = torch.cat([prompt, target], 1)
        inputs = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": target_tokens}
    logits = model(**inputs, use_cache=False).logits
    return functional.cross_entropy(logits.float().transpose(1, 2), target, reduction="none").sum()


def saved_bytes(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of what `forward` computes, the model's weights aside."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in kept.values())


def count(config: PreTrainedConfig, settings: Settings, prompt_tokens: int, target_tokens: int) -> Counts:
    """
    Counts what one role's training holds.

    Args:
        config (`PreTrainedConfig`): the backbone's.
        settings ([`Settings`]): of the run.
        prompt_tokens, target_tokens (`int`): of each example of the micro-batch; packed rows are longer.
    """
    training = settings.training
    dtype = torch.bfloat16 if training.bf16 or training.adapters else torch.float32
    model = empty_model(config, dtype)
    head = model.get_output_embeddings()
    linear = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    layers = [one for one in model.modules() if type(one).__name__ in model._no_split_modules]
    parameters = size(model)
    if training.adapters:
        model = get_peft_model(model, adapter_config(training), low_cpu_mem_usage=True)
    if training.packing:
        prompt_tokens = max(prompt_tokens, training.max_length - target_tokens)

    def forward() -> torch.Tensor:
        return step_loss(model, training.train_batch_size, prompt_tokens, target_tokens)

    activations = saved_bytes(model, forward)
    if training.gradient_checkpointing:
        # What is kept is each layer's input; one layer at a time is computed again.
        one_layer = activations // len(layers)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
        activations = saved_bytes(model, forward) + one_layer
    return Counts(
        parameters=parameters,
        linear=sum(one.weight.numel() for one in linear),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        layer=max(map(size, layers)),
        activations=activations,
    )


def size(module: torch.nn.Module) -> int:
    """Number of a module's weights; shared ones count once."""
    return sum(weight.numel() for weight in module.parameters())


def device_bytes(counts: Counts, settings: Settings, processes: int) -> dict[str, dict[str, float]]:
    """
    Bytes that each GPU holds, by strategy (what is shared as in ZeRO: Rajbhandari et al., 2020).

    Weights that are trained are in float32 with gradients (4 bytes a weight) and Adam's two states (8); under mixed
    precision there is a bfloat16 copy of them for the computation (2). DeepSpeed keeps weights and gradients in
    bfloat16 (2 and 2) and a float32 copy beside the states (12). A frozen base is in bfloat16 (2) or 4 bits, with the
    adapters of both roles on it. DDP reduces gradients in buckets (4).

    Returns:
        `dict[str, dict[str, float]]`: by strategy: `weights`, `gradients`, `optimizer`, `activations`, `total`.
    """
    training, trained = settings.training, counts.trainable
    frozen = roles = 0
    if training.adapters:
        quantized = counts.linear if training.load_in_4bit else 0
        frozen = 2 * (counts.parameters - quantized) + NF4_BYTES * quantized
        roles = 1  # the other role's adapter, which is not trained now
    copy = 2 if training.bf16 and not training.adapters else 0
    low = 2 if training.bf16 else 4
    # One layer at work and the next one on its way.
    gathered = 2 * low * counts.layer
    shares = {
        "DDP": (frozen + (4 + 4 * roles + copy) * trained, (8 if processes > 1 else 4) * trained, 8 * trained),
        "ZeRO-2": (frozen + (low + 4 * roles) * trained, low * trained / processes, 12 * trained / processes),
        "ZeRO-3": (
            (frozen + (low + 4 * roles) * trained) / processes + gathered,
            low * trained / processes,
            12 * trained / processes,
        ),
        "FSDP2": (
            (frozen + (4 + 4 * roles) * trained) / processes + gathered,
            4 * trained / processes,
            8 * trained / processes,
        ),
    }
    table = {}
    for strategy, (weights, gradients, optimizer) in shares.items():
        parts = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
        parts["activations"] = counts.activations
        table[strategy] = parts | {"total": sum(parts.values())}
    return table


def training_flops(counts: Counts, settings: Settings, num_tokens: float) -> float:
    """
    Floating-point operations of training on tokens: 2 for each weight and token forward and 4 backward, of which
    adapters leave out the 2 for the gradients of the base; 2 more with gradient checkpointing, which goes forward
    twice. An upper bound for encoder-decoders, where a token passes one of the two only.
    """
    per_weight = (4 if settings.training.adapters else 6) + 2 * settings.training.gradient_checkpointing
    return per_weight * counts.parameters * num_tokens


def estimate(settings: Settings, arguments: EstimateArguments) -> dict:
    """
    Memory and time of a run.

    Returns:
        `dict`: `counts`, `device_bytes` (by strategy), `trie_bytes`, and `warm_up_hours` of one role.
    """
    run, training = settings.run, settings.training
    config = AutoConfig.from_pretrained(resolve(arguments.backbone_config or run.backbone))
    prompt_tokens = arguments.prompt_tokens or run.num_documents * run.max_document_chars // 4 + 64
    counts = count(config, settings, prompt_tokens, arguments.target_tokens)
    flops = training_flops(counts, settings, arguments.num_examples * arguments.mean_tokens * training.warm_up_epochs)
    return {
        "counts": asdict(counts),
        "device_bytes": device_bytes(counts, settings, arguments.processes),
        "trie_bytes": TRIE_BYTES_PER_TITLE * arguments.num_titles,
        "warm_up_hours": flops / (arguments.processes * arguments.sustained_tflops * 1e12) / 3600,
    }


def report(estimated: dict, arguments: EstimateArguments) -> str:
    """The estimate in Markdown, memory in GB (10^9 bytes)."""
    counts, columns = estimated["counts"], ("weights", "gradients", "optimizer", "activations", "total")
    lines = [
        f"{counts['parameters'] / 1e9:.3f} billion weights, {counts['trainable'] / 1e6:.1f} million trained. "
        f"GB on each of {arguments.processes} GPUs:",
        "",
        "| strategy | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for strategy, parts in estimated["device_bytes"].items():
        lines.append(f"| {strategy} | " + " | ".join(f"{parts[name] / 1e9:.1f}" for name in columns) + " |")
    lines += [
        "",
        f"Title trie, {arguments.num_titles} titles: {estimated['trie_bytes'] / 1e6:.0f} MB of main memory.",
        f"Warm-up of one role, {arguments.num_examples} examples of {arguments.mean_tokens} tokens: "
        f"{estimated['warm_up_hours']:.1f} h at {arguments.sustained_tflops:g} TFLOP/s a GPU.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the estimate, and writes it where `--json` says."""
    settings, arguments = parse_settings(also=EstimateArguments)
    estimated = estimate(settings, arguments)
    print(report(estimated, arguments))
    if arguments.json:
        write_text(arguments.json, json.dumps(estimated, indent=1) + "\n")


if __name__ == "__main__":
    with plain_errors():
        main()
