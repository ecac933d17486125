"""The title trie as a logits processor: generation that cannot leave the collection."""

import torch
from transformers import LogitsProcessor

from .title_cursor import ListCursor, TitleCursor
from .title_trie import TitleTrie
from .token_trie import Outlook

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
        self._begins_title = torch.zeros(trie.vocab_size, dtype=torch.bool, device=trie.device)
        self._begins_title[trie.children(root)[1]] = True
        self._cursor, self._written = None, None
        self.prompt_length = prompt_length
        self.mode = mode
        if mode == "list":
            if min_docids < 1 or (max_docids is not None and max_docids < min_docids):
                raise ValueError(f"min_docids={min_docids} must lie between 1 and max_docids={max_docids}.")
            self.max_docids = len(trie) if max_docids is None else min(max_docids, len(trie))
            self.min_docids = min(min_docids, self.max_docids)
            self.separator = torch.tensor(self._checked_separator(separator_ids), device=trie.device)

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
        written = input_ids[:, self.prompt_length :]
        cursor = self._follow(written)
        self._refuse(
            cursor.node < 0,
            written,
            "has left the title trie: check prompt_length, that the trie was built with the model's tokenizer, and "
            "that do_sample is not joined with beams",
        )
        if self.mode == "list":
            masked = self._mask_lists(cursor, scores)
        elif cursor.length == 0:
            masked = self._mask_beginnings(scores)
        else:
            places = self._places(cursor.outlook, cursor.ended, cursor.max_children, scores.shape[1])
            allowed = scores.take(places)
            masked = torch.full_like(scores, -torch.inf, memory_format=torch.contiguous_format).put_(places, allowed)
            if allowed.device.type == "cpu" and not torch.isneginf(allowed).any():
                return masked
        dead_end = "has no token left: another logits processor masks all of its own"
        self._refuse(masked.amax(1) == -torch.inf, written, dead_end)
        return masked

    def _refuse(self, rows: torch.BoolTensor, written: torch.LongTensor, fault: str) -> None:
        """Raises for the first of the rows marked. An accelerator raises when it gets there: nobody waits for it."""
        if rows.device.type != "cpu":
            torch._assert_async(~rows.any(), f"A row {fault}.")
        elif rows.any():
            row = int(rows.nonzero()[0])
            raise RuntimeError(
                f"Row {row} {fault}. After a prompt of {self.prompt_length} tokens it wrote {written[row].tolist()}."
            )

    def _follow(self, written: torch.LongTensor) -> TitleCursor | ListCursor:
        """
        The cursor of the rows: carried on from the step before where every row continues one of its rows, else read
        anew. Whether they do is a question to the device that the host would wait for, so an accelerator reads anew.
        """
        cursor, length = None, written.shape[1]
        if self._written is not None and self._written.shape[1] == length - 1 and written.device.type == "cpu":
            row = _find_rows(self._written, written[:, :-1])
            if torch.equal(self._written[row], written[:, :-1]):
                cursor = self._cursor.select(row).advance(written[:, -1])
        if cursor is None:
            cursor = (
                TitleCursor.start(self.trie, len(written))
                if self.mode == "single"
                else ListCursor.start(self.trie, self.separator, len(written))
            )
            for tokens in written.unbind(1):
                cursor = cursor.advance(tokens)
        self._cursor, self._written = cursor, written.clone()
        return cursor

    def _mask_beginnings(self, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of rows that begin a title. The root has most of all children, so it has a mask of its own."""
        # A model may score more tokens than its tokenizer has.
        begins_title = torch.nn.functional.pad(self._begins_title, (0, scores.shape[1] - self.trie.vocab_size))
        return torch.where(begins_title, scores, -torch.inf)

    def _places(
        self, outlook: Outlook, ended: torch.BoolTensor, max_children: int, vocab_size: int
    ) -> torch.LongTensor:
        """
        Places, in the flattened scores, of the tokens that lead to a child of each row's node, and of the end token
        where a row has ended; some may come twice. On an accelerator, whose count of them the host would wait for, all
        rows get room for `max_children`, and what is left over points to the first place.
        """
        trie, (first, count, only_token, _) = self.trie, outlook
        first_token = trie.token(torch.where(count > 0, first, 0))
        only_token = torch.where(ended, trie.eos_token_id, only_token)
        offset = torch.arange(len(count), device=count.device) * vocab_size
        places = offset + torch.where(count > 0, first_token, only_token)
        if max_children < 2:
            return places
        total = count.sum()
        if count.device.type == "cpu":
            size = int(total)
        else:
            size = len(count) * max_children
            count = torch.cat([count[:-1], count[-1:] + size - total])
        row = torch.repeat_interleave(count, output_size=size)
        index = torch.arange(size, device=count.device)
        # The i-th child overall is the i-th node after `first`, less the children of the rows before.
        child = index + (first - count.cumsum(0) + count)[row]
        if count.device.type == "cpu":
            return torch.cat([places, offset[row] + trie.token(child)])
        family = offset[row] + trie.token(torch.where(index < total, child, 0))
        return torch.cat([places, torch.where(index < total, family, places[0])])

    def _mask_lists(self, cursor: ListCursor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of the tokens that continue lists of distinct titles."""
        eos, separator = self.trie.eos_token_id, self.separator
        in_separator = cursor.num_separator_tokens > 0
        ended = cursor.ended
        in_title = ~in_separator & ~ended
        begins = in_title & (cursor.node == 0)
        # Rows that begin a title get the root's mask; no others have as many children.
        outlook = cursor.outlook._replace(num_children=cursor.outlook.num_children * ~begins)
        max_children = max(self.trie.level_max_children[1:], default=0)
        places = self._places(outlook, ended | begins | (cursor.node < 0), max_children, scores.shape[1])
        masked = torch.full_like(scores, -torch.inf).put_(places, scores.take(places))
        masked = torch.where(begins[:, None], self._mask_beginnings(scores), masked)

        # Below a token there must be a title that is not listed yet.
        gone = torch.where(cursor.exhausted(), -torch.inf, torch.inf).to(scores.dtype)
        masked.scatter_reduce_(1, cursor.token, gone, "amin")
        # The end token's edge completes a title; whether the list may end or go on there is a matter of its length.
        completes = in_title & (cursor.leaf >= 0) & ~cursor.leaf_listed()
        num_docids = cursor.num_docids + 1
        may_end = (completes & (num_docids >= self.min_docids)) | ended
        may_go_on = completes & (num_docids < self.max_docids)
        separates = separator[torch.where(in_separator, cursor.num_separator_tokens, 0)]
        masked.masked_fill_(in_separator[:, None], -torch.inf)
        masked[:, eos] = torch.where(may_end, scores[:, eos], -torch.inf)
        may_separate = in_separator | may_go_on
        separates_score = torch.where(may_separate, scores.gather(1, separates[:, None]).squeeze(1), -torch.inf)
        return masked.scatter_reduce_(1, separates[:, None], separates_score[:, None], "amax")


def _find_rows(known: torch.LongTensor, wanted: torch.LongTensor) -> torch.LongTensor:
    """For each row of `wanted` the row of `known` that should be equal to it, found by hashes: to be verified."""
    # Factors of a linear hash with overflow: powers of a large odd number.
    factors = torch.full_like(known[0], 0x5851F42D4C957F2D).cumprod(0)
    hashes, order = (known @ factors).sort()
    return order[torch.searchsorted(hashes, wanted @ factors).clamp(max=len(order) - 1)]
