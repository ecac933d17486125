"""The arrays of the title trie as a file: written, read back and checked."""

import json
import os
import tempfile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .title_trie_build import token_type
from .trie_walker import TAIL_BLOCK

FORMAT_VERSION = 2
ARRAY_NAMES = (
    "first_child",
    "further_leaf",
    "internal_node",
    "leaf_row",
    "node_token",
    "tail_offset",
    "tail_start",
    "tail_token",
)
FACT_NAMES = ("eos_token_id", "fingerprint", "num_rows", "vocab_size")


def write_arrays(path: str, arrays: dict[str, torch.Tensor], facts: dict[str, int | str]) -> None:
    """
    Writes a trie to a safetensors file in one move; the same trie gives the same bytes.

    Args:
        path (`str`):
            File to write.
        arrays (`dict[str, torch.Tensor]`):
            The arrays of `ARRAY_NAMES`.
        facts (`dict`):
            The facts of `FACT_NAMES`.
    """
    # One metadata entry, since safetensors keeps several in no fixed order.
    metadata = {"title_trie": json.dumps({"format_version": FORMAT_VERSION, **facts}, sort_keys=True)}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix=".title_trie") as folder:
        temporary = os.path.join(folder, os.path.basename(path))
        save_file({name: array.cpu().contiguous() for name, array in arrays.items()}, temporary, metadata=metadata)
        os.replace(temporary, path)


def read_arrays(path: str) -> tuple[dict[str, torch.Tensor], dict[str, int | str]]:
    """
    Maps a trie's file into memory and checks that it is one: whatever the file holds, walking the trie afterwards ends
    and never reads outside the arrays.

    Args:
        path (`str`):
            File to read.

    Returns:
        `tuple[dict[str, torch.Tensor], dict[str, int | str]]`: The arrays of `ARRAY_NAMES`, backed by the file, and
        the facts of `FACT_NAMES`.

    Raises:
        `ValueError`: if the file is truncated, no title trie, of another format version, or damaged.
    """
    remedy = "Build the trie again from the collection with `TitleTrie.from_titles(titles, tokenizer)`."
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        facts = json.loads(metadata.get("title_trie", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}. {remedy}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} is no title trie: it describes itself by {facts!r}. {remedy}")
    version = facts.pop("format_version", None)
    if version is not None and version != FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this code reads {FORMAT_VERSION}. {remedy}")
    if tuple(sorted(arrays)) != ARRAY_NAMES or tuple(sorted(facts)) != FACT_NAMES:
        raise ValueError(f"{path} is no title trie: it holds {sorted(arrays)}. {remedy}")
    fault = _find_fault(facts, **{name: array.numpy() for name, array in arrays.items()})
    if fault is not None:
        raise ValueError(f"{path} is damaged: {fault}. {remedy}")
    return arrays, facts


def _find_fault(
    facts: dict[str, int | str],
    node_token: np.ndarray,
    first_child: np.ndarray,
    internal_node: np.ndarray,
    tail_token: np.ndarray,
    tail_start: np.ndarray,
    tail_offset: np.ndarray,
    leaf_row: np.ndarray,
    further_leaf: np.ndarray,
) -> str | None:
    """Tells what is wrong with a trie's arrays, or None for a sound trie."""
    eos_token_id, vocab_size, num_rows = facts["eos_token_id"], facts["vocab_size"], facts["num_rows"]
    for name in ("eos_token_id", "vocab_size", "num_rows"):
        if type(facts[name]) is not int or facts[name] < 0:
            return f"`{name}` is {facts[name]!r}"
    tokens = token_type(vocab_size)
    widths = {
        "node_token": (node_token, [tokens]),
        "first_child": (first_child, [np.int32]),
        "internal_node": (internal_node, [np.int32]),
        "tail_token": (tail_token, [tokens]),
        "tail_start": (tail_start, [np.int32]),
        "tail_offset": (tail_offset, [np.uint8, np.int32]),
        "leaf_row": (leaf_row, [np.int32]),
        "further_leaf": (further_leaf, [np.int32]),
    }
    for name, (array, types) in widths.items():
        if array.dtype not in types or array.ndim != 1:
            return f"`{name}` has the type {array.dtype} and {array.ndim} dimensions"

    num_nodes, num_internal = len(node_token), len(internal_node)
    num_leaves = num_nodes - num_internal
    if (
        min(num_internal, num_leaves, len(tail_token)) < 1
        or len(first_child) != num_internal + 1
        or (len(tail_offset), len(tail_start)) != (num_leaves + 2, (num_leaves + 1) // TAIL_BLOCK + 1)
    ):
        return "the arrays' lengths do not fit together"
    if max(node_token.max(), tail_token.max()) >= vocab_size:
        return "a token lies outside the vocabulary"

    if internal_node[0] != 0 or internal_node[-1] >= num_nodes or (internal_node[1:] <= internal_node[:-1]).any():
        return "`internal_node` does not name nodes in ascending order"
    if (
        (first_child[0], first_child[-1]) != (1, num_nodes)
        or (first_child[1:] <= first_child[:-1]).any()
        or (first_child[:-1] <= internal_node).any()
    ):
        return "`first_child` does not number the nodes level by level"
    ascends = node_token[1:] > node_token[:-1]
    ascends[first_child[:-1] - 1] = True
    if not ascends.all():
        return "the tokens under a node are not in ascending order"

    ends = node_token == eos_token_id
    if ends[internal_node[1:]].any():
        return "a node behind an end token has children"
    # Where each tail begins, and a last time where the last one ends.
    begin = np.repeat(tail_start, TAIL_BLOCK)[: num_leaves + 2] + tail_offset
    length = np.diff(begin)
    if begin[0] != 0 or (length < 0).any() or length[-1] != 0 or begin[-1] != len(tail_token) - 1:
        return "`tail_start` and `tail_offset` do not give each leaf its tail"
    is_leaf = np.ones(num_nodes, bool)
    is_leaf[internal_node] = False
    if length[:-1][ends[is_leaf]].any() or (tail_token[:-1] == eos_token_id).any():
        return "a tail holds an end token, or follows one"

    if len(further_leaf) and (
        further_leaf[0] < 0 or further_leaf[-1] >= num_leaves or (further_leaf[1:] < further_leaf[:-1]).any()
    ):
        return "`further_leaf` does not name leaves in ascending order"
    if len(leaf_row) == 0:
        return None if num_leaves + len(further_leaf) <= num_rows else "it has more rows than the collection"
    if len(leaf_row) != num_leaves + len(further_leaf):
        return "`leaf_row` does not give each leaf its rows"
    if leaf_row.min() < 0 or leaf_row.max() >= num_rows:
        return "`leaf_row` names a row outside the collection"
    taken = np.zeros(num_rows, bool)
    taken[leaf_row] = True
    if taken.sum() != len(leaf_row):
        return "`leaf_row` names a row twice"
    return None
