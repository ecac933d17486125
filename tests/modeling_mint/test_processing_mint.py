import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor

from modeling_mint import MintProcessor, TitleTrieLogitsProcessor, format_prompt
from modeling_mint.tasks_mint import docid_list
from tests.tiny import TITLES


@pytest.fixture
def processor(kind, processors):
    return processors[kind]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    """`load_dataset` keeps Arrow copies; these tests must not leave any behind."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def test_target_of_every_title_is_its_path_in_the_trie(processor):
    for row, title in enumerate(TITLES):
        _, target_ids = processor.encode_example("Question: q\nTitle:", (title,))
        (leaf,) = processor.trie.walk(torch.tensor([target_ids])).tolist()
        assert processor.trie.rows(leaf) == [row]


def test_titles_inside_a_list_keep_their_paths(processor):
    alone = {title: processor.encode_example("", (title,))[1][:-1] for title in TITLES}
    for titles in (TITLES[start : start + 3] for start in range(0, len(TITLES), 3)):
        _, target_ids = processor.encode_example("Question: q\nTitles:", docid_list(titles))
        expected = []
        for title in titles:
            expected += processor.separator_ids * bool(expected) + alone[title]
        assert target_ids == expected + [processor.tokenizer.eos_token_id]


def test_list_target_is_what_constrained_generation_allows_token_by_token(processor):
    docids = ["Paris, Texas", "Paris", "New York City Subway"]
    _, target_ids = processor.encode_example("", docid_list(docids))
    constraint = TitleTrieLogitsProcessor(processor.trie, 0, "list", processor.separator_ids, max_docids=3)
    scores = torch.zeros(1, len(processor.tokenizer))
    for position, token in enumerate(target_ids):
        prefix = torch.tensor([target_ids[:position]], dtype=torch.long)
        assert constraint(prefix, scores)[0, token] == 0


def test_prompts_are_padded_on_the_side_of_their_kind(kind, processor):
    inputs = processor(["moon", "Who designed the Eiffel Tower?"])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    short = inputs["attention_mask"][0].tolist()
    assert short == sorted(short, reverse=kind == "t5") and 0 in short
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == processor.tokenizer.pad_token_id).all()


def test_prompt_of_a_call_and_of_a_training_example_has_the_same_ids(processor):
    prompt = format_prompt("query_to_docid", query="Who designed the Eiffel Tower?")
    assert processor(prompt)["input_ids"].tolist() == [processor.encode_example(prompt, ("Paris",))[0]]


def test_prompt_that_is_too_long_loses_its_beginning(processor):
    short = MintProcessor(processor.tokenizer, processor.trie, max_prompt_length=8)
    prompt = format_prompt("grounded_answer", query="moon?", documents=[("Paris", "the world " * 50)])
    whole = processor(prompt)["input_ids"][0].tolist()
    assert len(whole) > 8
    assert short(prompt)["input_ids"][0].tolist() == whole[-8:]
    assert short.encode_example(prompt, ("Paris",))[0] == whole[-8:]


@pytest.mark.parametrize("text", ["</s>", "<pad>", "a</s>b", "who </s> <pad> </s>?"])
def test_special_tokens_in_a_query_or_target_stay_text(processor, text):
    special = {processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id}
    prompt_ids, target_ids = processor.encode_example(format_prompt("query_to_docid", query=text), (text,))
    assert special.isdisjoint(prompt_ids)
    assert special.isdisjoint(target_ids[:-1])


def test_context_gives_titles_and_shortened_texts_best_first(processor, collection):
    brief = MintProcessor(processor.tokenizer, processor.trie, collection, max_document_chars=20)
    rows = [TITLES.index("Moon"), TITLES.index("DNA")]
    assert brief.context(rows) == [("Moon", "Moon is known in"), ("DNA", "DNA is known in")]
    assert brief.document(rows[0]) == ("Moon", "Moon is known in Paris and the world.")


def test_generated_text_is_read_as_its_first_line(processors):
    tokenizer = processors["llama"].tokenizer
    ids = tokenizer([" Paris \nQuestion: moon", "\n Moon</s><pad>"], padding=True, return_tensors="pt")["input_ids"]
    assert processors["llama"].decode_text(ids) == ["Paris", "Moon"]


def test_saved_processor_loads_with_trie_settings_and_the_collection_beside_it(kind, run_folders):
    folder = run_folders[kind] / "mint-rag"
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is MintProcessor
    assert json.loads((folder / "processor_config.json").read_text())["collection"] == "../mint-collection"
    assert loaded.collection["title"][:] == TITLES
    assert len(loaded.trie) == len(TITLES)
    assert (loaded.max_document_chars, loaded.max_prompt_length) == (320, 512)
    assert loaded.padding_side == ("right" if kind == "t5" else "left")


def test_settings_survive_saving(processor, tmp_path):
    settings = {"max_document_chars": 100, "max_prompt_length": 64, "padding_side": processor.padding_side}
    MintProcessor(processor.tokenizer, processor.trie, **settings).save_pretrained(tmp_path)
    loaded = MintProcessor.from_pretrained(tmp_path)
    assert settings.items() <= loaded.to_dict().items()
    prompt = format_prompt("query_to_docid", query="</s> moon " * 40)
    assert loaded(prompt)["input_ids"].tolist() == [processor(prompt)["input_ids"][0, -64:].tolist()]


def test_settings_print_without_trie_and_collection(processor):
    assert "max_prompt_length" in repr(processor)
    assert set(processor.to_dict()) == {
        "processor_class",
        "auto_map",
        "collection",
        "max_document_chars",
        "max_prompt_length",
        "padding_side",
    }


def test_collection_given_at_loading_replaces_the_saved_one(kind, run_folders, collection):
    other = collection.map(lambda document: {"text": document["text"].upper()})
    loaded = MintProcessor.from_pretrained(run_folders[kind] / "mint-rag", collection=other)
    assert loaded.document(0)[1] == "A IS KNOWN IN PARIS AND THE WORLD."


@pytest.mark.parametrize("as_type", [str, Path])
def test_collection_may_be_given_as_the_folder_it_is_in(as_type, run_folders, backbones):
    folder = as_type(run_folders["llama"] / "mint-collection")
    processor = MintProcessor.from_backbone_pretrained(backbones["llama", "rag"], folder)
    assert processor.collection["title"][:] == TITLES
    assert processor.to_dict()["collection"] == str(folder)


def test_collection_of_another_size_is_refused(run_folders, collection):
    loaded = MintProcessor.from_pretrained(run_folders["llama"] / "mint-rag")
    with pytest.raises(ValueError, match=f"has 3 documents and the title trie was built from {len(TITLES)}"):
        loaded.collection = collection.select(range(3))


def test_collection_of_another_size_is_refused_at_loading(run_folders, collection):
    with pytest.raises(ValueError, match="has 3 documents"):
        MintProcessor.from_pretrained(run_folders["llama"] / "mint-rag", collection=collection.select(range(3)))


def test_processor_without_a_collection_says_how_to_give_one(processor):
    with pytest.raises(ValueError, match="set `processor.collection`"):
        MintProcessor(processor.tokenizer, processor.trie).document(0)


def test_trie_of_another_tokenizer_is_refused(run_folders, tmp_path):
    shutil.copytree(run_folders["llama"] / "mint-rag", tmp_path / "mixed")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(run_folders["t5"] / "mint-rag" / name, tmp_path / "mixed" / name)
    with pytest.raises(ValueError, match="was built with another tokenizer"):
        MintProcessor.from_pretrained(tmp_path / "mixed")


def test_missing_trie_is_an_error_that_names_the_file(run_folders, tmp_path):
    shutil.copytree(run_folders["llama"] / "mint-rag", tmp_path / "bare")
    (tmp_path / "bare" / "title_trie.safetensors").unlink()
    with pytest.raises(OSError, match="title_trie.safetensors"):
        MintProcessor.from_pretrained(tmp_path / "bare")


@pytest.mark.parametrize(
    ("titles", "message"), [([], "collection is empty"), (["Paris", " "], "title of row 1 is empty")]
)
def test_collection_that_cannot_be_indexed_is_refused(backbones, titles, message):
    documents = Dataset.from_dict({"title": titles, "text": ["text"] * len(titles)})
    with pytest.raises(ValueError, match=message):
        MintProcessor.from_backbone_pretrained(backbones["llama", "rag"], documents)


def test_tokenizer_without_padding_pads_with_its_end_token(backbones, collection):
    processor = MintProcessor.from_backbone_pretrained(backbones["llama", "rag"], collection)
    processor.tokenizer.pad_token = None
    assert MintProcessor(processor.tokenizer).tokenizer.pad_token == "</s>"
