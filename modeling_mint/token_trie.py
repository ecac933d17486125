"""A trie of token paths in flat arrays."""

import torch

from .trie_walker import TrieWalker


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

    Attributes:
        walker ([`~trie_walker.TrieWalker`]):
            The same steps on native arrays, for code that takes many of them in a row.
        max_depth (`int`):
            Tokens of the longest path, end token included.
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
        self.walker = TrieWalker(self)
        self.max_depth = self.walker.max_depth

    def __len__(self) -> int:
        return self.walker.num_leaves

    @property
    def device(self) -> torch.device:
        """Device that the arrays are on; nodes and tokens handed in must be on it too."""
        return self.walker.device

    def holds_token(self, token: int) -> bool:
        """Tells whether a token (`int`) occurs in any path."""
        inside = (self.node_token[1:].cpu().numpy(), self.tail_token[:-1].cpu().numpy())
        return token == self.eos_token_id or any((tokens == token).any() for tokens in inside)

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
        return self._walk("children", nodes)

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
        return self._walk("step", nodes, tokens)

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
        return self._walk("forced", nodes)

    def is_leaf(self, nodes: torch.LongTensor) -> torch.BoolTensor:
        """
        Tells which nodes are leaves, that is complete titles with their end token.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, or -1, which is no leaf.

        Returns:
            `torch.BoolTensor` of shape `(n,)`.
        """
        return self._walk("is_leaf", nodes)

    def leaf_index(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Counts leaves in the order of their nodes.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Leaves, or nodes with one leaf below.

        Returns:
            `torch.LongTensor` of shape `(n,)`: The leaf's place in the order, from 0 on.
        """
        return self._walk("leaf_index", nodes)

    def num_leaves_below(self, nodes: torch.LongTensor) -> torch.LongTensor:
        """
        Counts the leaves under each node, a leaf counting itself.

        Args:
            nodes (`torch.LongTensor` of shape `(n,)`):
                Nodes of the trie, none of them -1.

        Returns:
            `torch.LongTensor` of shape `(n,)`.
        """
        return self._walk("num_leaves_below", nodes)

    def _walk(self, method: str, *tensors: torch.Tensor):
        """Calls a method of the walker with tensors, and gives tensors back."""
        result = getattr(self.walker, method)(*map(self.walker.native, tensors))
        return tuple(map(self.walker.tensor, result)) if isinstance(result, tuple) else self.walker.tensor(result)
