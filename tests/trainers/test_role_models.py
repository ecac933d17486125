"""RAG and GAR as two full models or as two adapters on one base: what is trained, written, loaded and published."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, TrainerCallback

from modeling_mint import MintForConditionalGeneration, MintProcessor
from trainers.role_models import AdapterModels, FullModels
from trainers.training_stage import TRAINING_LOG_NAME

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.1)
QUERIES = ["What stands under entry 3?", "moon"]

# Trains an adapter in a process of its own: folder of the backbone, base and inputs; where to start from and to write.
TRAIN = """
import json, sys
from pathlib import Path
from datasets import Dataset
from peft import LoraConfig
from modeling_mint import MintProcessor
from trainers.role_models import AdapterModels
root, start, output_dir, arguments, lora = sys.argv[1:]
processor = MintProcessor.from_pretrained(f"{root}/base", collection=Dataset.load_from_disk(f"{root}/collection"))
models = AdapterModels(f"{root}/base", processor, LoraConfig(**json.loads(lora)))
examples = Dataset.load_from_disk(f"{root}/examples")
models.train("rag", Path(start) if start else None, examples, Path(output_dir), json.loads(arguments))
"""


@pytest.fixture
def arguments():
    """Arguments of a short training that leaves no doubt that it changed the weights."""
    return {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
    }


@pytest.fixture
def backbone(make_model, processor, tmp_path):
    """Folder of a language model with its tokenizer."""
    folder = tmp_path / "backbone"
    make_model().backbone.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapters(backbone, processor, tmp_path):
    """Two adapters on one base."""
    AdapterModels.save_base(backbone, processor, tmp_path / "base")
    return AdapterModels(tmp_path / "base", processor, LORA)


@pytest.fixture
def full(backbone, processor):
    """Two full models."""
    return FullModels(backbone, processor)


@pytest.fixture(params=["adapters", "full"])
def models(request):
    """Either kind of model pair: they have one interface."""
    return request.getfixturevalue(request.param)


def weights_of(folder):
    """The trained weights in a folder, of an adapter or of a full model."""
    return load_file(next(folder.glob("*model.safetensors")))


def same_weights(folder, other):
    weights, expected = weights_of(folder), weights_of(other)
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


def first_logits(model, role, processor):
    """Logits after a prompt, of the model in that role."""
    model.set_role(role)
    inputs = processor(QUERIES)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((len(QUERIES), 1), model.config.decoder_start_token_id)
    with torch.no_grad():
        return model(**inputs).logits.float()


def test_training_from_nothing_and_from_a_folder_lowers_the_loss(models, examples, arguments, tmp_path):
    first = models.train("rag", None, examples, tmp_path / "first", arguments)
    second = models.train("rag", tmp_path / "first", examples, tmp_path / "second", arguments)
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in (first, second)]
    # The seed is the same and so are the batches: step by step, the second training does better.
    assert len(losses[0]) == len(losses[1]) == 3
    assert all(later < earlier for earlier, later in zip(*losses, strict=True))
    assert json.loads((tmp_path / "second" / TRAINING_LOG_NAME).read_text()) == second
    assert not same_weights(tmp_path / "first", tmp_path / "second")
    assert not list(tmp_path.glob(".*"))


def test_models_load_with_the_roles_they_were_trained_in(models, examples, processor, arguments, tmp_path):
    for role in ("rag", "gar"):
        models.train(role, None, examples, tmp_path / role, arguments)
    loaded = models.load({role: tmp_path / role for role in ("rag", "gar")})
    for role, model in loaded.items():
        model.set_role(role)
        assert model.config.role == role and not model.training
        assert len(model.retrieve(QUERIES, processor, k=2).rows) == 2


def test_published_folder_carries_the_calibrated_temperature(models, examples, arguments, tmp_path):
    models.train("gar", None, examples, tmp_path / "work" / "gar", arguments)
    models.publish("gar", tmp_path / "work" / "gar", tmp_path / "mint-gar", answer_temperature=2.5)
    assert same_weights(tmp_path / "work" / "gar", tmp_path / "mint-gar")
    published = MintForConditionalGeneration.from_pretrained(tmp_path / "mint-gar")
    assert (published.config.role, published.config.answer_temperature) == ("gar", 2.5)
    loaded = models.load({"gar": tmp_path / "mint-gar"})["gar"]
    assert loaded.config.answer_temperature == 2.5
    assert MintForConditionalGeneration.from_pretrained(tmp_path / "work" / "gar").config.answer_temperature == 1.0


def test_no_example_is_refused_and_leaves_nothing(models, examples, arguments, tmp_path):
    with pytest.raises(ValueError, match="no training example for .*mint-rag"):
        models.train("rag", None, examples.select([]), tmp_path / "mint-rag", arguments)
    assert not (tmp_path / "mint-rag").exists() and not list(tmp_path.glob(".*"))


def test_base_is_written_once_in_bfloat16(backbone, processor, tmp_path):
    AdapterModels.save_base(backbone, processor, tmp_path / "base")
    before = (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns
    AdapterModels.save_base(tmp_path / "missing", processor, tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns == before
    assert {value.dtype for value in weights_of(tmp_path / "base").values()} == {torch.bfloat16}
    assert MintProcessor.from_pretrained(tmp_path / "base").trie.num_rows == processor.trie.num_rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_trained_models_are_loaded_in_the_type_that_the_machine_computes_in(
    models, examples, arguments, tmp_path, dtype, monkeypatch
):
    for module in ("adapter_models", "role_models"):
        monkeypatch.setattr(f"trainers.{module}.compute_dtype", lambda: dtype)
    models.train("rag", None, examples, tmp_path / "rag", arguments)
    loaded = models.load({"rag": tmp_path / "rag"})["rag"]
    assert {one.dtype for name, one in loaded.named_parameters() if "lora" not in name} == {dtype}


def test_both_roles_are_one_model_whose_base_stays_as_it_was(adapters, examples, arguments, tmp_path):
    for role in ("rag", "gar"):
        adapters.train(role, None, examples, tmp_path / role, arguments)
    loaded = adapters.load({role: tmp_path / role for role in ("rag", "gar")})
    assert loaded["rag"] is loaded["gar"]
    held = {
        name.replace(".base_layer", ""): value
        for name, value in loaded["rag"].state_dict().items()
        if "lora_" not in name
    }
    saved = MintForConditionalGeneration.from_pretrained(tmp_path / "base").state_dict()
    assert held.keys() == saved.keys()
    assert all(torch.equal(held[name], saved[name]) for name in saved)


def test_adapters_are_on_the_linear_layers_but_not_on_the_head(adapters, examples, arguments, tmp_path):
    adapters.train("rag", None, examples, tmp_path / "rag", arguments)
    weights = weights_of(tmp_path / "rag")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert weights and not any("lm_head" in name or "embed" in name or "shared" in name for name in weights)
    config = json.loads((tmp_path / "rag" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../base"
    assert config["target_modules"] == sorted(config["target_modules"]) and config["inference_mode"] is True


def test_roles_answer_apart_and_merged_models_answer_alike(adapters, examples, processor, arguments, tmp_path):
    for role, seed in (("rag", 1), ("gar", 2)):
        adapters.train(role, None, examples, tmp_path / role, arguments | {"seed": seed})
        adapters.merge(role, tmp_path / role, tmp_path / f"mint-{role}", answer_temperature=1.5)
    model = adapters.load({role: tmp_path / role for role in ("rag", "gar")})["rag"]
    logits = {role: first_logits(model, role, processor) for role in ("rag", "gar", "rag")}
    assert (logits["rag"] - logits["gar"]).abs().max() > 0.1
    for role in ("rag", "gar"):
        merged = MintForConditionalGeneration.from_pretrained(tmp_path / f"mint-{role}")
        assert (merged.config.role, merged.config.answer_temperature) == (role, 1.5)
        # Both are in bfloat16, which has three digits.
        torch.testing.assert_close(first_logits(merged, role, processor), logits[role], atol=0.05, rtol=0.05)
        assert MintProcessor.from_pretrained(tmp_path / f"mint-{role}").trie.num_rows == processor.trie.num_rows
        assert (tmp_path / f"mint-{role}" / TRAINING_LOG_NAME).is_file()


def test_merged_model_holds_base_plus_adapter(adapters, examples, arguments, tmp_path):
    adapters.train("rag", None, examples, tmp_path / "rag", arguments)
    adapters.merge("rag", tmp_path / "rag", tmp_path / "mint-rag")
    base = MintForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, tmp_path / "rag").merge_and_unload().state_dict()
    merged = MintForConditionalGeneration.from_pretrained(tmp_path / "mint-rag").state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name].bfloat16()) for name in expected)


def test_loading_after_training_leaves_a_model_for_inference(adapters, examples, processor, arguments, tmp_path):
    adapters.train("rag", None, examples, tmp_path / "rag", arguments)
    model = adapters.load({"rag": tmp_path / "rag"})["rag"]
    before, attention = first_logits(model, "rag", processor), model.config._attn_implementation
    adapters.train("gar", None, examples, tmp_path / "gar", arguments | {"gradient_checkpointing": True})
    assert not model.training and not model.is_activation_checkpointing
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == attention and model.generation_config.use_cache
    again = adapters.load({"rag": tmp_path / "rag"})["rag"]
    assert again is model
    assert torch.equal(first_logits(model, "rag", processor), before)


def test_gradient_checkpointing_changes_nothing_but_memory(adapters, examples, arguments, tmp_path):
    plain = adapters.train("rag", None, examples, tmp_path / "plain", arguments)
    saving = adapters.train("rag", None, examples, tmp_path / "saving", arguments | {"gradient_checkpointing": True})
    assert [entry.get("loss") for entry in saving] == [entry.get("loss") for entry in plain]
    assert same_weights(tmp_path / "plain", tmp_path / "saving")


def test_only_the_trained_role_changes(adapters, examples, processor, arguments, tmp_path):
    folders = {role: tmp_path / role for role in ("rag", "gar")}
    for role, folder in folders.items():
        adapters.train(role, None, examples, folder, arguments)
    model = adapters.load(folders)["gar"]
    before = first_logits(model, "gar", processor)
    adapters.train("rag", folders["rag"], examples, tmp_path / "rag-2", arguments)
    assert torch.equal(first_logits(model, "gar", processor), before)


def test_fresh_adapter_is_decided_by_the_seed_whatever_was_trained_before(adapters, examples, arguments, tmp_path):
    adapters.train("rag", None, examples, tmp_path / "first", arguments)
    adapters.train("gar", None, examples, tmp_path / "gar", arguments | {"seed": 9})
    adapters.train("rag", None, examples, tmp_path / "again", arguments)
    adapters.train("rag", None, examples, tmp_path / "other", arguments | {"seed": 6})
    assert same_weights(tmp_path / "first", tmp_path / "again")
    assert not same_weights(tmp_path / "first", tmp_path / "other")


@pytest.mark.slow
def test_training_after_the_partner_is_bit_exact_with_a_fresh_process(
    adapters, examples, processor, arguments, tmp_path
):
    adapters.train("gar", None, examples, tmp_path / "gar", arguments)
    adapters.train("rag", None, examples, tmp_path / "start", arguments)
    adapters.train("rag", tmp_path / "start", examples, tmp_path / "here", arguments)

    examples.save_to_disk(tmp_path / "examples")
    processor.collection.save_to_disk(tmp_path / "collection")
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.1}
    for start, output_dir in (("", "fresh-start"), (tmp_path / "start", "fresh")):
        inputs = [tmp_path, start, tmp_path / output_dir, json.dumps(arguments), json.dumps(lora)]
        process = subprocess.run([sys.executable, "-c", TRAIN, *map(str, inputs)], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    assert same_weights(tmp_path / "start", tmp_path / "fresh-start")
    assert same_weights(tmp_path / "here", tmp_path / "fresh")


def test_adapter_of_the_other_role_is_refused(adapters, examples, arguments, tmp_path):
    adapters.train("rag", None, examples, tmp_path / "rag", arguments)
    with pytest.raises(ValueError, match="rag is an adapter of the role 'rag', given for 'gar'"):
        adapters.load({"gar": tmp_path / "rag"})
    with pytest.raises(ValueError, match="given for 'gar'"):
        adapters.train("gar", tmp_path / "rag", examples, tmp_path / "gar", arguments)


def test_an_interrupted_adapter_goes_on_and_ends_as_one_left_alone(adapters, examples, arguments, tmp_path):
    class Interrupted(Exception):
        pass

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise Interrupted

    arguments |= {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}
    with pytest.raises(Interrupted):
        adapters.train("gar", None, examples, tmp_path / "cut", arguments, callbacks=[Interrupt()])
    assert not (tmp_path / "cut").exists() and (tmp_path / ".cut.checkpoints" / "checkpoint-4").is_dir()
    adapters.train("gar", None, examples, tmp_path / "cut", arguments)
    adapters.train("gar", None, examples, tmp_path / "whole", arguments)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available(),
    reason="QLoRA needs bitsandbytes and a CUDA GPU",
)
def test_adapter_trains_on_a_quantized_base(backbone, processor, examples, arguments, tmp_path):
    AdapterModels.save_base(backbone, processor, tmp_path / "base")
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    models = AdapterModels(tmp_path / "base", processor, LORA, quantization_config=quantized)
    log = models.train("rag", None, examples, tmp_path / "rag", arguments | {"use_cpu": False})
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert models.load({"rag": tmp_path / "rag"})["rag"].retrieve(QUERIES, processor, k=2).rows
