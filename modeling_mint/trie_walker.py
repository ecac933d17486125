"""Walking a trie of token paths in flat arrays, many rows at once, in numpy or in torch."""

from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from .token_trie import TokenTrie

Array = np.ndarray | torch.Tensor

TAIL_BLOCK = 8
"""Leaves that share an entry of `tail_start`."""

WAYS = 32
"""Parts that siblings are split into at a time, to find a token among them."""


class Outlook(NamedTuple):
    """
    What can follow nodes, in arrays of a fixed shape, so that nobody waits for an accelerator.

    Attributes:
        first_child, num_children (int64 array of shape `(n,)`): the children of an internal node are as many
            consecutive nodes; [`TrieWalker.token`] gives their tokens. All other nodes have 0 of them.
        only_token, only_child (int64 array of shape `(n,)`): what must follow a node with one leaf below it; -1 for
            internal nodes and for leaves.
    """

    first_child: Array
    num_children: Array
    only_token: Array
    only_child: Array


class TrieWalker:
    """
    The steps that a [`~token_trie.TokenTrie`] can take, on native arrays: numpy's on the CPU, whose functions cost a
    quarter of torch's for the few rows of a beam search, and torch's on an accelerator. Written in what the two
    libraries have in common. Nodes and tokens are int64 arrays.

    Args:
        trie ([`~token_trie.TokenTrie`]):
            Its arrays.
        xp (module, *optional*):
            `numpy` or `torch`; by default the one for the arrays' device.
    """

    def __init__(self, trie: "TokenTrie", xp: ModuleType | None = None):
        self.device = trie.node_token.device
        self.xp = xp or (np if self.device.type == "cpu" else torch)
        self.node_token = self._native_tokens(trie.node_token)
        self.first_child = self.native(trie.first_child)
        self.internal_node = self.native(trie.internal_node)
        self.tail_token = self._native_tokens(trie.tail_token)
        self.tail_start = self.native(trie.tail_start)
        self.tail_offset = self.native(trie.tail_offset)
        self.eos_token_id = trie.eos_token_id
        self.num_nodes = len(trie.node_token)
        self.num_leaves = self.num_nodes - len(trie.internal_node)
        self._ways = self.arange(WAYS)[1:]
        self.level_ends: list[int] = []
        self.level_max_children: list[int] = []
        self.max_depth, longest_tail = self._measure_levels(
            *(tensor.cpu().numpy() for tensor in (trie.node_token, trie.first_child, trie.internal_node))
        )
        # Places of a tail: before it, behind each of its tokens, and behind the end token.
        self._places = longest_tail + 2

    def native(self, tensor: torch.Tensor) -> Array:
        """The array of a tensor on this trie's device; memory is shared."""
        return tensor.numpy() if self.xp is np else tensor

    def _native_tokens(self, tensor: torch.Tensor) -> Array:
        """Tokens as a native array. Torch knows unsigned integers on some devices only: it gets signed ones of the
        same bits."""
        if self.xp is np:
            return tensor.numpy()
        return tensor.view(torch.int16 if tensor.dtype == torch.uint16 else torch.int32)

    def _token_at(self, tokens: Array, places: Array) -> Array:
        """Tokens at places, as int64."""
        token = self.xp.asarray(tokens[places], dtype=self.xp.int64)
        return token if self.xp is np else token & (0xFFFF if tokens.dtype == torch.int16 else 0xFFFFFFFF)

    def tensor(self, array: Array) -> torch.Tensor:
        """The tensor of a native array; memory is shared."""
        return torch.from_numpy(array) if self.xp is np else array

    def arange(self, end: int) -> Array:
        """0, 1, 2, ... as a native array."""
        return np.arange(end) if self.xp is np else torch.arange(end, device=self.device)

    def _at_most(self, array: Array, limit: int) -> Array:
        return np.minimum(array, limit) if self.xp is np else array.clamp(max=limit)

    def repeat(self, counts: Array) -> Array:
        """Each index of `counts` as often as it says."""
        if self.xp is np:
            return np.repeat(np.arange(len(counts)), counts)
        return torch.repeat_interleave(counts)

    def _measure_levels(
        self, node_token: np.ndarray, first_child: np.ndarray, internal_node: np.ndarray
    ) -> tuple[int, int]:
        """Tokens of the longest path and of the longest tail. Fills, per level of the branching part, `level_ends`,
        its end, and `level_max_children`. Levels are ranges of nodes, each found from the one above."""
        tail_length = self.tail_lengths()
        first, end, max_depth = 0, 1, 0
        while first < end:
            internal = np.searchsorted(internal_node, [first, end])
            first_leaf, end_leaf = np.array([first, end]) - internal
            if first_leaf < end_leaf:
                depth, longest = len(self.level_ends), int(tail_length[first_leaf:end_leaf].max())
                num_complete = np.count_nonzero(node_token[first:end] == self.eos_token_id) if longest == 0 else 0
                if num_complete < end_leaf - first_leaf:
                    depth += longest + 1
                max_depth = max(max_depth, depth)
            self.level_ends.append(end)
            self.level_max_children.append(int(np.diff(first_child[internal[0] : internal[1] + 1]).max(initial=0)))
            first, end = first_child[internal].tolist()
        return max_depth, int(tail_length.max())

    def tail_lengths(self) -> np.ndarray:
        """Tokens of each leaf's tail: an `np.ndarray` of shape `(num_leaves,)`, int32."""
        offset, start = (self.tensor(array).cpu().numpy() for array in (self.tail_offset, self.tail_start))
        length = np.diff(offset[:-1].astype(np.int32))
        # The last leaf of a block ends where the next block begins.
        last = np.arange(TAIL_BLOCK - 1, self.num_leaves, TAIL_BLOCK)
        length[last] += np.diff(start)[: len(last)]
        return length

    def token(self, nodes: Array) -> Array:
        """Tokens that lead to nodes of the branching part, such as an internal node's children."""
        return self._token_at(self.node_token, nodes)

    def outlook(self, nodes: Array) -> Outlook:
        """What can follow each node."""
        xp = self.xp
        family, family_end, position = self._locate(nodes)
        first = xp.asarray(self.first_child[family], dtype=xp.int64)
        num_children = self.first_child[family_end] - first
        leaf = position // self._places
        begin, end = self._tail_begin(leaf), self._tail_begin(leaf + 1)
        at = begin + (position - leaf * self._places)
        tail_token = self._token_at(self.tail_token, xp.minimum(at, end))
        only_token = xp.where(at < end, tail_token, self.eos_token_id)
        has_one = (num_children == 0) & (at <= end)
        only_child = position + (self.num_nodes + 1)
        return Outlook(first, num_children, xp.where(has_one, only_token, -1), xp.where(has_one, only_child, -1))

    def children(self, nodes: Array) -> tuple[Array, Array, Array]:
        """`row`, `token` and `node` of all children of all nodes."""
        xp = self.xp
        first, count, only_token, only_child = self.outlook(nodes)
        count = xp.where(only_token >= 0, 1, count)
        row = self.repeat(count)
        # The i-th child overall is the i-th node after `first`, less the children of the rows before.
        child = self.arange(len(row)) + (first - xp.cumsum(count, 0) + count)[row]
        is_only = (only_token >= 0)[row]
        child = xp.where(is_only, 0, child)
        token = xp.where(is_only, only_token[row], self.token(child))
        return row, token, xp.where(is_only, only_child[row], child)

    def follow(self, outlook: Outlook, tokens: Array, max_children: int | None = None) -> Array:
        """The child that each token leads to, or -1; `max_children`, if known, is how many children a node has at
        most."""
        xp = self.xp
        span = max(self.level_max_children) if max_children is None else max_children
        child, last = outlook.first_child, outlook.first_child + outlook.num_children - 1
        # Siblings are sorted: of the span that may hold the token, a thirty-second is left each time.
        while span > 1:
            span = -(-span // WAYS)
            probes = xp.minimum(child[:, None] + self._ways * span, last[:, None])
            child = child + (self.token(probes) <= tokens[:, None]).sum(1) * span
        child = xp.minimum(child, last)
        found = (self.token(child) == tokens) & (outlook.num_children > 0)
        return xp.where(found, child, xp.where(outlook.only_token == tokens, outlook.only_child, -1))

    def step(self, nodes: Array, tokens: Array) -> Array:
        """The child that each token leads to, or -1; outside (-1) stays outside."""
        return self.xp.where(nodes >= 0, self.follow(self.outlook(nodes.clip(min=0)), tokens), -1)

    def forced(self, nodes: Array) -> tuple[Array, Array, Array]:
        """Tokens (n, f), lengths and ends of the runs of only children."""
        xp = self.xp
        runs, lengths = [], xp.zeros_like(nodes)
        while True:
            first, count, only_token, only_child = self.outlook(nodes)
            single = count == 1
            goes_on = single | (only_token >= 0)
            if not goes_on.any():
                return xp.stack(runs, 1) if runs else nodes[:, None][:, :0], lengths, nodes
            first = xp.where(single, first, 0)
            runs.append(xp.where(single, self.token(first), only_token))
            nodes = xp.where(single, first, xp.where(goes_on, only_child, nodes))
            lengths = lengths + goes_on

    def is_leaf(self, nodes: Array) -> Array:
        """Whether each node is a leaf; -1 is none."""
        outlook = self.outlook(nodes.clip(min=0))
        return (outlook.num_children + outlook.only_token < 0) & (nodes >= 0)

    def leaf_index(self, nodes: Array) -> Array:
        """The leaf below each node, or that it is, counted in the order of the nodes."""
        return self._locate(nodes)[2] // self._places

    def num_leaves_below(self, nodes: Array) -> Array:
        """Leaves under each node."""
        xp = self.xp
        first = self._at_most(nodes, self.num_nodes - 1)
        end = first + 1
        count = xp.zeros_like(nodes)
        # What lies below a node is one range of nodes on each level.
        for _ in self.level_ends:
            internal = xp.searchsorted(self.internal_node, xp.asarray(xp.stack((first, end)), dtype=xp.int32))
            count = count + (end - first) - (internal[1] - internal[0])
            first, end = xp.asarray(self.first_child[internal], dtype=xp.int64)
        return xp.where(nodes < self.num_nodes, count, 1)

    def _locate(self, nodes: Array) -> tuple[Array, Array, Array]:
        """
        For each node, where in `first_child` its family begins and where it ends, the same place if it has none. And,
        if it has one leaf below: `_places` times the leaf, plus the tokens that have been taken of the leaf's tail.
        """
        xp = self.xp
        beyond = nodes - self.num_nodes
        # The last node is a leaf, so it may stand in for those in a tail.
        node = self._at_most(nodes, self.num_nodes - 1)
        key = xp.asarray(node, dtype=xp.int32)
        first = xp.searchsorted(self.internal_node, key)
        end = xp.searchsorted(self.internal_node, key, side="right")
        # The leaf behind an end token is beyond its tail, which is empty.
        position = (node - first) * self._places + (self.token(node) == self.eos_token_id)
        return first, end, xp.where(beyond >= 0, beyond, position)

    def _tail_begin(self, leaf: Array) -> Array:
        """Where in `tail_token` each leaf's tail begins."""
        return self.tail_start[leaf // TAIL_BLOCK] + self.tail_offset[leaf]
