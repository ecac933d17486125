"""Where rows stand while they write titles: carried from token to token, one vectorised step for all rows."""

from dataclasses import dataclass, fields, replace

from .trie_walker import Array, Outlook, TrieWalker


@dataclass
class TitleCursor:
    """
    Rows that each write one title and the end token, as native arrays of the walker.

    Attributes:
        walker ([`~trie_walker.TrieWalker`]):
            The titles.
        length (`int`):
            Tokens that every row has written.
        node (int64 array of shape `(rows,)`):
            Where each row stands; -1 for one that has left the trie. A row that has ended stays at its leaf.
        outlook ([`~trie_walker.Outlook`]):
            What can follow each row's node.
        ended (bool array of shape `(rows,)`):
            Rows that have written their end token.
    """

    walker: TrieWalker
    length: int
    node: Array
    outlook: Outlook
    ended: Array

    @classmethod
    def start(cls, walker: TrieWalker, num_rows: int) -> "TitleCursor":
        """Rows that have written nothing yet."""
        node = walker.arange(num_rows) * 0
        return cls(walker, 0, node, walker.outlook(node), node < 0)

    @property
    def max_children(self) -> int:
        """Number of children that no row's node has more of."""
        widths = self.walker.level_max_children
        return widths[self.length] if self.length < len(widths) else 0

    def select(self, rows: Array) -> "TitleCursor":
        """The rows given, any of them any number of times."""
        outlook = Outlook(*(part[rows] for part in self.outlook))
        return TitleCursor(self.walker, self.length, self.node[rows], outlook, self.ended[rows])

    def advance(self, tokens: Array) -> "TitleCursor":
        """Appends one token, of `(rows,)`, to each row."""
        child = self.walker.follow(self.outlook, tokens, self.max_children)
        node = self.walker.xp.where(self.ended, self.node, child)
        outlook = self.walker.outlook(node.clip(min=0))
        ended = outlook.num_children + outlook.only_token < 0
        return TitleCursor(self.walker, self.length + 1, node, outlook, ended)


@dataclass
class ListCursor:
    """
    Rows that each write distinct titles with a separator between them, then the end token, as native arrays of the
    walker.

    Attributes:
        walker ([`~trie_walker.TrieWalker`]):
            The titles.
        separator (int64 array of shape `(separator_length,)`):
            Tokens between two titles; the first occurs in no title.
        node (int64 array of shape `(rows,)`):
            Where each row stands in the title that it writes; -1 for one that has left the trie.
        outlook ([`~trie_walker.Outlook`]):
            What can follow each row's node.
        leaf (int64 array of shape `(rows,)`):
            The node behind the end token that could follow, or -1: the title that is complete here.
        num_separator_tokens, num_docids (int64 arrays of shape `(rows,)`):
            Tokens of a separator that are out, and titles that are complete.
        passed, parent, token, room (int64 arrays of shape `(rows, length)`):
            For each token written: the node of a title that it led to (a leaf where a separator begins), or -1; the
            node before; the token; the leaves below the node passed.
        title_index (int64 array of shape `(rows, length)`):
            Number of titles that were complete when the token was written.
    """

    walker: TrieWalker
    separator: Array
    node: Array
    outlook: Outlook
    leaf: Array
    num_separator_tokens: Array
    num_docids: Array
    passed: Array
    parent: Array
    token: Array
    room: Array
    title_index: Array

    @classmethod
    def start(cls, walker: TrieWalker, separator: Array, num_rows: int) -> "ListCursor":
        """Rows that have written nothing yet."""
        zeros = walker.arange(num_rows) * 0
        nothing = zeros[:, None][:, :0]
        return cls(walker, separator, zeros, walker.outlook(zeros), zeros - 1, zeros, zeros, *[nothing] * 5)

    @property
    def ended(self) -> Array:
        """Rows that have written their end token."""
        return self.outlook.num_children + self.outlook.only_token < 0

    def select(self, rows: Array) -> "ListCursor":
        """The rows given, any of them any number of times."""
        chosen = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in ("walker", "separator", "outlook")
        }
        return replace(self, outlook=Outlook(*(part[rows] for part in self.outlook)), **chosen)

    def advance(self, tokens: Array) -> "ListCursor":
        """Appends one token, of `(rows,)`, to each row."""
        walker, separator, xp = self.walker, self.separator, self.walker.xp
        starts = (self.num_separator_tokens == 0) & (self.leaf >= 0) & (tokens == separator[0])
        in_separator = self.num_separator_tokens > 0
        separates = starts | (in_separator & (tokens == separator[self.num_separator_tokens]))
        inside = xp.where(self.ended, self.node, walker.follow(self.outlook, tokens))
        node = xp.where(separates, self.node, xp.where(in_separator, -1, inside))
        passed = xp.where(starts, self.leaf, xp.where(separates, -1, node))

        num_separator_tokens = xp.where(separates, self.num_separator_tokens + 1, 0)
        closed = num_separator_tokens == len(separator)
        node = xp.where(closed, 0, node)
        outlook = walker.outlook(node.clip(min=0))
        leaf = walker.follow(outlook, xp.full_like(node, walker.eos_token_id))

        def append(history: Array, column: Array) -> Array:
            return xp.concatenate((history, column[:, None]), 1)

        return replace(
            self,
            node=node,
            outlook=outlook,
            leaf=xp.where(node >= 0, leaf, -1),
            num_separator_tokens=xp.where(closed, 0, num_separator_tokens),
            num_docids=self.num_docids + closed,
            passed=append(self.passed, passed),
            parent=append(self.parent, self.node),
            token=append(self.token, xp.where(starts, walker.eos_token_id, tokens)),
            room=append(self.room, walker.num_leaves_below(passed.clip(min=0))),
            title_index=append(self.title_index, self.num_docids),
        )

    def exhausted(self) -> Array:
        """
        Which tokens written before may not follow now, since every title that they lead to is listed already.

        Returns:
            bool array of shape `(rows, length)`: marks of `token`.
        """
        complete = (self.title_index < self.num_docids[:, None]) & (self.passed >= 0)
        visits = ((self.passed[:, :, None] == self.passed[:, None]) & complete[:, None]).sum(2)
        return complete & (self.parent == self.node[:, None]) & (visits >= self.room)

    def leaf_listed(self) -> Array:
        """Rows whose `leaf` is a title that they have listed already: a bool array of shape `(rows,)`."""
        complete = self.title_index < self.num_docids[:, None]
        return ((self.passed == self.leaf[:, None]) & complete).any(1)


__all__ = ["ListCursor", "TitleCursor"]
