import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    T5Config,
)

from modeling_mint import MintConfig, MintForConditionalGeneration, TitleTrieLogitsProcessor, format_prompt
from modeling_mint.configuration_mint import AUTO_MAP
from tests.tiny import tiny_unigram_tokenizer

QUESTIONS = ["Who designed the Eiffel Tower?", "moon", "In which city was Frédéric Chopin born?"]
TARGETS = ["Gustave Eiffel", "Apollo 11", "Paris"]
AUTO_CLASSES = {"llama": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM, "bart": AutoModelForSeq2SeqLM}


@pytest.fixture(scope="module")
def bart_folder(tmp_path_factory):
    """A second encoder-decoder: absolute positions, a start token of its own, embeddings under other names."""
    folder = tmp_path_factory.mktemp("bart")
    tokenizer = tiny_unigram_tokenizer()
    sizes = dict.fromkeys(
        ("encoder_attention_heads", "decoder_attention_heads", "encoder_layers", "decoder_layers"), 2
    )
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
        **sizes,
    )
    torch.manual_seed(0)
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def training_batch(processor, is_encoder_decoder):
    """Prompts and targets as a batch with labels, in the layout of each kind."""
    pairs = [
        processor.encode_example(format_prompt("query_to_docid", query=query), (target,))
        for query, target in zip(QUESTIONS, TARGETS, strict=True)
    ]
    if not is_encoder_decoder:
        pairs = [(prompt + target, [-100] * len(prompt) + target) for prompt, target in pairs]

    def padded(rows, value):
        length = max(map(len, rows))
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    return {
        "input_ids": padded([ids for ids, _ in pairs], 0),
        "attention_mask": padded([[1] * len(ids) for ids, _ in pairs], 0),
        "labels": padded([labels for _, labels in pairs], -100),
    }


@pytest.fixture
def batch(kind, processors):
    return training_batch(processors[kind], kind == "t5")


def outputs(model, batch):
    with torch.no_grad():
        return model(**batch)


def test_default_config_is_constructible_and_a_t5():
    config = MintConfig()
    assert isinstance(config.backbone_config, T5Config)
    assert (config.role, config.docid_granularity, config.answer_temperature) == ("rag", "title", 1.0)
    assert config.is_encoder_decoder and config.get_text_config() is config.backbone_config


def test_config_takes_over_what_generation_reads_from_the_backbones():
    config = MintConfig(
        backbone_config=LlamaConfig(num_hidden_layers=3, pad_token_id=7, bos_token_id=8, eos_token_id=9)
    )
    assert not config.is_encoder_decoder
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (7, 8, 9)
    assert config.get_text_config(decoder=True).num_hidden_layers == 3


def test_config_saves_and_loads_its_backbone_and_every_setting(tmp_path):
    config = MintConfig(
        backbone_config=LlamaConfig(num_hidden_layers=3),
        role="gar",
        docid_granularity="section",
        answer_temperature=1.75,
        query_likelihood_weight=0.25,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, MintConfig) and isinstance(loaded.backbone_config, LlamaConfig)
    assert loaded.backbone_config.num_hidden_layers == 3
    assert (loaded.role, loaded.docid_granularity) == ("gar", "section")
    assert loaded.calibrated == {"answer_temperature": 1.75, "query_likelihood_weight": 0.25}
    assert loaded.auto_map == AUTO_MAP


