"""Docid search behind `generate`: `model.generate(**inputs, custom_generate=generate_docids, trie=trie, ...)`.

Pushed as `custom_generate/generate.py`, this file gives the same by a repository's name.
"""

import os
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateBeamEncoderDecoderOutput

from .docid_decoders import RowDecoder, TreeDecoder, takes_tree_attention
from .docid_prefixes import ScoredPrefixes, check_prompts
from .docid_search import DocidBeamSearch
from .title_trie import TitleTrie

# What `generate` gives beams that hold nothing; see FILLER_SCORE in logits_process_mint.
_EMPTY_SCORE = -1e9


@torch.no_grad()
def generate_docids(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    generation_config: GenerationConfig,
    trie: TitleTrie,
    scoring: str = "vocabulary",
    **model_kwargs,
) -> GenerateBeamDecoderOnlyOutput | GenerateBeamEncoderDecoderOutput | torch.LongTensor:
    """
    Docid search as a decoding method of `generate`, for any model of either kind.

    The sequences are those of `generate` with [`TitleTrieLogitsProcessor`] and `early_stopping="never"` (it is always
    so here), filled up behind the end token in the same way. Where beams reach fewer docids than
    `num_return_sequences`, the rows left over hold the prompt only, with the score -1e9. With `num_beams=1` it is beam
    search with one beam, not greedy search.

    Args:
        model, input_ids, logits_processor, generation_config, model_kwargs:
            As `generate` prepares them: prompts repeated once per beam.
        trie ([`TitleTrie`]):
            Titles that may come out; an argument of `generate`.
        scoring (`str`, *optional*, defaults to `"vocabulary"`):
            See [`search_docids`]; an argument of `generate`.

    Returns:
        `torch.LongTensor` of shape `(batch_size * num_return_sequences, length)`, or the output class of beam search
        with `sequences` and, if `output_scores` is set, `sequences_scores`, if `return_dict_in_generate` is set.

    Raises:
        ValueError: if logits processors or sampling are asked for, if the longest title does not fit into the allowed
            length, or as [`search_docids`].

    Example:

    ```python
    >>> titles = model.generate(
    ...     **inputs,
    ...     custom_generate=generate_docids,
    ...     trie=trie,
    ...     num_beams=10,
    ...     num_return_sequences=10,
    ...     length_penalty=0.0,
    ...     max_new_tokens=trie.max_depth,
    ... )
    ```"""
    if len(logits_processor) or generation_config.do_sample:
        raise ValueError(
            "Docid search takes no sampling and no logits processors (the trie is its constraint): set "
            f"`do_sample=False` and drop what asks for {[type(one).__name__ for one in logits_processor]}."
        )
    num_beams, num_docids = generation_config.num_beams, generation_config.num_return_sequences
    prompt_length = input_ids.shape[1]
    if generation_config.max_length - prompt_length < trie.max_depth:
        raise ValueError(
            f"The longest title has {trie.max_depth} tokens, and {generation_config.max_length - prompt_length} are "
            "allowed: set `max_new_tokens=trie.max_depth`."
        )
    if not 1 <= num_docids <= num_beams:
        raise ValueError(f"`num_return_sequences` is {num_docids}; it must be at most `num_beams` ({num_beams}).")
    prompts = input_ids[::num_beams]
    mask = model_kwargs.get("attention_mask")
    states = (
        model_kwargs["encoder_outputs"].last_hidden_state[::num_beams] if model.config.is_encoder_decoder else None
    )
    # `generate` drops a mask without zeros.
    shape = prompts.shape if states is None else states.shape[:2]
    mask = prompts.new_ones(shape) if mask is None else mask[::num_beams]
    check_prompts(model, mask, scoring)
    if takes_tree_attention(model):
        decoder = TreeDecoder(model, prompts, mask)
    else:
        decoder = RowDecoder(model, prompts, mask, states)
    search = DocidBeamSearch(
        ScoredPrefixes(decoder, trie.to(input_ids.device), scoring),
        num_beams,
        num_docids,
        generation_config.length_penalty,
    )

    found = search.leaf.flatten() >= 0
    tokens = search.tokens.flatten(0, 1)
    before_end = (tokens == trie.eos_token_id).cumsum(1) - (tokens == trie.eos_token_id).long() == 0
    written = before_end & found[:, None]
    # As `generate` fills up: padding token 0 counts as none there.
    filling = generation_config._pad_token_tensor or generation_config._eos_token_tensor[0]
    tokens = torch.where(written, tokens, filling)[:, : int(written.sum(1).max())]
    sequences = torch.cat([prompts.repeat_interleave(num_docids, 0), tokens], 1)
    if not generation_config.return_dict_in_generate:
        return sequences
    scores = torch.where(found, search.score.flatten(), _EMPTY_SCORE) if generation_config.output_scores else None
    output_class = (
        GenerateBeamEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateBeamDecoderOnlyOutput
    )
    return output_class(sequences=sequences, sequences_scores=scores)


def generate(
    model: PreTrainedModel,
    trie: TitleTrie | str | os.PathLike | list[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    scoring: str = "vocabulary",
    generation_config: GenerationConfig | None = None,
    **arguments: Any,
) -> GenerateBeamDecoderOnlyOutput | GenerateBeamEncoderDecoderOutput | torch.LongTensor:
    """
    What `model.generate(..., custom_generate="org/mint-docid-search", trust_remote_code=True)` runs: it makes the
    trie, and gives all else to `generate` as it came.

    Args:
        model (`PreTrainedModel`):
            Any model of transformers that generates.
        trie ([`TitleTrie`], `str`, `os.PathLike` or `list[str]`):
            Titles that may come out: a trie, the folder or Hub id that holds one, or the titles themselves.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            The model's. Titles are tokenized with it, and a trie that is loaded must have been built with it.
        scoring (`str`, *optional*, defaults to `"vocabulary"`):
            See [`search_docids`].
        generation_config (`GenerationConfig`, *optional*):
            Without one, `max_new_tokens` is the length of the longest title and `length_penalty` is 0 where
            `arguments` do not give them.
        **arguments:
            The other arguments of `generate`.

    Returns:
        As [`generate_docids`].

    Raises:
        ValueError: if there is no trie, if titles come without a tokenizer, or as [`generate_docids`].
    """
    if isinstance(trie, list):
        if tokenizer is None:
            raise ValueError("A list of titles needs `tokenizer=`, the model's, to become a trie.")
        trie = TitleTrie.from_titles(trie, tokenizer)
    elif isinstance(trie, str | os.PathLike):
        trie = TitleTrie.from_pretrained(trie, tokenizer=tokenizer)
    elif trie is None:
        raise ValueError("Give the titles that may come out as `trie=`: a MINT repository, a folder, or a list.")
    if generation_config is None:
        arguments = {"max_new_tokens": trie.max_depth, "length_penalty": 0.0} | arguments
    return model.generate(
        custom_generate=generate_docids, trie=trie, scoring=scoring, generation_config=generation_config, **arguments
    )


__all__ = ["generate", "generate_docids"]
