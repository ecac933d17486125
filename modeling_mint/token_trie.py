"""A trie of token paths in two flat arrays, walked for many rows at once."""

import torch


class TokenTrie:
    """
    Trie of token paths, each closed by the end token, whose edge leads to a leaf.

    Nodes are numbered level by level, the children of a node in the order of their tokens, and the root is node 0.
    Numbered so, edge `e` leads to node `e + 1`: no child pointer is stored. The length of a trie is its number of
    leaves. All methods work on many nodes at once, on the device of the arrays.

    Args:
        edge_token (`torch.Tensor` of shape `(num_edges,)`):
            Token of each edge, uint16 for vocabularies up to 65,536 and uint32 beyond.
        first_edge (`torch.Tensor` of shape `(num_nodes + 1,)`):
            int32; the edges that leave node `v` are `first_edge[v]` up to, not including, `first_edge[v + 1]`.
        eos_token_id (`int`):
            End token.
    """

    def __init__(self, edge_token: torch.Tensor, first_edge: torch.Tensor, eos_token_id: int):
        self.edge_token = edge_token
        self.first_edge = first_edge
        self.eos_token_id = eos_token_id
        # Leaves are the nodes under the end token's edges, in ascending order; too cheap to find to be stored.
        self.leaf_node = torch.nonzero(edge_token.long() == eos_token_id).squeeze(1) + 1
        self.max_depth = self._count_levels()
        self._search_steps = int(torch.diff(first_edge).max()).bit_length()

    def _count_levels(self) -> int:
        """Number of edges on the longest path: levels are ranges of nodes, each found from the one above."""
        first, end, depth = 0, 1, -1
        while first < end:
            first, end, depth = int(self.first_edge[first]) + 1, int(self.first_edge[end]) + 1, depth + 1
        return depth

    def __len__(self) -> int:
        return len(self.leaf_node)

    @property
    def device(self) -> torch.device:
        """Device that the arrays are on; nodes and tokens handed in must be on it too."""
        return self.edge_token.device

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
        first = self.first_edge[nodes].long()
        count = self.first_edge[nodes + 1].long() - first
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), count)
        # The i-th child overall is the i-th edge after `first`, less the children of the rows before.
        before = torch.cumsum(count, 0) - count
        edge = torch.arange(len(row), device=nodes.device) + (first - before)[row]
        return row, self.edge_token[edge].long(), edge + 1

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
        inside = nodes.clamp(min=0)
        low = self.first_edge[inside].long()
        end = self.first_edge[inside + 1].long()
        high = end
        last_edge = len(self.edge_token) - 1
        for _ in range(self._search_steps):
            middle = (low + high) // 2
            smaller = (self.edge_token[middle.clamp(max=last_edge)].long() < tokens) & (low < high)
            low = torch.where(smaller, middle + 1, low)
            high = torch.where(smaller, high, middle)
        found = (nodes >= 0) & (low < end) & (self.edge_token[low.clamp(max=last_edge)].long() == tokens)
        return torch.where(found, low + 1, -1)

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

    def is_leaf(self, nodes: torch.LongTensor) -> torch.BoolTensor:
        """
        Tells which nodes are leaves, that is complete titles with their end token.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, or -1, which is no leaf.

        Returns:
            `torch.BoolTensor` of shape `(n,)`.
        """
        return (nodes > 0) & (self.edge_token[(nodes - 1).clamp(min=0)].long() == self.eos_token_id)

    def num_leaves_below(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Counts the leaves under each node, a leaf counting itself.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            `torch.LongTensor` of shape `(n,)`.
        """
        first, end = nodes, nodes + 1
        count = torch.zeros_like(nodes)
        # What lies below a node is one range of nodes on each level.
        for _ in range(self.max_depth + 1):
            count += torch.searchsorted(self.leaf_node, end) - torch.searchsorted(self.leaf_node, first)
            first, end = self.first_edge[first].long() + 1, self.first_edge[end].long() + 1
        return count
