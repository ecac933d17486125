"""Builds the arrays of the title trie from token paths: one sort, then one pass for each level."""

import numpy as np
import torch

from .trie_walker import TAIL_BLOCK


def token_type(vocab_size: int) -> type[np.generic]:
    """Smallest type that holds every token of a vocabulary of `vocab_size`."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def build_arrays(
    tokens: np.ndarray, lengths: np.ndarray, rows: np.ndarray, vocab_size: int
) -> dict[str, torch.Tensor]:
    """
    Builds the arrays of a [`~title_trie.TitleTrie`].

    In sorted order, what two neighbours have in common tells everything: path `i` brings a new node at every depth
    beyond what it shares with path `i - 1`, and is alone beyond what it shares with either neighbour.

    Args:
        tokens (`np.ndarray` of shape `(num_tokens,)`):
            Token ids of all paths, one path after another, each closed by its only end token; of [`token_type`].
        lengths (`np.ndarray` of shape `(num_paths,)`):
            Tokens of each path, end token included.
        rows (`np.ndarray` of shape `(num_paths,)`):
            Row of the collection that each path stands for, ascending among equal paths.
        vocab_size (`int`):
            Size of the vocabulary.

    Returns:
        `dict[str, torch.Tensor]`: the arrays by name, `TitleTrie`'s arguments.
    """
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    order = _sort(tokens, starts, lengths, vocab_size)
    shared = _shared_with_previous(tokens, starts[order], lengths[order])

    # Equal paths are one leaf.
    first_of_leaf = np.flatnonzero(shared < lengths[order])
    rows_of_leaf = np.diff(first_of_leaf, append=len(order))
    starts, lengths, shared = starts[order][first_of_leaf], lengths[order][first_of_leaf], shared[first_of_leaf]
    alone = np.maximum(shared, np.append(shared[1:], 0)) + 1

    node_tokens, internal, leaf_paths, first_child = [np.zeros(1, tokens.dtype)], [np.ones(1, bool)], [], []
    paths, num_nodes, depth = np.arange(len(alone)), 1, 1
    while len(paths) > 0:
        new = paths[shared[paths] < depth]
        # A path that already parted from its predecessor at the parent's depth begins a new family.
        first_of_family = shared[new] < depth - 1
        first_of_family[0] = True
        first_child.append(num_nodes + np.flatnonzero(first_of_family))
        node_tokens.append(tokens[starts[new] + depth - 1])
        internal.append(alone[new] > depth)
        leaf_paths.append(new[alone[new] == depth])
        paths = paths[alone[paths] > depth]
        num_nodes += len(new)
        depth += 1

    leaf_path = np.concatenate(leaf_paths)
    tail_length = np.maximum(lengths[leaf_path] - alone[leaf_path] - 1, 0)
    tail = flat_ranges(starts[leaf_path] + alone[leaf_path], tail_length)
    return {
        "node_token": torch.from_numpy(np.concatenate(node_tokens)),
        "first_child": torch.from_numpy(np.append(np.concatenate(first_child), num_nodes).astype(np.int32)),
        "internal_node": torch.from_numpy(np.flatnonzero(np.concatenate(internal)).astype(np.int32)),
        "tail_token": torch.from_numpy(np.append(tokens[tail], tokens.dtype.type(0))),
        **_tail_places(tail_length),
        **_leaf_rows(rows[order], first_of_leaf, rows_of_leaf, leaf_path),
    }


def _sort(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, vocab_size: int) -> np.ndarray:
    """Order of the paths by their tokens; equal paths stay in their order."""
    bits = max((vocab_size - 1).bit_length(), 1)
    tokens_per_key = 64 // bits

    def keys(paths: np.ndarray, depth: int) -> np.ndarray:
        key = np.zeros(len(paths), np.uint64)
        for place in range(depth, depth + tokens_per_key):
            inside = lengths[paths] > place
            token = tokens[np.where(inside, starts[paths] + place, 0)].astype(np.uint64)
            key = (key << np.uint64(bits)) | np.where(inside, token, np.uint64(0))
        return key

    key = keys(np.arange(len(lengths)), 0)
    order = np.argsort(key, kind="stable")
    key = key[order]
    places = np.arange(len(order))
    family = np.zeros(len(order), np.int64)
    depth = 0
    while True:
        # Runs of paths that are alike so far and go on are sorted among themselves by the tokens that follow.
        depth += tokens_per_key
        like_next = (key[1:] == key[:-1]) & (family[1:] == family[:-1])
        alike = np.append(like_next, False) | np.insert(like_next, 0, False)
        begins = ~np.insert(like_next, 0, False)
        family = np.cumsum(begins)[alike]
        places = places[alike]
        goes_on = lengths[order[places]] > depth
        family, places = family[goes_on], places[goes_on]
        if len(places) == 0:
            return order
        key = keys(order[places], depth)
        within = np.lexsort((key, family))
        order[places] = order[places[within]]
        key, family = key[within], family[within]


def _shared_with_previous(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Number of leading tokens that each path has in common with the one before it; 0 for the first."""
    shared = np.zeros(len(starts), np.int32)
    paths, depth = np.arange(1, len(starts)), 0
    while len(paths) > 0:
        paths = paths[tokens[starts[paths] + depth] == tokens[starts[paths - 1] + depth]]
        depth += 1
        shared[paths] = depth
        # Both have ended with the same end token.
        paths = paths[lengths[paths] > depth]
    return shared


def flat_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """
    Numbers from `start` up to, not including, `start + length`, for all starts, one range after another.

    Args:
        starts (`np.ndarray` of shape `(n,)`):
            First number of each range.
        lengths (`np.ndarray` of shape `(n,)`):
            How many numbers each range has.

    Returns:
        `np.ndarray` of shape `(lengths.sum(),)`: int64.
    """
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    return np.repeat(starts - before, lengths) + np.arange(before[-1] + lengths[-1])


def _tail_places(tail_length: np.ndarray) -> dict[str, torch.Tensor]:
    """`tail_start` and `tail_offset`, which go two leaves beyond the last, so that its end is found like any other."""
    begin = np.append(0, np.cumsum(tail_length, dtype=np.int64))
    begin = np.append(begin, begin[-1])
    start = begin[::TAIL_BLOCK]
    offset = begin - np.repeat(start, TAIL_BLOCK)[: len(begin)]
    width = np.uint8 if offset.max() <= 255 else np.int32
    return {
        "tail_start": torch.from_numpy(start.astype(np.int32)),
        "tail_offset": torch.from_numpy(offset.astype(width)),
    }


def _leaf_rows(
    rows: np.ndarray, first_of_leaf: np.ndarray, rows_of_leaf: np.ndarray, leaf_path: np.ndarray
) -> dict[str, torch.Tensor]:
    """`leaf_row`, empty where leaf by leaf the rows are 0, 1, 2, ..., and `further_leaf`."""
    leaf_row = rows[flat_ranges(first_of_leaf[leaf_path], rows_of_leaf[leaf_path])]
    in_order = np.array_equal(leaf_row, np.arange(len(leaf_row)))
    further = np.repeat(np.arange(len(leaf_path)), rows_of_leaf[leaf_path] - 1)
    return {
        "leaf_row": torch.from_numpy((leaf_row[:0] if in_order else leaf_row).astype(np.int32)),
        "further_leaf": torch.from_numpy(further.astype(np.int32)),
    }
