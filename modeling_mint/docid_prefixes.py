"""Prefixes of docids that a model has scored the continuations of: what beam search and exact search walk over."""

import torch
from transformers import PreTrainedModel

from .docid_decoders import ReplayDecoder, RowDecoder, TreeDecoder
from .title_trie import TitleTrie

# Floats of log-probabilities over the whole vocabulary that are worked on at a time (64 MB).
_CHUNK_FLOATS = 1 << 24


def check_prompts(model: PreTrainedModel, attention_mask: torch.LongTensor, scoring: str) -> None:
    """Raises `ValueError` for prompts padded on the wrong side and for an unknown `scoring`."""
    if scoring not in ("vocabulary", "trie"):
        raise ValueError(f"`scoring` is {scoring!r}; it must be 'vocabulary' or 'trie'.")
    if not model.config.is_encoder_decoder and not attention_mask[:, -1].all():
        raise ValueError(
            "A decoder-only backbone needs its prompts padded on the left: the docid follows the last column."
        )


class ScoredPrefixes:
    """
    Table of prefixes whose continuations are scored, known by their number; the first `batch_size` are the empty
    prefixes, one per query.

    Expanding a prefix expands the forced continuation behind it as well (only children), as far as the decoder plans
    to, in the same forward pass.

    Args:
        decoder ([`TreeDecoder`], [`RowDecoder`] or [`ReplayDecoder`]):
            Runs the prefixes.
        trie ([`TitleTrie`]):
            Titles that may come out.
        scoring (`str`):
            `"vocabulary"`: log-probabilities over the whole vocabulary; `"trie"`: renormalised over the tokens that
            the trie allows, so that a forced token costs nothing.
    """

    def __init__(self, decoder: TreeDecoder | RowDecoder | ReplayDecoder, trie: TitleTrie, scoring: str):
        self.decoder, self.trie, self.scoring = decoder, trie, scoring
        roots = torch.arange(len(decoder.logits), device=trie.device)
        self.handle = roots.new_empty(0)
        self.first_child = roots.new_zeros(1)
        self.child_token, self.child_node, self.child_prefix = (roots.new_empty(0) for _ in range(3))
        self.child_log_prob = torch.empty(0, device=trie.device)
        self._record(torch.zeros_like(roots), roots, torch.full_like(roots, -1), decoder.logits, roots)

    def children(self, prefixes: torch.LongTensor) -> tuple[torch.LongTensor, ...]:
        """
        Lists the children of prefixes.

        Args:
            prefixes (`torch.LongTensor` of shape `(n,)`):
                Numbers of prefixes.

        Returns:
            `tuple` of tensors of shape `(m,)`, all children together: index into `prefixes`, ascending; token; node of
            the trie; log-probability; number as a prefix, or -1 if it is not expanded.
        """
        first = self.first_child[prefixes]
        count = self.first_child[prefixes + 1] - first
        index = torch.repeat_interleave(torch.arange(len(prefixes), device=first.device), count)
        child = torch.arange(len(index), device=first.device) + (first - count.cumsum(0) + count)[index]
        return (
            index,
            self.child_token[child],
            self.child_node[child],
            self.child_log_prob[child],
            self.child_prefix[child],
        )

    def expand(
        self, parents: torch.LongTensor, tokens: torch.LongTensor, nodes: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        """
        Scores the continuations of new prefixes.

        Args:
            parents (`torch.LongTensor` of shape `(n,)`):
                Prefixes to continue, ordered by query.
            tokens, nodes (`torch.LongTensor` of shape `(n,)`):
                The token that continues each, and the node of the trie that it leads to (no leaf).

        Returns:
            `tuple` of `torch.LongTensor` of shape `(n,)`: numbers of the new prefixes, and how many prefixes each run
            of forced continuations holds, the new one included.
        """
        forced, num_forced, end = self.trie.forced(nodes)
        to_leaf = self.trie.is_leaf(end)
        # Nothing follows the end token, so it is not run.
        lengths = 1 + num_forced - to_leaf.long()
        # Forced to the end, a title costs nothing more where the trie's alternatives are all that counts.
        run = ~to_leaf if self.scoring == "trie" else torch.ones_like(to_leaf)
        if run.any():
            lengths[run] = self.decoder.plan(self.handle[parents[run]], lengths[run])
        runs = torch.cat([tokens[:, None], forced.clamp(min=0)], 1)[:, : int(lengths.max())]
        path = [nodes]
        for token in runs.unbind(1)[1:]:
            path.append(self.trie.step(path[-1], token))
        inside = torch.arange(runs.shape[1], device=runs.device) < lengths[:, None]
        path = torch.stack(path, 1)[inside]

        first = len(self.handle) + lengths.cumsum(0) - lengths
        following = len(self.handle) + 1 + torch.arange(len(path), device=path.device)
        following[lengths.cumsum(0) - 1] = -1
        scored = run.repeat_interleave(lengths)
        handle = torch.full_like(path, -1)
        logits, row = None, torch.full_like(path, -1)
        if run.any():
            handle[scored], logits, row[scored] = self.decoder.advance(
                self.handle[parents], runs, torch.where(run, lengths, 0)
            )
        self._record(path, handle, following, logits, row)
        return first, lengths

    def _record(self, nodes, handle, following, logits, logits_row) -> None:
        """Appends prefixes and their children; `logits_row` is -1 for a prefix whose only child costs nothing."""
        index, token, child = self.trie.children(nodes)
        log_prob = torch.zeros(len(index), device=nodes.device)
        scored = logits_row[index] >= 0
        if logits is not None:
            rows, index_row = logits_row[index[scored]].unique_consecutive(return_inverse=True)
            log_prob[scored] = self._log_probs(logits, rows, index_row, token[scored])
        count = torch.bincount(index, minlength=len(nodes))
        self.handle = torch.cat([self.handle, handle])
        self.first_child = torch.cat([self.first_child, self.first_child[-1] + count.cumsum(0)])
        self.child_token = torch.cat([self.child_token, token])
        self.child_node = torch.cat([self.child_node, child])
        self.child_log_prob = torch.cat([self.child_log_prob, log_prob])
        self.child_prefix = torch.cat([self.child_prefix, following[index]])

    def _log_probs(self, logits, rows, index, token) -> torch.FloatTensor:
        """Log-probabilities (m,) of tokens (m,), each behind the prefix whose logits are `logits[rows[index]]`."""
        score = logits[rows[index], token].float()
        if self.scoring == "vocabulary":
            size = max(1, _CHUNK_FLOATS // logits.shape[1])
            norm = torch.cat([logits[some].float().logsumexp(1) for some in rows.split(size)])
        else:
            best = torch.full((len(rows),), float("-inf"), device=score.device)
            best = best.scatter_reduce(0, index, score, "amax")
            norm = best + torch.zeros_like(best).index_add(0, index, (score - best[index]).exp()).log()
        return score - norm[index]


__all__ = ["ScoredPrefixes", "check_prompts"]
