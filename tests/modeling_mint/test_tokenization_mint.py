import pytest
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from modeling_mint.tokenization_mint import encode_targets, target_prefix, tokenizer_fingerprint
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_unigram_tokenizer

MAKERS = [tiny_byte_level_tokenizer, tiny_unigram_tokenizer, ByT5Tokenizer]


def test_prefix_is_a_space_only_where_words_carry_their_space():
    assert target_prefix(tiny_byte_level_tokenizer()) == " "
    assert target_prefix(tiny_unigram_tokenizer()) == ""
    assert target_prefix(ByT5Tokenizer()) == ""


def test_byte_level_target_continues_a_prompt_as_running_text_would():
    tokenizer = tiny_byte_level_tokenizer()
    prompt = tokenizer("Title:", add_special_tokens=False)["input_ids"]
    target = encode_targets(tokenizer, ["Eiffel Tower"], add_eos=False)[0]
    assert prompt + target == tokenizer("Title: Eiffel Tower", add_special_tokens=False)["input_ids"]


def test_unigram_target_has_no_stray_piece_before_its_first_word():
    tokenizer = tiny_unigram_tokenizer()
    first = encode_targets(tokenizer, ["Paris"], add_eos=False)[0]
    assert tokenizer.convert_ids_to_tokens(first)[0].startswith("▁P")


@pytest.mark.parametrize("make", MAKERS)
def test_batch_gives_what_single_texts_give_and_ends_with_eos(make):
    tokenizer = make()
    together = encode_targets(tokenizer, TITLES)
    assert together == [encode_targets(tokenizer, [title])[0] for title in TITLES]
    assert all(ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[:-1] for ids in together)
    assert [ids[:-1] for ids in together] == encode_targets(tokenizer, TITLES, add_eos=False)
    assert encode_targets(tokenizer, []) == []


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("text", ["</s>", "<pad>", "a </s> b", "x</s>", "</s></s>"])
def test_special_token_text_never_becomes_the_special_token(make, text):
    tokenizer = make()
    ids = encode_targets(tokenizer, [text], add_eos=False)[0]
    assert len(ids) >= 2
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)


def test_special_token_text_of_a_byte_level_tokenizer_decodes_back():
    tokenizer = tiny_byte_level_tokenizer()
    ids = encode_targets(tokenizer, ["</s> and <pad>"], add_eos=False)[0]
    assert tokenizer.decode(ids) == " </s> and <pad>"


def test_ordinary_encoding_still_knows_special_tokens_afterwards():
    tokenizer = tiny_byte_level_tokenizer()
    encode_targets(tokenizer, ["</s>"])
    assert tokenizer("</s>")["input_ids"] == [tokenizer.eos_token_id]


def test_unknown_characters_become_the_unknown_token():
    tokenizer = tiny_unigram_tokenizer()
    assert tokenizer.unk_token_id in encode_targets(tokenizer, ["Ωmega"])[0]


def test_tokenizer_without_end_token_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_byte_level_tokenizer().backend_tokenizer)
    with pytest.raises(ValueError, match="no end token; set `tokenizer.eos_token`"):
        encode_targets(tokenizer, ["Paris"])


@pytest.mark.parametrize("make", MAKERS)
def test_fingerprint_survives_saving_padding_and_truncation(make, tmp_path):
    tokenizer = make()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "b c d e f"], padding=True, truncation=True, max_length=3)
    encode_targets(tokenizer, TITLES)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(tokenizer) == before
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == before


def test_fingerprint_tells_tokenizers_apart():
    tokenizers = [make() for make in MAKERS]
    tokenizers.append(tiny_byte_level_tokenizer())
    tokenizers[-1].add_tokens(["Eiffel Tower"])
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) == 4
