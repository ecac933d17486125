"""The one tokenization of targets: what a model learns to write and the paths of the title trie are the same ids."""

import hashlib
import json

from transformers import PreTrainedTokenizerBase


def target_prefix(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Gives what must stand before a target's text so that its tokens are those of a word inside running text.

    A byte-level BPE tokenizer (GPT-2, Llama-3, SmolLM2) keeps the space in the token of the word that follows, so a
    target that continues a prompt starts with a space. A SentencePiece-like tokenizer (T5, Llama-2) marks bare text as
    a word's start by itself, and a space before it would add a stray piece. Which of the two a tokenizer is, is found
    by trying it on two letters.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model that writes the target.

    Returns:
        `str`: `" "` or `""`.
    """
    bare, spaced, running = tokenizer(["b", " b", "a b"], add_special_tokens=False)["input_ids"]
    if running[-len(bare) :] == bare:
        return ""
    return " " if running[-len(spaced) :] == spaced else ""


def encode_targets(tokenizer: PreTrainedTokenizerBase, texts: list[str], add_eos: bool = True) -> list[list[int]]:
    """
    Tokenizes targets (titles, answers, queries) for training and for the title trie alike.

    Special-token text inside a target, such as a title `</s>`, is spelled out as plain pieces and never becomes the
    special token itself.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model that writes the target.
        texts (`list[str]`):
            Targets, without leading space.
        add_eos (`bool`, *optional*, defaults to `True`):
            Whether to close each target with the tokenizer's end token.

    Returns:
        `list[list[int]]`: One list of token ids for each text.

    Raises:
        `ValueError`: if the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{type(tokenizer).__name__} {tokenizer.name_or_path!r} has no end token; set `tokenizer.eos_token`."
        )
    if len(texts) == 0:
        return []
    prefix = target_prefix(tokenizer)
    eos = [tokenizer.eos_token_id] if add_eos else []
    return [token_ids + eos for token_ids in _encode_text(tokenizer, [prefix + text for text in texts])]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    """
    Tokenizes prompts, with the special tokens that the tokenizer puts around any input (a start token, an end token).

    Special-token text inside a prompt, which may come from a user or a document, is spelled out as plain pieces.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model that reads the prompt.
        texts (`list[str]`):
            Prompts.
        max_length (`int`):
            Tokens at most; a longer prompt loses its beginning.

    Returns:
        `list[list[int]]`: One list of token ids for each prompt.
    """
    bare = tokenizer("b", add_special_tokens=False)["input_ids"]
    framed = tokenizer("b")["input_ids"]
    start = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
    before, after = framed[:start], framed[start + len(bare) :]
    room = max_length - len(before) - len(after)
    return [before + token_ids[-room:] + after for token_ids in _encode_text(tokenizer, texts)]


def _encode_text(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids of plain text: no special token is added, none is found in the text."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    # `split_special_tokens` keeps the added tokens out of the way, but special tokens also stand in the vocabulary of
    # Unigram and WordPiece models, which then find them like any other piece.
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id} | {tokenizer.eos_token_id}
    return [
        token_ids if special.isdisjoint(token_ids) else _spell_out(tokenizer, token_ids, special)
        for token_ids in encoded
    ]


def _spell_out(tokenizer: PreTrainedTokenizerBase, token_ids: list[int], special: set[int]) -> list[int]:
    """Replaces each special token by the tokens of its characters."""
    spelled = []
    for token_id in token_ids:
        if token_id in special:
            spelled.extend(tokenizer.convert_tokens_to_ids(list(tokenizer.convert_ids_to_tokens(token_id))))
        else:
            spelled.append(token_id)
    return spelled


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Hashes what decides a tokenizer's ids: vocabulary, merges, normalizer, pre-tokenizer and added tokens. Padding,
    truncation, the template of special tokens and the decoder leave the ids of a target alone and stay out.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer to identify.

    Returns:
        `str`: SHA-256 in hexadecimal, the same after saving and loading the tokenizer.
    """
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        state = [backend[part] for part in ("normalizer", "pre_tokenizer", "added_tokens", "model")]
    else:
        state = [type(tokenizer).__name__, tokenizer.get_vocab()]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
