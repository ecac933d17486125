"""The title trie: every title of the collection as a path of tokens in flat arrays, each leaf leading to rows."""

import logging
import os
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from .title_trie_arrays import ARRAY_NAMES, FACT_NAMES, read_arrays, write_arrays
from .title_trie_build import build_arrays, token_type
from .title_trie_paths import flat_paths, leaf_paths
from .token_trie import TokenTrie
from .tokenization_mint import encode_targets, tokenizer_fingerprint

logger = logging.getLogger(__name__)

TITLE_TRIE_NAME = "title_trie.safetensors"
TITLES_AT_ONCE = 10_000


class TitleTrie(TokenTrie):
    """
    Token trie over the titles of a collection, which are its docids (MINT, SIGIR 2025): the only index there is.

    The paths are those of a [`~token_trie.TokenTrie`]; a leaf gives the rows of the collection that have its title.
    Titles that are equal, or that the tokenizer cannot tell apart, share a leaf and keep all their rows.

    Build one with [`TitleTrie.from_titles`], [`TitleTrie.from_token_ids`] or [`TitleTrie.from_pretrained`]. The length
    of a trie is its number of leaves. At the size of Wikipedia it takes some ten bytes a title, the map from leaves to
    rows four more, unless the collection is stored in the order of the leaves ([`TitleTrie.leaf_order`]).

    Args:
        node_token, first_child, internal_node, tail_token, tail_start, tail_offset, eos_token_id:
            As for [`~token_trie.TokenTrie`].
        leaf_row (`torch.Tensor` of shape `(num_indexed_rows,)`):
            int32; rows of the collection leaf by leaf, ascending in each. Empty where that is 0, 1, 2, ...
        further_leaf (`torch.Tensor` of shape `(num_indexed_rows - num_leaves,)`):
            int32, ascending; the leaf of each row that is not its leaf's first.
        num_rows (`int`):
            Number of rows of the collection.
        vocab_size (`int`):
            Size of the vocabulary that the tokens come from.
        fingerprint (`str`, *optional*, defaults to `""`):
            [`~tokenization_mint.tokenizer_fingerprint`] of the tokenizer that wrote the paths.

    Example:

    ```python
    >>> import torch
    >>> from modeling_mint.title_trie import TitleTrie

    >>> trie = TitleTrie.from_token_ids([[5, 1], [5, 7, 1], [4, 1], [5, 1]], eos_token_id=1, vocab_size=8)
    >>> len(trie), trie.num_rows
    (3, 4)
    >>> row, token, child = trie.children(torch.tensor([0]))
    >>> token.tolist()
    [4, 5]
    >>> leaves = trie.walk(torch.tensor([[5, 1, 0], [5, 7, 1]]))
    >>> [trie.rows(leaf) for leaf in leaves.tolist()]
    [[0, 3], [1]]

    ```
    """

    def __init__(
        self,
        node_token: torch.Tensor,
        first_child: torch.Tensor,
        internal_node: torch.Tensor,
        tail_token: torch.Tensor,
        tail_start: torch.Tensor,
        tail_offset: torch.Tensor,
        leaf_row: torch.Tensor,
        further_leaf: torch.Tensor,
        eos_token_id: int,
        num_rows: int,
        vocab_size: int,
        fingerprint: str = "",
    ):
        super().__init__(
            node_token, first_child, internal_node, tail_token, tail_start, tail_offset, eos_token_id=eos_token_id
        )
        self.leaf_row = leaf_row
        self.further_leaf = further_leaf
        self.num_rows = num_rows
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint

    @classmethod
    def from_titles(cls, titles: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> "TitleTrie":
        """
        Builds the trie of a collection. Titles are read once, a few thousand at a time, and not kept, so that a
        generator over millions of them will do.

        Args:
            titles (`Iterable[str]`):
                Titles of the collection; a title's position is its row.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Tokenizer of the model that will write the titles.

        Returns:
            [`TitleTrie`]: The trie. How many leaves hold several rows is logged as a warning.

        Raises:
            `ValueError`: if there is no title, if one is empty or only spaces, or if the tokenizer has no end token or
                turns text into it.
        """
        tokens, lengths, hashes = _encode(titles, tokenizer)
        trie = cls.from_token_ids(
            (tokens, lengths),
            eos_token_id=tokenizer.eos_token_id,
            vocab_size=len(tokenizer),
            fingerprint=tokenizer_fingerprint(tokenizer),
        )
        trie._warn_of_shared_leaves(len(np.unique(hashes)))
        return trie

    @classmethod
    def from_token_ids(
        cls,
        paths: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray],
        eos_token_id: int,
        vocab_size: int,
        fingerprint: str = "",
    ) -> "TitleTrie":
        """
        Builds a trie from tokenized titles.

        Args:
            paths (`Sequence[Sequence[int]]` or `tuple[np.ndarray, np.ndarray]`):
                Token ids of each title, closed by the end token; the position of a path is its row. As a tuple: the
                ids of all paths one after another, and the length of each path, both integer arrays.
            eos_token_id (`int`):
                End token.
            vocab_size (`int`):
                Size of the vocabulary.
            fingerprint (`str`, *optional*, defaults to `""`):
                Fingerprint of the tokenizer that made the paths.

        Returns:
            [`TitleTrie`]: The trie.

        Raises:
            `ValueError`: if there is no path, or one is empty, does not close with its only end token or leaves the
                vocabulary.
        """
        tokens, lengths = flat_paths(paths, eos_token_id, vocab_size)
        return cls._build(
            tokens, lengths, np.arange(len(lengths)), len(lengths), eos_token_id, vocab_size, fingerprint
        )

    @classmethod
    def _build(
        cls,
        tokens: np.ndarray,
        lengths: np.ndarray,
        rows: np.ndarray,
        num_rows: int,
        eos_token_id: int,
        vocab_size: int,
        fingerprint: str,
    ) -> "TitleTrie":
        return cls(
            **build_arrays(tokens, lengths, rows, vocab_size),
            eos_token_id=eos_token_id,
            num_rows=num_rows,
            vocab_size=vocab_size,
            fingerprint=fingerprint,
        )

    def subset(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> "TitleTrie":
        """
        Builds the trie over part of the collection, such as the documents on a topic, of a year, or that a user may
        read, without tokenizing again. Rows keep their numbers, so the collection stays as it is.

        Args:
            rows (`Sequence[int]`, `np.ndarray` or `torch.Tensor`):
                Rows that the trie is to lead to, in any order.

        Returns:
            [`TitleTrie`]: The trie, on the CPU.

        Raises:
            `ValueError`: if there is no row, or one is not in this trie.
        """
        wanted = self._marked(rows)
        tokens, lengths, rows = self._paths(wanted)
        if len(rows) < wanted.sum():
            wanted[rows] = False
            raise ValueError(f"Row {np.flatnonzero(wanted)[0]} is not in this trie: it is a subset already.")
        return self._build(tokens, lengths, rows, self.num_rows, self.eos_token_id, self.vocab_size, self.fingerprint)

    def without(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> "TitleTrie":
        """
        Builds the trie of the collection that is left when documents leave it. The rows behind them move up, as
        `Dataset.select` over what stays moves them.

        Args:
            rows (`Sequence[int]`, `np.ndarray` or `torch.Tensor`):
                Rows that leave the collection, in any order.

        Returns:
            [`TitleTrie`]: The trie, on the CPU.

        Raises:
            `ValueError`: if no row would be left, or one is not in the collection.
        """
        stays = ~self._marked(rows)
        tokens, lengths, rows = self._paths(stays)
        new_row = np.cumsum(stays) - 1
        return self._build(
            tokens,
            lengths,
            new_row[rows],
            int(stays.sum()),
            self.eos_token_id,
            self.vocab_size,
            self.fingerprint,
        )

    def with_titles(self, titles: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> "TitleTrie":
        """
        Builds the trie of the collection that documents are added to, tokenizing the new titles only.

        Args:
            titles (`Iterable[str]`):
                Titles of the new documents, which become the last rows, as `datasets.concatenate_datasets` has it.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Tokenizer that this trie was built with.

        Returns:
            [`TitleTrie`]: The trie, on the CPU.

        Raises:
            `ValueError`: if the tokenizer is another one, or a title is empty.
        """
        self.check_tokenizer(tokenizer)
        tokens, lengths, rows = self._paths(np.ones(self.num_rows, bool))
        new_tokens, new_lengths, _ = _encode(titles, tokenizer, first_row=self.num_rows)
        num_rows = self.num_rows + len(new_lengths)
        return self._build(
            np.concatenate([tokens, new_tokens]),
            np.concatenate([lengths, new_lengths]),
            np.concatenate([rows, np.arange(self.num_rows, num_rows)]),
            num_rows,
            self.eos_token_id,
            self.vocab_size,
            self.fingerprint,
        )

    def _marked(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Marks the rows given among all rows of the collection."""
        rows = np.asarray(rows, dtype=np.int64)
        outside = rows[(rows < 0) | (rows >= self.num_rows)]
        if len(outside) > 0:
            raise ValueError(f"Row {outside[0]} is not in the collection of {self.num_rows} rows.")
        marked = np.zeros(self.num_rows, bool)
        marked[rows] = True
        return marked

    def _paths(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens, lengths and rows of the marked rows that the trie leads to, leaf by leaf."""
        rows = self.leaf_order().numpy()
        places = np.flatnonzero(wanted[rows])
        if len(places) == 0:
            raise ValueError("A title trie needs at least one title; no row is left.")
        further = self.further_leaf.cpu().numpy()
        # Of the places up to a leaf's first, as many are further rows as leaves before it have.
        leaves = places - np.searchsorted(further + np.arange(1, len(further) + 1), places, side="right")
        return *leaf_paths(self, leaves), rows[places]

    def leaf_order(self) -> torch.LongTensor:
        """
        Gives the rows in the order of the leaves. A collection stored in this order
        (`collection.select(trie.leaf_order())`) needs no map from leaves to rows: its trie is four bytes a title
        smaller.

        Returns:
            `torch.LongTensor` of shape `(num_indexed_rows,)`.
        """
        if len(self.leaf_row) > 0:
            return self.leaf_row.long().cpu()
        return torch.arange(len(self) + len(self.further_leaf))

    def _warn_of_shared_leaves(self, num_distinct_titles: int) -> None:
        if len(self.further_leaf) > 0:
            logger.warning(
                f"{len(self.further_leaf.unique())} of {len(self)} leaves of the title trie hold several rows of the "
                f"collection; {num_distinct_titles - len(self)} titles differ from another as text but not in their "
                "tokens."
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    def _arrays(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in ARRAY_NAMES}

    def _facts(self) -> dict[str, int | str]:
        return {name: getattr(self, name) for name in FACT_NAMES}

    def to(self, device: torch.device | str) -> "TitleTrie":
        """
        Gives this trie with its arrays on a device.

        Args:
            device (`torch.device` or `str`):
                Where to.

        Returns:
            [`TitleTrie`]: A new trie, or this one if it is there already.
        """
        if torch.device(device) == self.device:
            return self
        return TitleTrie(**{name: array.to(device) for name, array in self._arrays().items()}, **self._facts())

    def rows(self, leaf: int) -> list[int]:
        """
        Gives the rows of the collection under a leaf.

        Args:
            leaf (`int`):
                Leaf node, as [`TitleTrie.walk`] gives it.

        Returns:
            `list[int]`: Rows in ascending order, more than one where titles are equal or tokenize alike.

        Raises:
            `ValueError`: if the node is no leaf.
        """
        node = torch.tensor([leaf], device=self.device)
        if not self.is_leaf(node):
            raise ValueError(f"Node {leaf} is no leaf: only a complete title with its end token has rows.")
        index = self.leaf_index(node)
        further = torch.searchsorted(self.further_leaf, torch.cat([index, index + 1]).int())
        first, end = (torch.cat([index, index + 1]) + further).tolist()
        return self.leaf_row[first:end].tolist() if len(self.leaf_row) else list(range(first, end))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """
        Refuses a tokenizer that the trie was not built with.

        Args:
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Tokenizer of the model that is to write the titles.

        Raises:
            `ValueError`: if its fingerprint or its end token differs.
        """
        fingerprint = tokenizer_fingerprint(tokenizer)
        if (self.fingerprint, self.eos_token_id) != (fingerprint, tokenizer.eos_token_id):
            raise ValueError(
                f"The title trie was built with another tokenizer (fingerprint {self.fingerprint[:12]}, end token "
                f"{self.eos_token_id}) than the one given (fingerprint {fingerprint[:12]}, end token "
                f"{tokenizer.eos_token_id}). Load it with the tokenizer that was saved beside it, or rebuild it from "
                "the collection's titles with `TitleTrie.from_titles(titles, tokenizer)`."
            )

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """
        Writes `title_trie.safetensors` into a folder; the same trie gives the same bytes.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder, made if it is not there.
        """
        os.makedirs(save_directory, exist_ok=True)
        write_arrays(os.path.join(save_directory, TITLE_TRIE_NAME), self._arrays(), self._facts())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ) -> "TitleTrie":
        """
        Loads a trie from a folder or the Hub, its arrays mapped from the file.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder that holds `title_trie.safetensors`, or a Hub repo id.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
                Tokenizer that the trie must fit.
            **kwargs:
                Where on the Hub and in which cache: `revision`, `token`, `cache_dir`, `subfolder` and the other
                arguments of `transformers.utils.cached_file`.

        Returns:
            [`TitleTrie`]: The trie.

        Raises:
            `OSError`: if there is no such file.
            `ValueError`: if the file is damaged, of another format version, or made with another tokenizer.
        """
        path = cached_file(pretrained_model_name_or_path, TITLE_TRIE_NAME, **kwargs)
        arrays, facts = read_arrays(path)
        trie = cls(**arrays, **facts)
        if tokenizer is not None:
            trie.check_tokenizer(tokenizer)
        return trie


def _encode(
    titles: Iterable[str], tokenizer: PreTrainedTokenizerBase, first_row: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of all titles one after another, the length of each, and a hash of each title's text."""
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
