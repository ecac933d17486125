"""The recipes, and what `estimate_memory.py` counts, against a model that is really there."""

import json
import sys

import pytest
import torch
from arguments import parse_settings
from estimate_memory import (
    NF4_BYTES,
    TRIE_BYTES_PER_TITLE,
    Counts,
    count,
    device_bytes,
    empty_model,
    estimate,
    saved_bytes,
    step_loss,
    training_flops,
)
from estimate_memory import EstimateArguments as Arguments
from peft import get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from training_settings import adapter_config

from tests.examples.conftest import ROOT
from tests.tiny import tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer

RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
BACKBONES = {"llama": (tiny_byte_level_tokenizer, tiny_llama), "t5": (tiny_unigram_tokenizer, tiny_t5)}


def settings_of(*options: str):
    return parse_settings([*options, "--train_batch_size=3", "--lora_rank=4"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_holds_settings_only_and_has_its_figures_explained(recipe):
    settings = parse_settings(["--config", str(recipe)])
    assert settings.run.output_dir == f"outputs/{recipe.stem.replace('_', '-')}"
    assert recipe.name in (ROOT / "examples" / "recipes" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=BACKBONES)
def backbone(request):
    """A tiny backbone with real weights, in float32."""
    tokenizer, make = BACKBONES[request.param]
    return make(tokenizer()).train()


def real_bytes(tensors) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def kept_bytes(model) -> int:
    """What autograd keeps of a real forward pass, attention in the plain kernel, which keeps most."""
    with sdpa_kernel(SDPBackend.MATH):
        return saved_bytes(model, lambda: step_loss(model, 3, 20, 7))


def test_full_training_holds_as_many_bytes_as_counted(backbone):
    settings = settings_of("--no_adapters", "--no_bf16")
    counts = count(backbone.config, settings, 20, 7)
    estimated = device_bytes(counts, settings, 1)["DDP"]
    weights = list(backbone.parameters())
    assert (counts.parameters, counts.trainable) == (sum(one.numel() for one in weights),) * 2
    assert estimated["weights"] == real_bytes(weights)
    assert counts.activations == kept_bytes(backbone)
    optimizer = torch.optim.AdamW(weights)
    step_loss(backbone, 3, 20, 7).backward()
    optimizer.step()
    assert estimated["gradients"] == real_bytes(one.grad for one in weights)
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert estimated["optimizer"] == real_bytes(moments)


def test_adapters_on_a_base_hold_as_many_bytes_as_counted(backbone):
    settings = settings_of("--adapters")
    counts = count(backbone.config, settings, 20, 7)
    estimated = device_bytes(counts, settings, 1)["DDP"]
    model = get_peft_model(backbone.bfloat16(), adapter_config(settings.training), adapter_name="rag")
    model.add_adapter("gar", adapter_config(settings.training))
    model.set_adapter("rag")
    for name, weight in model.named_parameters():
        if "lora" in name:
            weight.data = weight.data.float()
    assert estimated["weights"] == real_bytes(model.parameters())
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert counts.trainable == sum(weight.numel() for weight in trained)
    assert counts.activations == kept_bytes(model)


def test_checkpointing_keeps_less_and_takes_one_more_forward_pass(backbone):
    kept, computed = (settings_of("--no_adapters", f"--gradient_checkpointing={value}") for value in ("false", "true"))
    counts = count(backbone.config, kept, 20, 7)
    assert count(backbone.config, computed, 20, 7).activations < counts.activations
    assert training_flops(counts, kept, 10) == 6 * counts.parameters * 10
    assert training_flops(counts, computed, 10) == 8 * counts.parameters * 10
    assert training_flops(counts, settings_of("--adapters"), 10) == 4 * counts.parameters * 10


def test_strategies_share_what_they_say_they_share():
    counts = Counts(parameters=1000, linear=800, trainable=1000, layer=100, activations=50)
    shared = device_bytes(counts, settings_of("--no_adapters"), 10)
    assert shared["DDP"] == {
        "weights": 6000, "gradients": 8000, "optimizer": 8000, "activations": 50, "total": 22050
    }  # fmt: skip
    assert shared["ZeRO-2"]["total"] == 2000 + 200 + 1200 + 50
    assert shared["ZeRO-3"]["total"] == 200 + 400 + 200 + 1200 + 50
    assert shared["FSDP2"]["total"] == 400 + 400 + 400 + 800 + 50
    quantized = Counts(parameters=1000, linear=800, trainable=10, layer=100, activations=50)
    weights = device_bytes(quantized, settings_of("--load_in_4bit"), 1)["DDP"]["weights"]
    assert weights == pytest.approx(2 * 200 + NF4_BYTES * 800 + 2 * 4 * 10)


def test_estimate_of_a_folder_tells_memory_and_hours(backbone, tmp_path, run):
    backbone.config.save_pretrained(tmp_path)
    words = ["--backbone", str(tmp_path), "--no_adapters", "--warm_up_epochs=2"]
    arguments = Arguments(processes=2, num_examples=1000, mean_tokens=100, sustained_tflops=1e-6, num_titles=1000)
    estimated = estimate(parse_settings(words), arguments)
    parameters = sum(weight.numel() for weight in backbone.parameters())
    assert estimated["warm_up_hours"] == pytest.approx(6 * parameters * 2 * 1000 * 100 / 2e6 / 3600)
    assert estimated["trie_bytes"] == 1000 * TRIE_BYTES_PER_TITLE
    assert empty_model(backbone.config, torch.float32).device.type == "meta"
    script = str(ROOT / "examples" / "estimate_memory.py")
    shown = run([sys.executable, script, *words, "--processes=2", f"--json={tmp_path / 'estimate.json'}"])
    assert shown.returncode == 0, shown.stderr
    written = json.loads((tmp_path / "estimate.json").read_text(encoding="utf-8"))
    assert written["counts"]["parameters"] == parameters and "| ZeRO-3 |" in shown.stdout
