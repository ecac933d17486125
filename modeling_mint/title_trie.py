"""The title trie: every title of the collection as a path of tokens in flat arrays, each leaf leading to rows."""

import logging
import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from .title_trie_arrays import ARRAY_NAMES, FACT_NAMES, read_arrays, write_arrays
from .title_trie_build import build_arrays
from .title_trie_changes import TitleTrieChanges
from .title_trie_paths import encode_titles, flat_paths
from .token_trie import TokenTrie
from .tokenization_mint import tokenizer_fingerprint

logger = logging.getLogger(__name__)

TITLE_TRIE_NAME = "title_trie.safetensors"


class TitleTrie(TitleTrieChanges, TokenTrie):
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
        tokens, lengths, hashes = encode_titles(titles, tokenizer)
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
        return cls(
            **build_arrays(tokens, lengths, np.arange(len(lengths)), vocab_size),
            eos_token_id=eos_token_id,
            num_rows=len(lengths),
            vocab_size=vocab_size,
            fingerprint=fingerprint,
        )

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
