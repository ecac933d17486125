"""Docid search against `generate` with the logits processor: same docids, same scores."""

import random

import pytest
import torch
from random_search import ARCHITECTURES, assert_same_docids, random_model, random_prompts, random_trie
from transformers import LogitsProcessorList

from modeling_mint import TitleTrieLogitsProcessor, generate_docids, search_docids
from modeling_mint.docid_decoders import takes_tree_attention
from modeling_mint.logits_process_mint import FILLER_SCORE

LENGTH_PENALTIES = (0.0, 1.0, -0.5, 2.0, -1.0, 0.5)


def generate(model, titles, prompts, num_beams, num_docids, length_penalty, **arguments):
    return model.generate(
        **prompts,
        num_beams=num_beams,
        num_return_sequences=num_docids,
        length_penalty=length_penalty,
        early_stopping="never",
        max_new_tokens=titles.max_depth,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **arguments,
    )


def constraint(model, trie, prompts):
    prompt_length = 1 if model.config.is_encoder_decoder else prompts["input_ids"].shape[1]
    return LogitsProcessorList([TitleTrieLogitsProcessor(trie, prompt_length)])


def generated(model, trie, prompts, num_beams, num_docids, length_penalty):
    """Per prompt (leaf, score) of what `generate` returns, fillers dropped."""
    processors = constraint(model, trie, prompts)
    output = generate(model, trie, prompts, num_beams, num_docids, length_penalty, logits_processor=processors)
    leaves = trie.walk(output.sequences[:, processors[0].prompt_length :]).view(-1, num_docids).tolist()
    scores = output.sequences_scores.view(-1, num_docids).tolist()
    return [
        [(leaf, score) for leaf, score in zip(*ranked, strict=True) if score > FILLER_SCORE]
        for ranked in zip(leaves, scores, strict=True)
    ]


def check_equality(architecture, seed):
    draw = random.Random(f"{architecture} {seed}")
    model = random_model(architecture, seed)
    trie = random_trie(draw, draw.choice([1, 2, 5, 20, 60]), draw.choice([1, 2, 3, 8]))
    prompts = random_prompts(draw, model)
    num_beams = draw.randint(2, 20)
    num_docids = draw.randint(1, num_beams)
    length_penalty = draw.choice(LENGTH_PENALTIES)
    found = search_docids(
        model, trie, **prompts, num_beams=num_beams, num_docids=num_docids, length_penalty=length_penalty
    )
    assert_same_docids(found, generated(model, trie, prompts, num_beams, num_docids, length_penalty))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_docids_and_scores_are_those_of_generate(architecture, seed):
    check_equality(architecture, seed)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_docids_and_scores_are_those_of_generate_in_many_more_cases(architecture):
    for seed in range(100, 250):
        check_equality(architecture, seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_over_the_trie_do_not_depend_on_what_else_is_in_the_batch(architecture, seed):
    """Forced titles are not run at all here, while other beams of the same query still are."""
    draw = random.Random(seed)
    model = random_model(architecture, seed)
    trie = random_trie(draw, 30, draw.choice([2, 3]))
    prompts = random_prompts(draw, model, 4)
    together = search_docids(model, trie, **prompts, scoring="trie")
    for row, ranked in enumerate(together):
        alone = {name: value[row : row + 1] for name, value in prompts.items()}
        assert_same_docids([ranked], search_docids(model, trie, **alone, scoring="trie"))


def test_decoder_only_models_that_keep_all_keys_share_a_row_per_query():
    takes = {name: takes_tree_attention(random_model(name, 0)) for name in ARCHITECTURES}
    assert takes == {"llama": True, "gpt2": True, "mistral": False, "t5": False, "bart": False}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tree_attention_is_the_same_for_each_implementation_of_attention(attention):
    draw = random.Random(0)
    # Not in float64: eager attention takes its softmax in float32, where the mask's lowest float64 is -inf.
    model = random_model("llama", 0).float()
    trie, prompts = random_trie(draw, 40, 3), random_prompts(draw, model)
    expected = generated(model, trie, prompts, 5, 5, 0.0)
    model.set_attn_implementation(attention)
    assert_same_docids(search_docids(model, trie, **prompts, num_beams=5, num_docids=5), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generate_takes_the_search_as_its_decoding_method(architecture, seed):
    draw = random.Random(seed)
    model = random_model(architecture, seed)
    trie, prompts = random_trie(draw, 60, 3), random_prompts(draw, model)
    arguments = (model, trie, prompts, 6, 4, 0.5)
    expected = generate(*arguments, logits_processor=constraint(model, trie, prompts))
    output = generate(*arguments, custom_generate=generate_docids, trie=trie)
    assert type(output) is type(expected)
    assert torch.equal(output.sequences, expected.sequences)
    assert output.sequences_scores.tolist() == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_rows_that_generate_cannot_fill_hold_the_prompt_only(architecture):
    draw = random.Random(0)
    model = random_model(architecture, 0)
    trie, prompts = random_trie(draw, 1, 3), random_prompts(draw, model, 1)
    output = generate(model, trie, prompts, 3, 3, 0.0, custom_generate=generate_docids, trie=trie)
    written = output.sequences[:, -trie.max_depth :]
    assert trie.walk(written[:1]).tolist() == [int(search_docids(model, trie, **prompts)[0][0][0])]
    assert (written[1:] == written[1, 0]).all() and (output.sequences_scores[1:] < FILLER_SCORE).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 1}, "set `max_new_tokens=trie.max_depth`"),
        ({"max_new_tokens": 9, "repetition_penalty": 2.0}, "drop what asks for"),
        ({"max_new_tokens": 9, "do_sample": True}, "no sampling"),
        ({"max_new_tokens": 9, "scoring": "length"}, "`scoring` is 'length'"),
    ],
)
def test_generate_arguments_that_the_search_cannot_honour_are_refused(arguments, message):
    draw = random.Random(0)
    model = random_model("llama", 0)
    trie, prompts = random_trie(draw, 20, 3), random_prompts(draw, model)
    with pytest.raises(ValueError, match=message):
        model.generate(**prompts, num_beams=3, custom_generate=generate_docids, trie=trie, **arguments)
