"""Random tiny models of five architectures, tries of all shapes and prompts for the tests of docid search."""

import copy
import random

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from modeling_mint import TitleTrie

VOCAB_SIZE = 40
END = 1
_SHARED = {"vocab_size": VOCAB_SIZE, "pad_token_id": 0, "eos_token_id": END, "bos_token_id": None}
_LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
# Mistral's sliding window keeps it from tree attention, so it runs one row per beam like the encoder-decoders.
ARCHITECTURES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_SHARED, **_LLAMA, num_key_value_heads=2, initializer_range=0.5)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**_SHARED, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)),
    "mistral": (
        MistralForCausalLM,
        MistralConfig(**_SHARED, **_LLAMA, num_key_value_heads=2, sliding_window=64, initializer_range=0.5),
    ),
    "t5": (
        T5ForConditionalGeneration,
        T5Config(**_SHARED, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0),
    ),
    "bart": (
        BartForConditionalGeneration,
        BartConfig(
            **_SHARED,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
            decoder_start_token_id=END,
            forced_eos_token_id=None,
            init_std=0.5,
        ),
    ),
}


def random_model(architecture: str, seed: int):
    """In float64, so that two orders of summation give the same float32 scores."""
    torch.manual_seed(seed)
    model_class, config = ARCHITECTURES[architecture]
    return model_class(copy.deepcopy(config)).eval().double()


def random_trie(draw: random.Random, num_titles: int, alphabet: int) -> TitleTrie:
    """Up to `num_titles` distinct titles of 1 to 7 tokens out of `alphabet`: the fewer, the more forced tokens."""
    paths = {tuple(draw.randrange(4, 4 + alphabet) for _ in range(draw.randint(1, 7))) for _ in range(num_titles)}
    return TitleTrie.from_token_ids([[*path, END] for path in sorted(paths)], END, VOCAB_SIZE)


def random_prompts(draw: random.Random, model, num_prompts: int = 3) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of prompts of 1 to 9 tokens, padded on the model's side."""
    prompts = [[draw.randrange(4, VOCAB_SIZE) for _ in range(draw.randint(1, 9))] for _ in range(num_prompts)]
    width = max(map(len, prompts))
    padded, mask = [], []
    for prompt in prompts:
        fill, ones = [0] * (width - len(prompt)), [1] * len(prompt)
        padded.append(prompt + fill if model.config.is_encoder_decoder else fill + prompt)
        mask.append(ones + fill if model.config.is_encoder_decoder else fill + ones)
    return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


def assert_same_docids(found, expected) -> None:
    """Same leaves in the same order with scores within 1e-4; docids whose scores are closer may change places."""
    for ranked, others in zip(found, expected, strict=True):
        assert len(ranked) == len(others)
        scores, other_scores = dict(ranked), dict(others)
        for (leaf, score), (_, other) in zip(ranked, others, strict=True):
            assert abs(score - other) < 1e-4
            assert abs(other_scores.get(leaf, others[-1][1]) - score) < 1e-4
        assert len(scores) == len(ranked)
