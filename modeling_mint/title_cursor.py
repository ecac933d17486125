"""Where rows stand while they write titles: carried from token to token, one vectorised step for all rows."""

from dataclasses import dataclass, fields, replace

import torch

from .title_trie import TitleTrie
from .token_trie import Outlook


@dataclass
class TitleCursor:
    """
    Rows that each write one title and the end token.

    Attributes:
        trie ([`~title_trie.TitleTrie`]):
            The titles.
        length (`int`):
            Tokens that every row has written.
        node (`torch.LongTensor` of shape `(rows,)`):
            Where each row stands; -1 for one that has left the trie. A row that has ended stays at its leaf.
        outlook ([`~token_trie.Outlook`]):
            What can follow each row's node.
        ended (`torch.BoolTensor` of shape `(rows,)`):
            Rows that have written their end token.
    """

    trie: TitleTrie
    length: int
    node: torch.LongTensor
    outlook: Outlook
    ended: torch.BoolTensor

    @classmethod
    def start(cls, trie: TitleTrie, num_rows: int) -> "TitleCursor":
        """Rows that have written nothing yet."""
        node = torch.zeros(num_rows, dtype=torch.long, device=trie.device)
        return cls(trie, 0, node, trie.outlook(node), torch.zeros_like(node, dtype=torch.bool))

    @property
    def max_children(self) -> int:
        """Number of children that no row's node has more of."""
        widths = self.trie.level_max_children
        return widths[self.length] if self.length < len(widths) else 0

    def select(self, rows: torch.LongTensor) -> "TitleCursor":
        """The rows given, any of them any number of times."""
        node, *outlook = torch.stack((self.node, *self.outlook))[:, rows]
        return TitleCursor(self.trie, self.length, node, Outlook(*outlook), self.ended[rows])

    def advance(self, tokens: torch.LongTensor) -> "TitleCursor":
        """Appends one token, of `(rows,)`, to each row."""
        child = self.trie.follow(self.outlook, tokens, self.max_children)
        node = torch.where(self.ended, self.node, child)
        outlook = self.trie.outlook(node.clamp(min=0))
        ended = outlook.num_children + outlook.only_token < 0
        return TitleCursor(self.trie, self.length + 1, node, outlook, ended)


@dataclass
class ListCursor:
    """
    Rows that each write distinct titles with a separator between them, then the end token.

    Attributes:
        trie ([`~title_trie.TitleTrie`]):
            The titles.
        separator (`torch.LongTensor` of shape `(separator_length,)`):
            Tokens between two titles; the first occurs in no title.
        node (`torch.LongTensor` of shape `(rows,)`):
            Where each row stands in the title that it writes; -1 for one that has left the trie.
        outlook ([`~token_trie.Outlook`]):
            What can follow each row's node.
        leaf (`torch.LongTensor` of shape `(rows,)`):
            The node behind the end token that could follow, or -1: the title that is complete here.
        num_separator_tokens, num_docids (`torch.LongTensor` of shape `(rows,)`):
            Tokens of a separator that are out, and titles that are complete.
        passed, parent, token, room (`torch.LongTensor` of shape `(rows, length)`):
            For each token written: the node of a title that it led to (a leaf where a separator begins), or -1; the
            node before; the token; the leaves below the node passed.
        title_index (`torch.LongTensor` of shape `(rows, length)`):
            Number of titles that were complete when the token was written.
    """

    trie: TitleTrie
    separator: torch.LongTensor
    node: torch.LongTensor
    outlook: Outlook
    leaf: torch.LongTensor
    num_separator_tokens: torch.LongTensor
    num_docids: torch.LongTensor
    passed: torch.LongTensor
    parent: torch.LongTensor
    token: torch.LongTensor
    room: torch.LongTensor
    title_index: torch.LongTensor

    @classmethod
    def start(cls, trie: TitleTrie, separator: torch.LongTensor, num_rows: int) -> "ListCursor":
        """Rows that have written nothing yet."""
        zeros = torch.zeros(num_rows, dtype=torch.long, device=trie.device)
        nothing = zeros.new_empty(num_rows, 0)
        outlook = trie.outlook(zeros)
        return cls(
            trie, separator, zeros, outlook, torch.full_like(zeros, -1), zeros, zeros, *(nothing for _ in range(5))
        )

    @property
    def ended(self) -> torch.BoolTensor:
        """Rows that have written their end token."""
        return self.outlook.num_children + self.outlook.only_token < 0

    def select(self, rows: torch.LongTensor) -> "ListCursor":
        """The rows given, any of them any number of times."""
        chosen = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in ("trie", "separator", "outlook")
        }
        return replace(self, outlook=Outlook(*(value[rows] for value in self.outlook)), **chosen)

    def advance(self, tokens: torch.LongTensor) -> "ListCursor":
        """Appends one token, of `(rows,)`, to each row."""
        trie, separator = self.trie, self.separator
        starts = (self.num_separator_tokens == 0) & (self.leaf >= 0) & (tokens == separator[0])
        in_separator = self.num_separator_tokens > 0
        separates = starts | (in_separator & (tokens == separator[self.num_separator_tokens]))
        inside = torch.where(self.ended, self.node, trie.follow(self.outlook, tokens))
        node = torch.where(separates, self.node, torch.where(in_separator, -1, inside))
        passed = torch.where(starts, self.leaf, torch.where(separates, -1, node))

        num_separator_tokens = torch.where(separates, self.num_separator_tokens + 1, 0)
        closed = num_separator_tokens == len(separator)
        node = torch.where(closed, 0, node)
        outlook = trie.outlook(node.clamp(min=0))
        leaf = trie.follow(outlook, torch.full_like(node, trie.eos_token_id))

        def append(history: torch.LongTensor, column: torch.LongTensor) -> torch.LongTensor:
            return torch.cat([history, column[:, None]], dim=1)

        return replace(
            self,
            node=node,
            outlook=outlook,
            leaf=torch.where(node >= 0, leaf, -1),
            num_separator_tokens=torch.where(closed, 0, num_separator_tokens),
            num_docids=self.num_docids + closed,
            passed=append(self.passed, passed),
            parent=append(self.parent, self.node),
            token=append(self.token, torch.where(starts, trie.eos_token_id, tokens)),
            room=append(self.room, trie.num_leaves_below(passed.clamp(min=0))),
            title_index=append(self.title_index, self.num_docids),
        )

    def exhausted(self) -> torch.BoolTensor:
        """
        Which tokens written before may not follow now, since every title that they lead to is listed already.

        Returns:
            `torch.BoolTensor` of shape `(rows, length)`: marks of `token`.
        """
        complete = (self.title_index < self.num_docids[:, None]) & (self.passed >= 0)
        visits = ((self.passed[:, :, None] == self.passed[:, None]) & complete[:, None]).sum(2)
        return complete & (self.parent == self.node[:, None]) & (visits >= self.room)

    def leaf_listed(self) -> torch.BoolTensor:
        """Rows whose `leaf` is a title that they have listed already."""
        complete = self.title_index < self.num_docids[:, None]
        return ((self.passed == self.leaf[:, None]) & complete).any(1)


__all__ = ["ListCursor", "TitleCursor"]
