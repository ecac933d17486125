"""The title trie: every title of the collection as a path of tokens in flat arrays, each leaf leading to rows."""

import logging
import os

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from .title_trie_arrays import ARRAY_NAMES, FACT_NAMES, build_arrays, read_arrays, write_arrays
from .token_trie import TokenTrie
from .tokenization_mint import encode_targets, tokenizer_fingerprint

logger = logging.getLogger(__name__)

TITLE_TRIE_NAME = "title_trie.safetensors"


class TitleTrie(TokenTrie):
    """
    Token trie over the titles of a collection, which are its docids (MINT, SIGIR 2025): the only index there is.

    The paths are those of a [`~token_trie.TokenTrie`]; a leaf gives the rows of the collection that have its title.
    Titles that are equal, or that the tokenizer cannot tell apart, share a leaf and keep all their rows.

    Build one with [`TitleTrie.from_titles`], [`TitleTrie.from_token_ids`] or [`TitleTrie.from_pretrained`]. The length
    of a trie is its number of leaves.

    Args:
        edge_token (`torch.Tensor` of shape `(num_edges,)`):
            Token of each edge.
        first_edge (`torch.Tensor` of shape `(num_nodes + 1,)`):
            First edge of each node.
        leaf_first_row (`torch.Tensor` of shape `(num_leaves + 1,)`):
            int32; leaves counted in node order, the `i`-th owns `leaf_row[leaf_first_row[i] : leaf_first_row[i + 1]]`.
        leaf_row (`torch.Tensor` of shape `(num_rows,)`):
            int32; rows of the collection, leaf by leaf, ascending in each.
        eos_token_id (`int`):
            End token.
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
        edge_token: torch.Tensor,
        first_edge: torch.Tensor,
        leaf_first_row: torch.Tensor,
        leaf_row: torch.Tensor,
        eos_token_id: int,
        vocab_size: int,
        fingerprint: str = "",
    ):
        super().__init__(edge_token, first_edge, eos_token_id)
        self.leaf_first_row = leaf_first_row
        self.leaf_row = leaf_row
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint

    @classmethod
    def from_titles(cls, titles: list[str], tokenizer: PreTrainedTokenizerBase) -> "TitleTrie":
        """
        Builds the trie of a collection.

        Args:
            titles (`list[str]`):
                Titles of the collection; a title's position is its row.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                Tokenizer of the model that will write the titles.

        Returns:
            [`TitleTrie`]: The trie. How many leaves hold several rows is logged as a warning.

        Raises:
            `ValueError`: if there is no title, if one is empty or only spaces, or if the tokenizer has no end token or
                turns text into it.
        """
        titles = list(titles)
        for row, title in enumerate(titles):
            if not title.strip():
                raise ValueError(
                    f"The title of row {row} is empty: {title!r}. A document is found by its title only; "
                    "give the row a title or drop it from the collection."
                )
        trie = cls.from_token_ids(
            encode_targets(tokenizer, titles),
            eos_token_id=tokenizer.eos_token_id,
            vocab_size=len(tokenizer),
            fingerprint=tokenizer_fingerprint(tokenizer),
        )
        if len(trie) < trie.num_rows:
            shared = int((torch.diff(trie.leaf_first_row) > 1).sum())
            alike = len(set(titles)) - len(trie)
            logger.warning(
                f"{shared} of {len(trie)} leaves of the title trie hold several rows of the collection; "
                f"{alike} titles differ from another as text but not in their tokens."
            )
        return trie

    @classmethod
    def from_token_ids(
        cls, paths: list[list[int]], eos_token_id: int, vocab_size: int, fingerprint: str = ""
    ) -> "TitleTrie":
        """
        Builds a trie from tokenized titles.

        Args:
            paths (`list[list[int]]`):
                Token ids of each title, closed by the end token; the position of a path is its row.
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
        arrays = build_arrays(paths, eos_token_id, vocab_size)
        return cls(**arrays, eos_token_id=eos_token_id, vocab_size=vocab_size, fingerprint=fingerprint)

    @property
    def num_rows(self) -> int:
        """Number of rows of the collection."""
        return len(self.leaf_row)

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
        rank = int(torch.searchsorted(self.leaf_node, leaf))
        if rank == len(self) or int(self.leaf_node[rank]) != leaf:
            raise ValueError(f"Node {leaf} is no leaf: only a complete title with its end token has rows.")
        return self.leaf_row[self.leaf_first_row[rank] : self.leaf_first_row[rank + 1]].tolist()

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
        if tokenizer is not None and (
            trie.fingerprint != tokenizer_fingerprint(tokenizer) or trie.eos_token_id != tokenizer.eos_token_id
        ):
            raise ValueError(
                f"{path} was built with another tokenizer (fingerprint {trie.fingerprint[:12]}, end token "
                f"{trie.eos_token_id}) than the one given (fingerprint {tokenizer_fingerprint(tokenizer)[:12]}, end "
                f"token {tokenizer.eos_token_id}). Load it with the tokenizer that was saved beside it, or rebuild it "
                "from the collection's titles with `TitleTrie.from_titles(titles, tokenizer)`."
            )
        return trie
