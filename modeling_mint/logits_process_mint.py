"""The title trie as a logits processor: generation that cannot leave the collection."""

from dataclasses import replace

import numpy as np
import torch
from transformers import LogitsProcessor

from .score_buffer import ScoreBuffer
from .title_cursor import ListCursor, TitleCursor
from .title_trie import TitleTrie
from .trie_walker import Array

# Beams that `generate` fills up with, where titles are fewer than beams, score about -1e9, divided by their length to
# the power of the length penalty; real docids score a few thousand below zero at worst.
FILLER_SCORE = -1e5


class TitleTrieLogitsProcessor(LogitsProcessor):
    r"""
    [`LogitsProcessor`] that lets a model write titles of the collection only: retrieval as constrained generation of
    docids (MINT, SIGIR 2025).

    In mode `"single"` a row writes one title and the end token. In mode `"list"` it writes distinct titles with a
    separator between them, then the end token: a title that is out already is excluded, and so is every prefix that
    leads to such titles only, so that no row runs into a dead end.

    A row that has ended may write the end token only. Every other token is masked with `-inf`. The constraint is never
    lifted: a row outside the trie is an error. Greedy search, sampling and beam search never make one; beam search
    with sampling may (it draws beams of probability zero), and is refused in that case.

    When beams outnumber titles, `generate` fills up with repetitions: drop those whose `sequences_scores` are below
    [`FILLER_SCORE`].

    Args:
        trie ([`~title_trie.TitleTrie`]):
            The collection's titles, on the device of the scores.
        prompt_length (`int`):
            Number of leading tokens that belong to no docid: the padded prompt's length for a decoder-only model, 1
            (the start token) for an encoder-decoder.
        mode (`str`, *optional*, defaults to `"single"`):
            `"single"` or `"list"`.
        separator_ids (`list[int]`, *optional*):
            Tokens between the titles of a list, required in mode `"list"`.
        min_docids (`int`, *optional*, defaults to 1):
            Number of titles before which a list may not end, unless the collection is used up.
        max_docids (`int`, *optional*):
            Number of titles after which a list must end; no limit but the collection if not given.

    Raises:
        `ValueError`: if the mode is unknown, the numbers contradict each other, or the separator is missing, holds the
            end token or starts with a token that occurs in a title.

    Example:

    ```python
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList
    >>> from modeling_mint.logits_process_mint import TitleTrieLogitsProcessor
    >>> from modeling_mint.title_trie import TitleTrie

    >>> trie = TitleTrie.from_token_ids([[5, 1], [5, 7, 1], [4, 1]], eos_token_id=1, vocab_size=8)
    >>> sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=8, eos_token_id=1, pad_token_id=0, **sizes))
    >>> prompt = torch.tensor([[2, 3], [0, 6]])
    >>> output = model.generate(
    ...     prompt,
    ...     attention_mask=(prompt != 0).long(),
    ...     num_beams=3,
    ...     num_return_sequences=3,
    ...     max_new_tokens=trie.max_depth,
    ...     logits_processor=LogitsProcessorList([TitleTrieLogitsProcessor(trie, prompt_length=2)]),
    ... )
    >>> leaves = trie.walk(output[:, 2:]).tolist()
    >>> [sorted(trie.rows(leaf)[0] for leaf in leaves[start : start + 3]) for start in (0, 3)]
    [[0, 1, 2], [0, 1, 2]]

    ```
    """

    def __init__(
        self,
        trie: TitleTrie,
        prompt_length: int,
        mode: str = "single",
        separator_ids: list[int] | None = None,
        min_docids: int = 1,
        max_docids: int | None = None,
    ):
        if mode not in ("single", "list"):
            raise ValueError(f'mode must be "single" or "list", not {mode!r}.')
        self.trie = trie
        root = torch.zeros(1, dtype=torch.long, device=trie.device)
        self._beginning = torch.full((trie.vocab_size,), -torch.inf, device=trie.device)
        self._beginning[trie.children(root)[1]] = 0
        self._buffer = ScoreBuffer()
        # The rows of the step before, and where they stand.
        self._written, self._state = None, None
        self._hashes = self._hash_order = self._factors = np.empty(0, np.int64)
        self.prompt_length = prompt_length
        self.mode = mode
        if mode == "list":
            if min_docids < 1 or (max_docids is not None and max_docids < min_docids):
                raise ValueError(f"min_docids={min_docids} must lie between 1 and max_docids={max_docids}.")
            self.max_docids = len(trie) if max_docids is None else min(max_docids, len(trie))
            self.min_docids = min(min_docids, self.max_docids)
            separator = torch.tensor(self._checked_separator(separator_ids), device=trie.device)
            self._separator = trie.walker.native(separator)

    def _checked_separator(self, separator_ids: list[int] | None) -> list[int]:
        if not separator_ids or self.trie.eos_token_id in separator_ids:
            raise ValueError(
                f'Mode "list" needs separator_ids without the end token {self.trie.eos_token_id}, not '
                f'{separator_ids}; make them with `encode_targets(tokenizer, ["|"], add_eos=False)[0]`.'
            )
        if self.trie.holds_token(separator_ids[0]):
            raise ValueError(
                f"The separator's first token {separator_ids[0]} occurs in a title, so that a list could be read in "
                "two ways; choose another separator."
            )
        return list(separator_ids)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """
        Masks what does not lead to a title.

        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`):
                Prompt and what each row has written so far.
            scores (`torch.FloatTensor` of shape `(rows, vocab)`):
                Logits or log-probabilities of the next token.

        Returns:
            `torch.FloatTensor` of shape `(rows, vocab)`: `scores` where the token is allowed, else `-inf`.

        Raises:
            `RuntimeError`: if a row has left the trie, or every token that it may write is masked already.
            `ValueError`: if the model's vocabulary is smaller than the trie's.
        """
        if scores.shape[1] < self.trie.vocab_size:
            raise ValueError(
                f"The model scores {scores.shape[1]} tokens and the title trie has a vocabulary of "
                f"{self.trie.vocab_size}; call `model.resize_token_embeddings(len(tokenizer))` before training."
            )
        written = self.trie.walker.native(input_ids[:, self.prompt_length :])
        on_cpu = self.trie.walker.xp is np
        if self.mode == "list":
            parent = self._parents(written)
            cursor = self._read(written) if parent is None else self._state.select(parent).advance(written[:, -1])
            self._refuse_strays(cursor.node, written)
            self._remember(written, cursor)
            masked = self._mask_lists(cursor, scores)
        elif written.shape[1] == 0:
            masked = self._mask_beginnings(scores)
            self._buffer.prepare(scores)
        else:
            if on_cpu:
                places = self._places_on_cpu(written, scores.shape[1])
            else:
                cursor = self._read(written)
                self._refuse_strays(cursor.node, written)
                places = self._places(cursor, cursor.max_children, scores.shape[1])
            allowed = scores.take(places)
            masked = self._buffer.put(scores.shape, places, allowed)
            if on_cpu and not torch.isneginf(allowed).any():
                return masked
        dead_end = "has no token left: another logits processor masks all of its own"
        self._refuse(self.trie.walker.native(masked.amax(1) == -torch.inf), written, dead_end)
        return masked

    def _refuse(self, rows: Array, written: Array, fault: str) -> None:
        """Raises for the first of the rows marked. An accelerator raises when it gets there: nobody waits for it."""
        if self.trie.walker.xp is torch:
            torch._assert_async(~rows.any(), f"A row {fault}.")
        elif rows.any():
            row = int(rows.argmax())
            raise RuntimeError(
                f"Row {row} {fault}. After a prompt of {self.prompt_length} tokens it wrote {written[row].tolist()}."
            )

    def _refuse_strays(self, node: Array, written: Array) -> None:
        fault = (
            "has left the title trie: check prompt_length, that the trie was built with the model's tokenizer, and "
            "that do_sample is not joined with beams"
        )
        self._refuse(node < 0, written, fault)

    def _parents(self, written: Array) -> np.ndarray | None:
        """
        For each row, the row of the step before that it continues; `None` if one continues none. Whether they do is a
        question that the host would wait for an accelerator to answer, so there is no step before on an accelerator.
        """
        before, length = self._written, written.shape[1] - 1
        if before is None or before.shape[1] != length:
            return None
        # Found by hash, then compared.
        row = self._hash_order[
            np.minimum(self._hashes.searchsorted(written[:, :-1] @ self._factors[:length]), len(before) - 1)
        ]
        return row if (before[row] == written[:, :-1]).all() else None

    def _remember(self, written: Array, state: ListCursor | tuple[np.ndarray, ...]) -> None:
        """Keeps the rows and where they stand for the next step, on the CPU."""
        if self.trie.walker.xp is torch:
            return
        length = written.shape[1]
        if length > len(self._factors):
            # Factors of a linear hash with overflow: powers of a large odd number.
            self._factors = np.full(2 * length, 0x5851F42D4C957F2D).cumprod()
        hashes = written @ self._factors[:length]
        self._hash_order = hashes.argsort()
        self._hashes, self._written, self._state = hashes[self._hash_order], written.copy(), state

    def _read(self, written: Array) -> TitleCursor | ListCursor:
        """Where rows stand, read from their first token on."""
        walker = self.trie.walker
        if self.mode == "single":
            cursor = TitleCursor.start(walker, len(written))
        else:
            cursor = ListCursor.start(walker, self._separator, len(written))
        for position in range(written.shape[1]):
            cursor = cursor.advance(written[:, position])
        return cursor

    def _places_on_cpu(self, written: np.ndarray, vocab_size: int) -> torch.LongTensor:
        """Places, in the flattened scores, of the tokens that lead to a child of each row's node, and of the end token
        where a row has ended; ascending."""
        walker, parent = self.trie.walker, self._parents(written)
        if parent is None:
            node = self._read(written).node
        else:
            places, child, ended = self._state
            place = parent * vocab_size + np.where(ended[parent], walker.eos_token_id, written[:, -1])
            index = np.minimum(places.searchsorted(place), len(places) - 1)
            node = np.where(places[index] == place, child[index], -1)
        self._refuse_strays(node, written)

        first, count, only_token, only_child = walker.outlook(node)
        ended = count + only_token < 0
        size = np.maximum(count, 1)
        start = size.cumsum() - size
        row = np.repeat(np.arange(len(size)), size)
        child = np.arange(len(row)) + (first - start)[row]
        # Rows without a choice: the end token again where they have ended.
        one = np.flatnonzero(count == 0)
        child[start[one]] = 0
        token = walker.token(child)
        token[start[one]] = np.where(ended, walker.eos_token_id, only_token)[one]
        child[start[one]] = np.where(ended, node, only_child)[one]
        places = row * vocab_size + token
        self._remember(written, (places, child, ended))
        return torch.from_numpy(places)

    def _places(self, cursor: TitleCursor | ListCursor, max_children: int, vocab_size: int) -> torch.LongTensor:
        """
        Places as [`TitleTrieLogitsProcessor._places_on_cpu`] gives them, in no order, some of them twice, for any
        device and without waiting for it: all rows get room for `max_children`, and what is left over points to the
        first place.
        """
        walker, xp = self.trie.walker, self.trie.walker.xp
        first, count, only_token, _ = cursor.outlook
        token = xp.where(count > 0, walker.token(xp.where(count > 0, first, 0)), only_token)
        offset = walker.arange(len(count)) * vocab_size
        places = offset + xp.where(cursor.ended, walker.eos_token_id, token)
        index = walker.arange(max_children)
        inside = index < count[:, None]
        family = offset[:, None] + walker.token(xp.where(inside, first[:, None] + index, 0))
        family = xp.where(inside, family, places[:1, None])
        return walker.tensor(xp.concatenate((places, family.reshape(-1))))

    def _mask_beginnings(self, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of rows that begin a title. The root has most of all children, so it has a mask of its own."""
        # A model may score more tokens than its tokenizer has.
        further = (0, scores.shape[1] - self.trie.vocab_size)
        return scores + torch.nn.functional.pad(self._beginning, further, value=-torch.inf).to(scores.dtype)

    def _mask_lists(self, cursor: ListCursor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of the tokens that continue lists of distinct titles."""
        walker, separator = self.trie.walker, self._separator
        eos, xp, tensor = walker.eos_token_id, walker.xp, walker.tensor
        in_separator, ended = cursor.num_separator_tokens > 0, cursor.ended
        in_title = ~in_separator & ~ended
        begins = in_title & (cursor.node == 0)
        # Rows that begin a title get the root's mask; no others have as many children.
        outlook = cursor.outlook._replace(num_children=cursor.outlook.num_children * ~begins)
        widest = outlook.num_children.max() if xp is np else max(walker.level_max_children[1:], default=0)
        places = self._places(replace(cursor, outlook=outlook), int(widest), scores.shape[1])
        masked = torch.full_like(scores, -torch.inf, memory_format=torch.contiguous_format)
        masked.put_(places, scores.take(places))
        if xp is torch or begins.any():
            masked = torch.where(tensor(begins)[:, None], self._mask_beginnings(scores), masked)

        # Below a token there must be a title that is not listed yet.
        gone = torch.where(tensor(cursor.exhausted()), -torch.inf, torch.inf).to(scores.dtype)
        masked.scatter_reduce_(1, tensor(cursor.token), gone, "amin")
        # The end token's edge completes a title; whether the list may end or go on there is a matter of its length.
        completes = in_title & (cursor.leaf >= 0) & ~cursor.leaf_listed()
        num_docids = cursor.num_docids + 1
        may_end = (completes & (num_docids >= self.min_docids)) | ended
        may_separate = (completes & (num_docids < self.max_docids)) | in_separator
        next_separator = tensor(separator[xp.where(in_separator, cursor.num_separator_tokens, 0)])[:, None]
        masked.masked_fill_(tensor(in_separator)[:, None], -torch.inf)
        masked[:, eos] = torch.where(tensor(may_end), scores[:, eos], -torch.inf)
        separator_score = torch.where(tensor(may_separate)[:, None], scores.gather(1, next_separator), -torch.inf)
        return masked.scatter_reduce_(1, next_separator, separator_score, "amax")
