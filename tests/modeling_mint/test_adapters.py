"""One base, two adapters: they are loaded, switched and refused in place, and answer as two full models do."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from modeling_mint import (
    STRATEGIES,
    MintConfig,
    MintForConditionalGeneration,
    MintPipeline,
    MintProcessor,
    StrategyInference,
)

QUESTIONS = ["Who designed the Eiffel Tower?", "moon", "In which city was Frédéric Chopin born?"]
TEMPERATURES = {"rag": 2.0, "gar": 4.0}


@pytest.fixture(scope="module", params=["llama", "t5"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, backbones, processors, run_folders, tmp_path_factory):
    """A run with mint-base/ in float32, an adapter for each role, and the same two merged into full models."""
    folder = tmp_path_factory.mktemp(f"adapters-{kind}")
    shutil.copytree(run_folders[kind] / "mint-collection", folder / "mint-collection")
    processor = MintProcessor(
        processors[kind].tokenizer,
        processors[kind].trie,
        "../mint-collection",
        padding_side=processors[kind].padding_side,
    )

    def base(role="rag"):
        return MintForConditionalGeneration.from_backbone_pretrained(backbones[kind, "rag"], role=role)

    base().save_pretrained(folder / "mint-base")
    processor.save_pretrained(folder / "mint-base")
    for seed, role in enumerate(("rag", "gar")):
        # An adapter that was "trained": its weights are drawn, large enough that the roles do not agree.
        torch.manual_seed(seed)
        lora = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(base(role), lora)
        model.peft_config["default"].base_model_name_or_path = "../mint-base"
        model.save_pretrained(folder / f"mint-{role}-adapter")
        config = MintConfig.from_pretrained(folder / "mint-base")
        config.role, config.answer_temperature = role, TEMPERATURES[role]
        config.save_pretrained(folder / f"mint-{role}-adapter")
        merged = model.merge_and_unload()
        merged.config.answer_temperature = TEMPERATURES[role]
        merged.save_pretrained(folder / f"mint-{role}")
        processor.save_pretrained(folder / f"mint-{role}")
    return folder


@pytest.fixture
def adapters(folder):
    return {role: folder / f"mint-{role}-adapter" for role in ("rag", "gar")}


@pytest.fixture
def base(folder):
    return MintForConditionalGeneration.from_pretrained(folder / "mint-base")


@pytest.fixture
def merged(folder):
    return {role: MintForConditionalGeneration.from_pretrained(folder / f"mint-{role}") for role in ("rag", "gar")}


@pytest.fixture
def processor(folder):
    return MintProcessor.from_pretrained(folder / "mint-base")


def base_parameters(model):
    """Bytes of the parameters that are no adapter's, each counted once."""
    named = model.named_parameters()
    return sum(value.numel() * value.element_size() for name, value in named if "lora_" not in name)