def test_config_takes_its_backbone_as_a_dict():
    config = MintConfig(backbone_config={"model_type": "llama", "num_hidden_layers": 3})
    assert isinstance(config.backbone_config, LlamaConfig) and config.backbone_config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "reader"}, r"`role` is 'reader'; it must be one of \('rag', 'gar'\)"),
        ({"query_likelihood_weight": -0.1}, "`query_likelihood_weight` is -0.1; it must be a number, at least 0"),
        ({"docid_granularity": "page"}, r"`docid_granularity` is 'page'; it must be one of \('title', 'section'\)"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MintConfig(**arguments)


def test_logits_and_loss_are_those_of_the_bare_backbone(kind, backbones, models, batch):
    bare = outputs(AUTO_CLASSES[kind].from_pretrained(backbones[kind, "rag"]), batch)
    mint = outputs(models[kind, "rag"], batch)
    assert torch.equal(mint.logits, bare.logits)
    assert torch.equal(mint.loss, bare.loss)


@pytest.mark.parametrize("number", [1, 3, 1000])
def test_last_logits_are_those_of_all_and_the_head_reads_memory_without_gaps(number, models, processors):
    """A head that does not train multiplies a view with gaps row by row, each with a copy of the head."""
    model, processor = models["llama", "rag"], processors["llama"]
    read = []
    hook = model.backbone.lm_head.register_forward_pre_hook(lambda head, inputs: read.append(inputs[0]))
    inputs = processor(["moon", "Who designed the Eiffel Tower?"])
    with torch.no_grad():
        every = model(**inputs).logits
        last = model(**inputs, logits_to_keep=number).logits
    hook.remove()
    torch.testing.assert_close(last, every[:, -number:])
    assert read[-1].is_contiguous()


def test_bart_is_a_backbone_too(bart_folder, processors, tmp_path):
    batch = training_batch(processors["t5"], is_encoder_decoder=True)
    bare = outputs(AutoModelForSeq2SeqLM.from_pretrained(bart_folder), batch)
    model = MintForConditionalGeneration.from_backbone_pretrained(bart_folder, role="gar")
    assert torch.equal(outputs(model, batch).logits, bare.logits)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.role == "gar"
    assert torch.equal(outputs(loaded, batch).logits, bare.logits)


def test_base_model_gives_hidden_states_without_the_head(models, processors):
    """What TRL's fused loss asks a decoder-only model for."""
    prompt = processors["llama"](QUESTIONS)
    model = models["llama", "rag"]
    hidden = outputs(model.base_model, prompt).last_hidden_state
    torch.testing.assert_close(model.get_output_embeddings()(hidden), outputs(model, prompt).logits)


def test_saved_model_loads_by_every_auto_class_of_its_kind_with_the_same_logits(kind, role, models, batch, tmp_path):
    model = models[kind, role]
    model.save_pretrained(tmp_path)
    for auto_class in (AutoModel, AUTO_CLASSES[kind]):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is MintForConditionalGeneration
        assert loaded.config.role == role
        assert torch.equal(outputs(loaded, batch).logits, outputs(model, batch).logits)


def test_calibrated_temperature_travels_with_the_model(models, tmp_path):
    model = copy.deepcopy(models["llama", "gar"])
    model.config.answer_temperature = 2.5
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config.answer_temperature == 2.5


def test_random_model_from_a_config_has_the_backbones_weights(kind, models):
    fresh = MintForConditionalGeneration(models[kind, "rag"].config)
    shapes = {name: weight.shape for name, weight in models[kind, "rag"].named_parameters()}
    assert {name: weight.shape for name, weight in fresh.named_parameters()} == shapes


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(kind, models, batch):
    found = []
    for checkpointing in (False, True):
        model = copy.deepcopy(models[kind, "rag"]).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        assert model.is_activation_checkpointing is checkpointing
        torch.manual_seed(0)  # T5 trains with dropout
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        found.append((loss, {name: weight.grad for name, weight in model.named_parameters()}))
    (loss, gradients), (checkpointed_loss, checkpointed_gradients) = found
    torch.testing.assert_close(checkpointed_loss, loss)
    torch.testing.assert_close(checkpointed_gradients, gradients)
    assert all(gradient is not None for gradient in gradients.values())


def test_lora_trains_merges_and_saves_as_a_plain_model(kind, models, batch, tmp_path):
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(models[kind, "rag"]), LoraConfig(r=4, target_modules="all-linear"))
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name and "lm_head" not in name for name in trained)
    optimizer = torch.optim.AdamW((weight for weight in adapted.parameters() if weight.requires_grad), lr=0.02)
    losses = []
    for _ in range(15):
        loss = adapted(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]

    adapted.eval()
    expected = outputs(adapted, batch).logits
    merged = adapted.merge_and_unload()
    assert type(merged) is MintForConditionalGeneration
    merged.save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(AutoModel.from_pretrained(tmp_path), batch).logits, expected)


