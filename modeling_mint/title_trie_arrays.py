"""The arrays of the title trie: built from token paths, written to a file, read back and checked."""

import json
import os
import tempfile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

FORMAT_VERSION = 1
ARRAY_NAMES = ("edge_token", "first_edge", "leaf_first_row", "leaf_row")
FACT_NAMES = ("eos_token_id", "fingerprint", "vocab_size")


def build_arrays(paths: list[list[int]], eos_token_id: int, vocab_size: int) -> dict[str, torch.Tensor]:
    """
    Builds the arrays of a [`~title_trie.TitleTrie`] level by level.

    Args:
        paths (`list[list[int]]`):
            Token ids of each title, closed by the end token; the position of a path is its row.
        eos_token_id (`int`):
            End token.
        vocab_size (`int`):
            Size of the vocabulary.

    Returns:
        `dict[str, torch.Tensor]`: `edge_token`, `first_edge`, `leaf_first_row` and `leaf_row`.

    Raises:
        `ValueError`: if there is no path, or one is empty, does not close with its only end token, or holds a token
            outside the vocabulary.
    """
    if len(paths) == 0:
        raise ValueError("A title trie needs at least one title; the collection is empty.")
    length = np.fromiter(map(len, paths), np.int64, len(paths))
    end = np.cumsum(length)
    tokens = np.fromiter((token for path in paths for token in path), np.int64, int(end[-1]))
    _check_paths(tokens, length, end, eos_token_id, vocab_size)

    # The edges of a level are the distinct (parent, token) pairs of the paths that are long enough, and their sorted
    # order is the order of the nodes that they lead to.
    node = np.zeros(len(paths), np.int64)
    active = np.arange(len(paths))
    levels, num_nodes, depth = [], 1, 0
    while len(active) > 0:
        pair = node[active] * vocab_size + tokens[end[active] - length[active] + depth]
        edges, rank = np.unique(pair, return_inverse=True)
        node[active] = num_nodes + rank
        levels.append(edges)
        num_nodes += len(edges)
        depth += 1
        active = active[length[active] > depth]

    parent, edge_token = np.divmod(np.concatenate(levels), vocab_size)
    leaf_row = np.argsort(node, kind="stable")
    _, leaf_first_row = np.unique(node[leaf_row], return_index=True)
    return {
        "edge_token": torch.from_numpy(edge_token.astype(np.uint16 if vocab_size <= 65536 else np.uint32)),
        "first_edge": torch.from_numpy(np.searchsorted(parent, np.arange(num_nodes + 1)).astype(np.int32)),
        "leaf_first_row": torch.from_numpy(np.append(leaf_first_row, len(paths)).astype(np.int32)),
        "leaf_row": torch.from_numpy(leaf_row.astype(np.int32)),
    }


def _check_paths(tokens: np.ndarray, length: np.ndarray, end: np.ndarray, eos_token_id: int, vocab_size: int) -> None:
    """Refuses paths that are no titles, naming the first row at fault."""

    def row_of(position: np.ndarray) -> int:
        return int(np.searchsorted(end, position[0], side="right"))

    short = np.flatnonzero(length < 2)
    if len(short) > 0:
        raise ValueError(f"The title of row {short[0]} has no token before the end token; give it a title.")
    outside = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if len(outside) > 0:
        raise ValueError(
            f"The title of row {row_of(outside)} holds token {tokens[outside[0]]}, outside the vocabulary of "
            f"{vocab_size}; pass the vocabulary size of the tokenizer that wrote it."
        )
    closes = np.zeros(len(tokens), bool)
    closes[end - 1] = True
    misplaced = np.flatnonzero((tokens == eos_token_id) != closes)
    if len(misplaced) > 0:
        raise ValueError(
            f"The title of row {row_of(misplaced)} must hold the end token {eos_token_id} once, as its last token; "
            "tokenize titles with `encode_targets`."
        )


