"""A trie of token paths in flat arrays, walked for many rows at once."""

from typing import NamedTuple

import numpy as np
import torch

TAIL_BLOCK = 8
"""Leaves that share an entry of `tail_start`."""

WAYS = 32
"""Siblings that are compared with a token at a time, to find it among them."""


class Outlook(NamedTuple):
    """
    What can follow nodes, in tensors of a fixed shape, so that nobody waits for the device.

    Attributes:
        first_child, num_children (`torch.LongTensor` of shape `(n,)`): the children of an internal node are as many
            consecutive nodes; [`TokenTrie.token`] gives their tokens. All other nodes have 0 of them.
        only_token, only_child (`torch.LongTensor` of shape `(n,)`): what must follow a node with one leaf below it; -1
            for internal nodes and for leaves.
    """

    first_child: torch.LongTensor
    num_children: torch.LongTensor
    only_token: torch.LongTensor
    only_child: torch.LongTensor


class TokenTrie:
    """
    Trie of token paths, each closed by the end token.

    Only the *branching part* has nodes in memory: those with two or more leaves below, which are *internal*, and their
    children. A child with one leaf below is where that leaf's *tail* begins: the rest of its tokens, kept one after
    another, without the end token. Nodes are numbered level by level, siblings in the order of their tokens; the root
    is 0. Leaves are counted in the same order.

    A position inside a tail is a node as well. Its number lies beyond those of the branching part and is made from the
    leaf and the distance from the tail's beginning, so that it takes no memory. Numbers of nodes are for the methods
    below and mean nothing else; -1 is "outside the trie". All methods work on many nodes at once, on the device of the
    arrays. The length of a trie is its number of leaves.

    Args:
        node_token (`torch.Tensor` of shape `(num_nodes,)`):
            Token that leads to each node, uint16 for vocabularies up to 65,536 and uint32 beyond; the root's is 0.
        first_child (`torch.Tensor` of shape `(num_internal + 1,)`):
            int32; the children of the `i`-th internal node are the nodes `first_child[i]` up to, not including,
            `first_child[i + 1]`.
        internal_node (`torch.Tensor` of shape `(num_internal,)`):
            int32; the internal nodes, ascending.
        tail_token (`torch.Tensor` of shape `(num_tail_tokens + 1,)`):
            Tokens of the tails, leaf by leaf, of the type of `node_token`; a 0 closes them.
        tail_start (`torch.Tensor` of shape `((num_leaves + 1) // 8 + 1,)`):
            int32; where in `tail_token` the tails of each 8 leaves begin.
        tail_offset (`torch.Tensor` of shape `(num_leaves + 2,)`):
            uint8, or int32 where 8 tails have more than 255 tokens; how far behind that each leaf's tail begins. The
            tail of leaf `i` ends where that of leaf `i + 1` begins.
        eos_token_id (`int`):
            End token.
    """

    def __init__(
        self,
        node_token: torch.Tensor,
        first_child: torch.Tensor,
        internal_node: torch.Tensor,
        tail_token: torch.Tensor,
        tail_start: torch.Tensor,
        tail_offset: torch.Tensor,
        eos_token_id: int,
    ):
        self.node_token = node_token
        self.first_child = first_child
        self.internal_node = internal_node
        self.tail_token = tail_token
        self.tail_start = tail_start
        self.tail_offset = tail_offset
        self.eos_token_id = eos_token_id
        self._num_nodes = len(node_token)
        self._num_leaves = self._num_nodes - len(internal_node)
        self._ways = torch.arange(1, WAYS, device=self.device)
        self.level_ends: list[int] = []
        self.level_max_children: list[int] = []
        self.max_depth, longest_tail = self._measure_levels()
        # Places of a tail: before it, behind each of its tokens, and behind the end token.
        self._places = longest_tail + 2

    def _measure_levels(self) -> tuple[int, int]:
        """Tokens of the longest path and of the longest tail. Fills, per level of the branching part, `level_ends`, the
        first node beyond it, and `level_max_children`. Levels are ranges of nodes, each found from the one above."""
        node_token, first_child = self.node_token.cpu().numpy(), self.first_child.cpu().numpy()
        tail_length = self.tail_lengths()
        first, end, max_depth = 0, 1, 0
        while first < end:
            internal = np.searchsorted(self.internal_node.cpu().numpy(), [first, end])
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
        offset, start = self.tail_offset.cpu().numpy(), self.tail_start.cpu().numpy()
        length = np.diff(offset[:-1].astype(np.int32))
        # The last leaf of a block ends where the next block begins.
        last = np.arange(TAIL_BLOCK - 1, self._num_leaves, TAIL_BLOCK)
        length[last] += np.diff(start)[: len(last)]
        return length

    def __len__(self) -> int:
        return self._num_leaves

    @property
    def device(self) -> torch.device:
        """Device that the arrays are on; nodes and tokens handed in must be on it too."""
        return self.node_token.device

    def outlook(self, nodes: torch.LongTensor) -> Outlook:
        """
        Tells what can follow each node.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            [`Outlook`]
        """
        family, position = self._locate(nodes)
        first, end = self.first_child[family].long()
        num_children = end - first
        leaf, place = position // self._places, position % self._places
        begin, end = self._tail_begin(torch.stack((leaf, leaf + 1)))
        at = begin + place
        only_token = torch.where(at < end, self.tail_token[torch.minimum(at, end)].long(), self.eos_token_id)
        has_one = (num_children == 0) & (at <= end)
        only_child = position + (self._num_nodes + 1)
        return Outlook(first, num_children, torch.where(has_one, only_token, -1), torch.where(has_one, only_child, -1))

    def token(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Gives the tokens that lead to nodes of the branching part.

        Args:
            nodes (`torch.LongTensor`):
                Nodes that [`TokenTrie.outlook`] gave as `first_child`, or those that follow.

        Returns:
            `torch.LongTensor` of the same shape.
        """
        return self.node_token[nodes].long()

    def holds_token(self, token: int) -> bool:
        """Tells whether a token (`int`) occurs in any path."""
        held = (self.node_token[1:].long() == token).any() | (self.tail_token[:-1].long() == token).any()
        return bool(held) or token == self.eos_token_id

    def children(self, nodes: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor, torch.LongTensor]:
        """
        Lists the children of many nodes at once.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            `tuple` of three `torch.LongTensor` of shape `(m,)`, `m` children of all nodes together: `row` (index into
            `nodes`, ascending), `token` (that leads to the child, ascending in each row) and `child` (node). A leaf
            has none.
        """
        first, count, only_token, only_child = self.outlook(nodes)
        count = torch.where(only_token >= 0, 1, count)
        row = torch.repeat_interleave(count)
        # The i-th child overall is the i-th node after `first`, less the children of the rows before.
        child = torch.arange(len(row), device=self.device) + (first - count.cumsum(0) + count)[row]
        is_only = only_token[row] >= 0
        child = torch.where(is_only, 0, child)
        token = torch.where(is_only, only_token[row], self.token(child))
        return row, token, torch.where(is_only, only_child[row], child)

    def step(self, nodes: torch.LongTensor, tokens: torch.LongTensor) -> torch.LongTensor:
        """
        Follows one token from each node.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie; -1 (outside) stays -1.
            tokens (`torch.LongTensor` of shape `(n,)`):
                The token to follow from each.

        Returns:
            `torch.LongTensor` of shape `(n,)`: The child, or -1 where the token leads to none.
        """
        return torch.where(nodes >= 0, self.follow(self.outlook(nodes.clamp(min=0)), tokens), -1)

    def follow(self, outlook: Outlook, tokens: torch.LongTensor, max_children: int | None = None) -> torch.LongTensor:
        """
        Follows one token from each of the nodes whose outlook is known.

        Args:
            outlook ([`Outlook`]):
                What can follow `n` nodes.
            tokens (`torch.LongTensor` of shape `(n,)`):
                The token to follow from each.
            max_children (`int`, *optional*):
                Number of children that none of the nodes has more of, if known: there is less to search.

        Returns:
            `torch.LongTensor` of shape `(n,)`: The child, or -1 where the token leads to none.
        """
        span = max(self.level_max_children) if max_children is None else max_children
        child, last = outlook.first_child, outlook.first_child + outlook.num_children - 1
        # Siblings are sorted: of the span that may hold the token, a thirty-second is left each time.
        while span > 1:
            span = -(-span // WAYS)
            probes = torch.minimum(child[:, None] + self._ways * span, last[:, None])
            child = child + (self.token(probes) <= tokens[:, None]).sum(1) * span
        child = torch.minimum(child, last)
        found = (self.token(child) == tokens) & (outlook.num_children > 0)
        return torch.where(found, child, torch.where(outlook.only_token == tokens, outlook.only_child, -1))

    def walk(self, token_ids: torch.LongTensor, lengths: torch.LongTensor | None = None) -> torch.LongTensor:
        """
        Follows whole paths from the root. A path that has reached a leaf stays there: what comes after the end token
        is padding.

        Args:
            token_ids (`torch.LongTensor` of shape `(n, t)`):
                Tokens of each path, from the first token of the title on.
            lengths (`torch.LongTensor` of shape `(n,)`, *optional*):
                Number of tokens of each path to follow; all of them if not given.

        Returns:
            `torch.LongTensor` of shape `(n,)`: The node reached, or -1 for a path that leaves the trie.
        """
        nodes = torch.zeros(len(token_ids), dtype=torch.long, device=token_ids.device)
        for position, tokens in enumerate(token_ids.unbind(1)):
            stays = self.is_leaf(nodes)
            if lengths is not None:
                stays = stays | (lengths <= position)
            nodes = torch.where(stays, nodes, self.step(nodes, tokens))
        return nodes

    def forced(self, nodes: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor, torch.LongTensor]:
        """
        Follows only children: what must come next while there is no choice.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            `tuple` of `torch.LongTensor`: `tokens` of shape `(n, f)`, the forced tokens, -1 beyond each row's end, `f`
            the longest run; `lengths` of shape `(n,)`; `ends` of shape `(n,)`, the first node with several children,
            or the leaf, whose end token is among the forced ones. A node with several children and a leaf have none.
        """
        runs, lengths = [], torch.zeros_like(nodes)
        while True:
            first, count, only_token, only_child = self.outlook(nodes)
            single = count == 1
            goes_on = single | (only_token >= 0)
            if not goes_on.any():
                return torch.stack(runs, 1) if runs else nodes.new_empty(len(nodes), 0), lengths, nodes
            first = torch.where(single, first, 0)
            runs.append(torch.where(single, self.token(first), only_token))
            nodes = torch.where(single, first, torch.where(goes_on, only_child, nodes))
            lengths = lengths + goes_on

    def is_leaf(self, nodes: torch.LongTensor) -> torch.BoolTensor:
        """
        Tells which nodes are leaves, that is complete titles with their end token.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, or -1, which is no leaf.

        Returns:
            `torch.BoolTensor` of shape `(n,)`.
        """
        _, count, only_token, _ = self.outlook(nodes.clamp(min=0))
        return (count == 0) & (only_token < 0) & (nodes >= 0)

    def leaf_index(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Counts leaves in the order of their nodes.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes with one leaf below, or leaves.

        Returns:
            `torch.LongTensor` of shape `(n,)`: The leaf's place in the order, from 0 on.
        """
        return self._locate(nodes)[1] // self._places

    def num_leaves_below(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Counts the leaves under each node, a leaf counting itself.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            `torch.LongTensor` of shape `(n,)`.
        """
        first = nodes.clamp(max=self._num_nodes - 1)
        end = first + 1
        count = torch.zeros_like(nodes)
        # What lies below a node is one range of nodes on each level.
        for _ in self.level_ends:
            internal = torch.searchsorted(self.internal_node, torch.stack((first, end)).int())
            count += (end - first) - (internal[1] - internal[0])
            first, end = self.first_child[internal].long()
        return torch.where(nodes < self._num_nodes, count, 1)

    def _locate(self, nodes: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
        """
        For each node, `(2, n)`: where in `first_child` its family begins and ends, one place if it has none. And, if
        it has one leaf below: `_places` times the leaf, plus the tokens that have been taken of the leaf's tail.
        """
        beyond = nodes - self._num_nodes
        # The last node is a leaf, so it may stand in for those in a tail.
        node = nodes.clamp(max=self._num_nodes - 1)
        first = torch.searchsorted(self.internal_node, node.int())
        end = torch.searchsorted(self.internal_node, node.int(), right=True)
        # The leaf behind an end token is beyond its tail, which is empty.
        position = (node - first) * self._places + (self.token(node) == self.eos_token_id)
        return torch.stack((first, end)), torch.where(beyond >= 0, beyond, position)

    def _tail_begin(self, leaf: torch.LongTensor) -> torch.LongTensor:
        """Where in `tail_token` each leaf's tail begins."""
        return self.tail_start[leaf // TAIL_BLOCK] + self.tail_offset[leaf]