@pytest.mark.parametrize("tied_kind", ["llama", "bart"])
def test_tied_weights_are_saved_once_and_load_tied(tied_kind, bart_folder, tmp_path):
    if tied_kind == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=32, tie_word_embeddings=True, **sizes)).save_pretrained(tmp_path / "b")
    folder = bart_folder if tied_kind == "bart" else tmp_path / "b"
    model = MintForConditionalGeneration.from_backbone_pretrained(folder)
    model.save_pretrained(tmp_path / "mint")
    with safe_open(tmp_path / "mint" / "model.safetensors", "pt") as weights:
        vocabulary_sized = [name for name in weights.keys() if weights.get_slice(name).get_shape()[0] > 31]
        names = [name for name in vocabulary_sized if "embed_tokens" in name or "shared" in name or "lm_head" in name]
    assert len(names) == 1
    loaded = AutoModel.from_pretrained(tmp_path / "mint")
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 3}])
def test_generate_writes_what_the_bare_backbone_writes(kind, search, backbones, models, processors):
    inputs = processors[kind]([format_prompt("closed_book_answer", query=query) for query in QUESTIONS])
    bare = AUTO_CLASSES[kind].from_pretrained(backbones[kind, "rag"])
    arguments = {"max_new_tokens": 8, "do_sample": False, **search}
    assert torch.equal(models[kind, "rag"].generate(**inputs, **arguments), bare.generate(**inputs, **arguments))


@pytest.mark.parametrize("search", [{}, {"num_beams": 4, "num_return_sequences": 4}])
def test_generate_under_the_trie_writes_titles_of_the_collection(kind, search, models, processors):
    processor = processors[kind]
    inputs = processor([format_prompt("query_to_docid", query=query) for query in QUESTIONS])
    prompt_length = 1 if kind == "t5" else inputs["input_ids"].shape[1]
    constraint = TitleTrieLogitsProcessor(processor.trie, prompt_length)
    written = models[kind, "rag"].generate(
        **inputs,
        logits_processor=LogitsProcessorList([constraint]),
        max_new_tokens=processor.trie.max_depth,
        do_sample=False,
        **search,
    )[:, prompt_length:]
    titles = [processor.document(processor.trie.rows(leaf)[0])[0] for leaf in processor.trie.walk(written).tolist()]
    assert processor.decode_text(written) == titles


def test_generation_settings_of_the_backbone_are_kept(kind, backbones, tmp_path):
    bare = AUTO_CLASSES[kind].from_pretrained(backbones[kind, "rag"])
    bare.generation_config.repetition_penalty = 1.25
    bare.save_pretrained(tmp_path / "bare")
    model = MintForConditionalGeneration.from_backbone_pretrained(tmp_path / "bare")
    model.save_pretrained(tmp_path / "mint")
    for one in (model, AutoModel.from_pretrained(tmp_path / "mint")):
        assert one.generation_config.repetition_penalty == 1.25
        assert one.generation_config.decoder_start_token_id == bare.generation_config.decoder_start_token_id


def test_a_saved_model_does_not_tell_where_its_backbone_lay(kind, backbones, tmp_path):
    MintForConditionalGeneration.from_backbone_pretrained(backbones[kind, "rag"]).save_pretrained(tmp_path)
    assert str(backbones[kind, "rag"]) not in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_bfloat16_backbone_stays_bfloat16(kind, backbones, tmp_path):
    model = MintForConditionalGeneration.from_backbone_pretrained(backbones[kind, "rag"], dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == model.dtype == torch.bfloat16


def test_missing_backbone_is_an_error_that_names_it(tmp_path):
    with pytest.raises((OSError, ValueError), match="no-such-backbone"):
        MintForConditionalGeneration.from_backbone_pretrained(tmp_path / "no-such-backbone")


@pytest.mark.parametrize("temperature", [0, -1.0, "x"])
def test_a_temperature_that_cannot_divide_is_refused(temperature):
    with pytest.raises(ValueError, match="answer_temperature"):
        MintConfig(answer_temperature=temperature)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_configuration_of_other_layers_than_the_weights_is_refused(models, tmp_path, layers):
    models["llama", "rag"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["backbone_config"]["num_hidden_layers"] == 2
    config["backbone_config"]["num_hidden_layers"] = layers
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="do not belong together"):
        MintForConditionalGeneration.from_pretrained(tmp_path)