def write_arrays(path: str, arrays: dict[str, torch.Tensor], facts: dict[str, int | str]) -> None:
    """
    Writes a trie to a safetensors file in one move; the same trie gives the same bytes.

    Args:
        path (`str`):
            File to write.
        arrays (`dict[str, torch.Tensor]`):
            The four arrays.
        facts (`dict`):
            `eos_token_id`, `vocab_size` and `fingerprint`.
    """
    # One metadata entry, since safetensors keeps several in no fixed order.
    metadata = {"title_trie": json.dumps({"format_version": FORMAT_VERSION, **facts}, sort_keys=True)}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix=".title_trie") as folder:
        temporary = os.path.join(folder, os.path.basename(path))
        save_file({name: array.cpu().contiguous() for name, array in arrays.items()}, temporary, metadata=metadata)
        os.replace(temporary, path)


def read_arrays(path: str) -> tuple[dict[str, torch.Tensor], dict[str, int | str]]:
    """
    Maps a trie's arrays from its file and checks that no index in them leads outside.

    Args:
        path (`str`):
            File to read.

    Returns:
        `tuple[dict, dict]`: The four arrays, and `eos_token_id`, `vocab_size` and `fingerprint`.

    Raises:
        `ValueError`: if the file is truncated, altered, not a title trie, or of another format version.
    """
    remedy = "Build the trie again with `TitleTrie.from_titles` and save it."
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        facts = json.loads(metadata.get("title_trie", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}. {remedy}") from error
    if sorted(arrays) != sorted(ARRAY_NAMES) or not facts:
        raise ValueError(f"{path} is no title trie: it holds {sorted(arrays)}. {remedy}")
    version = facts.pop("format_version", None)
    if version != FORMAT_VERSION or sorted(facts) != sorted(FACT_NAMES):
        raise ValueError(f"{path} has format version {version}, this code reads {FORMAT_VERSION}. {remedy}")
    fault = _find_fault(**{name: array.numpy() for name, array in arrays.items()}, **facts)
    if fault is not None:
        raise ValueError(f"{path} is damaged: {fault}. {remedy}")
    return arrays, facts


def _find_fault(
    edge_token: np.ndarray,
    first_edge: np.ndarray,
    leaf_first_row: np.ndarray,
    leaf_row: np.ndarray,
    eos_token_id: int,
    vocab_size: int,
    fingerprint: str,
) -> str | None:
    """Tells what is wrong with a trie's arrays, or None for a sound trie."""
    token_type = np.uint16 if vocab_size <= 65536 else np.uint32
    types = [edge_token.dtype, first_edge.dtype, leaf_first_row.dtype, leaf_row.dtype]
    if types != [token_type, np.int32, np.int32, np.int32]:
        return f"the arrays have the types {[str(name) for name in types]}"
    num_edges, num_nodes, num_rows = len(edge_token), len(edge_token) + 1, len(leaf_row)
    is_leaf = np.append(False, edge_token == eos_token_id)
    num_leaves = int(is_leaf.sum())
    if num_leaves == 0 or len(first_edge) != num_nodes + 1 or len(leaf_first_row) != num_leaves + 1:
        return "the arrays' lengths do not fit together"
    if edge_token.max() >= vocab_size:
        return "a token lies outside the vocabulary"
    if first_edge[0] != 0 or first_edge[-1] != num_edges or (first_edge[:-1] < np.arange(num_nodes)).any():
        return "`first_edge` does not number the nodes level by level"
    num_children = np.diff(first_edge)
    if (num_children < 0).any() or ((num_children == 0) != is_leaf).any():
        return "a node without children is no leaf, or a leaf has children"
    # Within one node's edges tokens must ascend; where the next node's begin they may start anew.
    ascends = edge_token[1:] > edge_token[:-1]
    ascends[first_edge[1:-1][(first_edge[1:-1] > 0) & (first_edge[1:-1] < num_edges)] - 1] = True
    if not ascends.all():
        return "the tokens under a node are not in ascending order"
    if leaf_first_row[0] != 0 or leaf_first_row[-1] != num_rows or (np.diff(leaf_first_row) <= 0).any():
        return "`leaf_first_row` does not give each leaf its rows"
    if (np.sort(leaf_row) != np.arange(num_rows)).any():
        return "`leaf_row` does not hold every row once"
    return None
