"""The title trie as a logits processor: generation that cannot leave the collection."""

import torch
from transformers import LogitsProcessor

from .title_trie import TitleTrie

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
        if bool((self.trie.edge_token.long() == separator_ids[0]).any()):
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
        row, token = self._allowed_in_list(written) if self.mode == "list" else self._allowed_in_title(written)
        allowed = scores[row, token]
        best = torch.full_like(scores[:, 0], -torch.inf).scatter_reduce(0, row, allowed, "amax")
        self._refuse(torch.isneginf(best), written, "has no token left: another logits processor masks all of its own")
        masked = torch.full_like(scores, -torch.inf)
        masked[row, token] = allowed
        return masked

    def _refuse(self, rows: torch.BoolTensor, written: torch.LongTensor, fault: str) -> None:
        """Raises for the first of the rows marked."""
        if rows.any():
            row = int(rows.nonzero()[0])
            raise RuntimeError(
                f"Row {row} {fault}. After a prompt of {self.prompt_length} tokens it wrote {written[row].tolist()}."
            )

    def _refuse_strays(self, node: torch.LongTensor, written: torch.LongTensor) -> None:
        self._refuse(
            node < 0,
            written,
            "has left the title trie: check prompt_length, that the trie was built with the model's tokenizer, and "
            "that do_sample is not joined with beams",
        )

    def _allowed_in_title(self, written: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Allowed (row, token) pairs where each row writes one title."""
        node = self.trie.walk(written)
        self._refuse_strays(node, written)
        row, token, _ = self.trie.children(node)
        ended = self.trie.is_leaf(node).nonzero().squeeze(1)
        return torch.cat([row, ended]), torch.cat([token, torch.full_like(ended, self.trie.eos_token_id)])

    def _allowed_in_list(self, written: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Allowed (row, token) pairs where each row writes a list of distinct titles."""
        trie, separator = self.trie, self.separator
        node, num_separator_tokens, num_docids, visited = self._read_lists(written)
        self._refuse_strays(node, written)

        in_separator = (num_separator_tokens > 0).nonzero().squeeze(1)
        ended = trie.is_leaf(node).nonzero().squeeze(1)
        row, token, child = trie.children(node)
        # Below a child there must be a leaf that no title listed so far has taken.
        open_child = self._count_visits(visited, row, child) < trie.num_leaves_below(child)
        open_child = open_child & (num_separator_tokens[row] == 0)
        row, token = row[open_child], token[open_child]

        # The end token's edge completes a title; whether the list may end or go on there is a matter of its length.
        completes = token == trie.eos_token_id
        completed = row[completes]
        length = num_docids[completed] + 1
        may_end = torch.cat([completed[length >= self.min_docids], ended])
        may_go_on = completed[length < self.max_docids]
        return (
            torch.cat([row[~completes], may_end, may_go_on, in_separator]),
            torch.cat(
                [
                    token[~completes],
                    torch.full_like(may_end, trie.eos_token_id),
                    separator[0].expand(len(may_go_on)),
                    separator[num_separator_tokens[in_separator]],
                ]
            ),
        )

    def _read_lists(
        self, written: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.LongTensor, torch.LongTensor, torch.LongTensor]:
        """
        Reads lists token by token. For each row: the node of the title being written (-1 outside the trie), how many
        tokens of a separator are out, how many titles are complete, and, per position, the node that a complete title
        passed there, its leaf included, or -1.
        """
        trie, separator = self.trie, self.separator
        node = torch.zeros(len(written), dtype=torch.long, device=written.device)
        num_separator_tokens, num_docids = torch.zeros_like(node), torch.zeros_like(node)
        passed, title_index = torch.full_like(written, -1), torch.zeros_like(written)
        for position, token in enumerate(written.unbind(1)):
            leaf = trie.step(node, torch.full_like(node, trie.eos_token_id))
            starts = (num_separator_tokens == 0) & (leaf >= 0) & (token == separator[0])
            in_separator = num_separator_tokens > 0
            follows = starts | (in_separator & (token == separator[num_separator_tokens]))
            inside = torch.where(trie.is_leaf(node), node, trie.step(node, token))
            node = torch.where(follows, node, torch.where(in_separator, -1, inside))

            passed[:, position] = torch.where(starts, leaf, torch.where(follows, -1, node))
            title_index[:, position] = num_docids
            num_separator_tokens = torch.where(follows, num_separator_tokens + 1, 0)
            closed = num_separator_tokens == len(separator)
            node = torch.where(closed, 0, node)
            num_docids = num_docids + closed
            num_separator_tokens = torch.where(closed, 0, num_separator_tokens)
        return node, num_separator_tokens, num_docids, torch.where(title_index < num_docids[:, None], passed, -1)

    def _count_visits(
        self, visited: torch.LongTensor, row: torch.LongTensor, child: torch.LongTensor
    ) -> torch.LongTensor:
        """Counts how many complete titles of its row have passed each child."""
        num_nodes = len(self.trie.edge_token) + 1
        visit_row, position = (visited >= 0).nonzero(as_tuple=True)
        visits = (visit_row * num_nodes + visited[visit_row, position]).sort().values
        wanted = row * num_nodes + child
        return torch.searchsorted(visits, wanted, right=True) - torch.searchsorted(visits, wanted)