def test_the_first_role_given_is_taken_and_the_other_is_a_switch_away(base, adapters):
    base.load_roles({"gar": adapters["gar"], "rag": adapters["rag"]})
    assert (base.config.role, base.config.answer_temperature) == ("gar", 4.0)
    base.set_role("rag")
    assert (base.config.role, base.config.answer_temperature) == ("rag", 2.0)
    assert not base.training and not any(
        parameter.requires_grad for name, parameter in base.named_parameters() if "lora_" in name
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_object_with_two_adapters_answers_as_two_merged_models_do(strategy, base, adapters, merged, processor):
    base.load_roles(adapters)
    one = StrategyInference(QUESTIONS, processor, rag=base, gar=base, k=3).run(strategy)
    two = StrategyInference(QUESTIONS, processor, **merged, k=3).run(strategy)
    assert (one.answers, one.rows) == (two.answers, two.rows)
    assert one.scores == pytest.approx(two.scores, rel=1e-4)
    for shares, expected in zip(one.document_scores, two.document_scores, strict=True):
        assert shares == pytest.approx(expected, rel=1e-4)


def test_adapters_disagree_so_that_the_comparison_says_something(base, adapters, processor):
    base.load_roles(adapters)
    inference = StrategyInference(QUESTIONS, processor, rag=base, gar=base)
    assert inference.rag_documents.scores != inference.gar_documents.scores
    assert inference.rag_answers.log_probs != inference.gar_answers.log_probs


def test_second_adapter_loads_without_a_warning_about_the_first(base, adapters, caplog):
    logger = logging.getLogger("transformers")
    propagate, logger.propagate = logger.propagate, True
    try:
        base.load_roles(adapters)
    finally:
        logger.propagate = propagate
    assert "MISSING" not in caplog.text


def test_adapter_that_lacks_weights_is_refused(base, adapters, tmp_path):
    shutil.copytree(adapters["rag"], tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="lacks 1 weights of the adapter, such as"):
        base.load_roles({"rag": tmp_path / "adapter"})


def test_pipeline_holds_the_base_once(folder, adapters, merged, processor):
    ask = pipeline("mint", model=str(folder / "mint-base"), adapters=adapters, pipeline_class=MintPipeline)
    assert ask.models["rag"] is ask.models["gar"] is ask.model
    assert base_parameters(ask.model) == base_parameters(merged["rag"])
    full = MintPipeline(merged["rag"], gar_model=merged["gar"], processor=processor)
    for strategy in STRATEGIES:
        replies, expected = ask(QUESTIONS, strategy=strategy), full(QUESTIONS, strategy=strategy)
        assert [one["answer"] for one in replies] == [one["answer"] for one in expected]
        assert [[document["row"] for document in one["documents"]] for one in replies] == [
            [document["row"] for document in one["documents"]] for one in expected
        ]


def test_strategy_defaults_to_the_first_adapter_whatever_was_asked_before(base, adapters, processor):
    ask = MintPipeline(base, adapters={"gar": adapters["gar"], "rag": adapters["rag"]}, processor=processor)
    assert ask(QUESTIONS[0], strategy="rag")["strategy"] == "rag"
    assert ask(QUESTIONS[0])["strategy"] == "gar"


def test_model_that_has_its_adapters_needs_no_partner(base, adapters, processor):
    base.load_roles(adapters)
    assert MintPipeline(base, processor=processor)(QUESTIONS[0], strategy="cascade")["strategy"] == "cascade"


def test_one_adapter_alone_cannot_play_both_roles(base, adapters, processor):
    ask = MintPipeline(base, adapters={"gar": adapters["gar"]}, processor=processor)
    assert ask(QUESTIONS[0])["strategy"] == "gar"
    with pytest.raises(ValueError, match="needs a RAG model: give `rag_model`, or its adapter"):
        ask(QUESTIONS[0], strategy="ensemble")
    with pytest.raises(ValueError, match="role 'gar' and no adapter for 'rag'"):
        base.set_role("rag")


def test_partner_is_an_adapter_or_a_model_but_not_both(base, adapters, merged, processor):
    with pytest.raises(ValueError, match="not as both"):
        MintPipeline(base, adapters=adapters, gar_model=merged["gar"], processor=processor)


def test_roles_switch_under_a_peft_model_too(base, adapters, merged, processor):
    wrapped = PeftModel.from_pretrained(base, adapters["rag"], adapter_name="rag")
    wrapped.load_adapter(adapters["gar"], adapter_name="gar")
    for role, temperature in TEMPERATURES.items():
        base.calibrate(role, answer_temperature=temperature)
    for role in ("gar", "rag"):
        base.set_role(role)
        found, expected = (model.answer(QUESTIONS, processor, [[1]] * 3) for model in (base, merged[role]))
        assert found.texts == expected.texts


def test_full_model_has_its_own_role_only(merged):
    merged["rag"].set_role("rag")
    with pytest.raises(ValueError, match=r"role 'rag' and no adapter for 'gar'.*load_roles\(\{\"gar\": folder\}\)"):
        merged["rag"].set_role("gar")


@pytest.mark.parametrize("auto_class", [AutoModel, MintForConditionalGeneration])
def test_adapter_folder_loads_as_a_model_of_its_role(auto_class, adapters, merged, processor, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = auto_class.from_pretrained(adapters["gar"])
    assert type(model) is MintForConditionalGeneration
    assert (model.config.role, model.config.answer_temperature) == ("gar", 4.0)
    assert model.answer(QUESTIONS, processor).texts == merged["gar"].answer(QUESTIONS, processor).texts


def test_adapter_given_for_the_wrong_role_is_refused_before_anything_is_loaded(base, adapters):
    with pytest.raises(ValueError, match="mint-gar-adapter is an adapter of the role 'gar', given for 'rag'"):
        base.load_roles({"rag": adapters["gar"]})
    with pytest.raises(ValueError, match="'gar', given for 'rag'"):
        base.load_roles({"gar": adapters["gar"], "rag": adapters["gar"]})
    assert not any("lora_" in name for name, _ in base.named_parameters())


def test_role_that_there_is_not_is_refused(base, adapters):
    with pytest.raises(ValueError, match=r"names the roles \['reader'\]; give one or both of"):
        base.load_roles({"reader": adapters["rag"]})
    with pytest.raises(ValueError, match=r"names the roles \[\]"):
        base.load_roles({})


def test_adapter_of_another_base_is_refused_with_what_differs(base, adapters, tmp_path):
    other = shutil.copytree(adapters["rag"], tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["backbone_config"]["vocab_size"] += 7
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="other was trained on another base: its backbone differs in vocab_size"):
        base.load_roles({"rag": other})


def test_folder_without_an_adapter_is_refused(base, folder):
    with pytest.raises(ValueError, match="mint-base holds no adapter: adapter_config.json is missing"):
        base.load_roles({"rag": folder / "mint-base"})


@pytest.mark.slow
def test_full_model_needs_no_peft(folder):
    code = """
import sys
sys.modules["peft"] = None
from transformers import AutoModel
import modeling_mint
model = AutoModel.from_pretrained(sys.argv[1])
model.set_role("rag")
processor = modeling_mint.MintProcessor.from_pretrained(sys.argv[1])
print(len(model.retrieve(["moon"], processor, k=2).rows))
"""
    command = [sys.executable, "-c", code, str(folder / "mint-rag")]
    process = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == "1"
