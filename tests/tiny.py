"""Tiny tokenizers, models and titles for all tests: made in memory in well under a second, the same on every run."""

import math
from collections import Counter

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

# Prefixes of each other, commas, accents, digits, brackets, one title that is a single letter.
TITLES = [
    "A",
    "Eiffel",
    "Eiffel Tower",
    "Eiffel Tower, Paris",
    "Gustave Eiffel",
    "Paris",
    "Paris, Texas",
    "Paris, Texas (film)",
    "Parish",
    "New York",
    "New York City",
    "New York City Subway",
    "New Zealand",
    "New",
    "Newton",
    "Isaac Newton",
    "Marie Curie",
    "Pierre Curie",
    "Curie",
    "Frédéric Chopin",
    "São Paulo",
    "Zürich",
    "Café",
    "Café society",
    "1984",
    "1984 (novel)",
    "2001: A Space Odyssey",
    "20th century",
    "20th century, Fox",
    "World War I",
    "World War II",
    "World",
    "Moon",
    "Moon landing",
    "Apollo 11",
    "Apollo 1",
    "Apollo",
    "DNA",
    "C",
    "C++",
]

SENTENCES = TITLES + [
    "Question: who designed the Eiffel Tower in Paris?",
    "Answer: Gustave Eiffel, the engineer, in the year 1889.",
    "Title: World War II was the second great war of the 20th century.",
    "Passage: Isaac Newton wrote about the moon, gravity and light; Marie Curie about radium.",
    "Letters: a b, a b, a b, as in any text that a tokenizer learns from.",
    "Titles: Paris | Moon | DNA | Apollo 11 | World War I",
    "Which city in New Zealand is the largest? Documents: Apollo 11 landed on the moon in 1969.",
]

SPECIAL_TOKENS = ["<pad>", "</s>", "<unk>"]


def tiny_byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """
    Byte-level BPE tokenizer like those of GPT-2, Llama-3 and SmolLM2: no unknown text, the space belongs to the word
    that follows it. About 500 tokens; `<pad>` 0, `</s>` 1.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIAL_TOKENS[:2],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", padding_side="left", model_max_length=512
    )


def tiny_unigram_tokenizer() -> PreTrainedTokenizerFast:
    """
    Unigram tokenizer like T5's: words start with `▁`, characters outside its alphabet become `<unk>`, and the special
    tokens stand in the model's own vocabulary. `<pad>` 0, `</s>` 1, `<unk>` 2.
    """
    # The vocabulary is counted here because the Unigram trainer gives another one on every run.
    words = Counter("▁" + word for sentence in SENTENCES for word in sentence.split())
    pieces = Counter({word[:4]: count for word, count in words.items()}) + words
    for word, count in words.items():
        pieces.update(dict.fromkeys(word, count))
    scores = [(piece, math.log(count / pieces.total())) for piece, count in sorted(pieces.items())]
    backend = Tokenizer(models.Unigram([(token, 0.0) for token in SPECIAL_TOKENS] + scores, unk_id=2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )


def tiny_llama(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> LlamaForCausalLM:
    """Random decoder-only model (two layers, hidden size 32) over the tokenizer's vocabulary, in eval mode."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).eval()


def tiny_t5(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> T5ForConditionalGeneration:
    """Random encoder-decoder model (two layers each, hidden size 32) over the tokenizer's vocabulary, in eval mode."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(config).eval()
