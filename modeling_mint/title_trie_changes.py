"""Title tries of other rows, made from the paths of one that is there: no title is tokenized again."""

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .title_trie_build import build_arrays
from .title_trie_paths import encode_titles, leaf_paths


class TitleTrieChanges:
    """What [`~title_trie.TitleTrie`] can do when the rows change that it is to lead to."""

    def subset(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> Self:
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
        return self._rebuilt(tokens, lengths, rows, self.num_rows)

    def without(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> Self:
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
        return self._rebuilt(tokens, lengths, new_row[rows], int(stays.sum()))

    def with_titles(self, titles: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Self:
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
        new_tokens, new_lengths, _ = encode_titles(titles, tokenizer, first_row=self.num_rows)
        num_rows = self.num_rows + len(new_lengths)
        return self._rebuilt(
            np.concatenate([tokens, new_tokens]),
            np.concatenate([lengths, new_lengths]),
            np.concatenate([rows, np.arange(self.num_rows, num_rows)]),
            num_rows,
        )

    def _rebuilt(self, tokens: np.ndarray, lengths: np.ndarray, rows: np.ndarray, num_rows: int) -> Self:
        """A trie of these paths, like this one in all else."""
        return type(self)(
            **build_arrays(tokens, lengths, rows, self.vocab_size),
            eos_token_id=self.eos_token_id,
            num_rows=num_rows,
            vocab_size=self.vocab_size,
            fingerprint=self.fingerprint,
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
