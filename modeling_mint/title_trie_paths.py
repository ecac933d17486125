"""Token paths on their way into the title trie, and out of it again."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from .title_trie_build import flat_ranges, token_type
from .token_trie import TokenTrie
from .tokenization_mint import encode_targets

TITLES_AT_ONCE = 10_000


def encode_titles(
    titles: Iterable[str], tokenizer: PreTrainedTokenizerBase, first_row: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Tokenizes titles, a batch at a time, which a fast tokenizer does in parallel.

    Args:
        titles (`Iterable[str]`):
            Titles, read once.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model that will write them.
        first_row (`int`, *optional*, defaults to 0):
            Row of the first title.

    Returns:
        `tuple` of three `np.ndarray`: token ids of all titles one after another; the length of each title; a hash of
        each title's text.

    Raises:
        `ValueError`: if a title is empty or only spaces, naming its row.
    """
    width = token_type(len(tokenizer))
    tokens, lengths, hashes = [np.empty(0, width)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    titles, row = iter(titles), first_row
    while batch := list(islice(titles, TITLES_AT_ONCE)):
        for title in batch:
            if not title.strip():
                raise ValueError(
                    f"The title of row {row} is empty: {title!r}. A document is found by its title only; "
                    "give the row a title or drop it from the collection."
                )
            row += 1
        paths = encode_targets(tokenizer, batch)
        lengths.append(np.fromiter(map(len, paths), np.int32, len(paths)))
        tokens.append(np.fromiter(chain.from_iterable(paths), width, int(lengths[-1].sum())))
        hashes.append(np.fromiter(map(hash, batch), np.int64, len(batch)))
    return np.concatenate(tokens), np.concatenate(lengths), np.concatenate(hashes)


def flat_paths(
    paths: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray], eos_token_id: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    Lays token paths out one after another and checks that they are titles.

    Args:
        paths (`Sequence[Sequence[int]]` or `tuple[np.ndarray, np.ndarray]`):
            Token ids of each path, or a tuple of the ids of all paths and the length of each.
        eos_token_id (`int`):
            End token.
        vocab_size (`int`):
            Size of the vocabulary.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: the ids of all paths, uint16 or uint32, and the length of each, int32.

    Raises:
        `ValueError`: if there is no path, or one is empty, does not close with its only end token, or holds a token
            outside the vocabulary, naming the first row at fault.
    """
    if isinstance(paths, tuple) and len(paths) == 2 and isinstance(paths[0], np.ndarray):
        tokens, lengths = paths
        if lengths.sum() != len(tokens):
            raise ValueError(f"The lengths of the paths add up to {lengths.sum()}, the tokens are {len(tokens)}.")
    else:
        lengths = np.fromiter(map(len, paths), np.int32, len(paths))
        tokens = np.fromiter(chain.from_iterable(paths), np.int64, int(lengths.sum()))
    if len(lengths) == 0:
        raise ValueError("A title trie needs at least one title; the collection is empty.")
    short = np.flatnonzero(lengths < 2)
    if len(short) > 0:
        raise ValueError(f"The title of row {short[0]} has no token before the end token; give it a title.")

    ends = np.cumsum(lengths, dtype=np.int64)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        place = int(np.flatnonzero((tokens < 0) | (tokens >= vocab_size))[0])
        raise ValueError(
            f"The title of row {np.searchsorted(ends, place, side='right')} holds token {tokens[place]}, outside the "
            f"vocabulary of {vocab_size}; pass the vocabulary size of the tokenizer that wrote it."
        )
    closes = np.zeros(len(tokens), bool)
    closes[ends - 1] = True
    misplaced = np.flatnonzero((tokens == eos_token_id) != closes)
    if len(misplaced) > 0:
        raise ValueError(
            f"The title of row {np.searchsorted(ends, misplaced[0], side='right')} must hold the end token "
            f"{eos_token_id} once, as its last token; tokenize titles with `encode_targets`."
        )
    return tokens.astype(token_type(vocab_size), copy=False), lengths.astype(np.int32, copy=False)


def leaf_paths(trie: TokenTrie, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Reads token paths back from a trie: the branching part from below, then the tails.

    Args:
        trie ([`~token_trie.TokenTrie`]):
            The trie.
        leaves (`np.ndarray` of shape `(n,)`):
            Leaves, counted in node order.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: as [`flat_paths`] gives them.
    """
    node_token, first_child, tail_token = (
        array.cpu().numpy() for array in (trie.node_token, trie.first_child, trie.tail_token)
    )
    internal_node = trie.internal_node.cpu().numpy()
    parent = np.repeat(internal_node, np.diff(first_child))
    is_leaf = np.ones(len(node_token), bool)
    is_leaf[internal_node] = False
    node = np.flatnonzero(is_leaf)[leaves]

    depth = np.searchsorted(trie.walker.level_ends, node, side="right")
    tail_length = trie.walker.tail_lengths()
    tail_start = (np.cumsum(tail_length, dtype=np.int64) - tail_length)[leaves]
    tail_length = tail_length[leaves]
    lengths = depth + tail_length + (node_token[node] != trie.eos_token_id)
    ends = np.cumsum(lengths)
    tokens = np.empty(int(ends[-1]), node_token.dtype)
    tokens[flat_ranges(ends - lengths + depth, tail_length)] = tail_token[flat_ranges(tail_start, tail_length)]
    tokens[ends - 1] = trie.eos_token_id
    place = ends - lengths + depth - 1
    while len(node) > 0:
        tokens[place] = node_token[node]
        node = parent[node - 1]
        above = node > 0
        node, place = node[above], place[above] - 1
    return tokens, lengths.astype(np.int32)
