"""Docid search: beam search over the title trie that prefills each prompt once and never leaves the collection."""

from dataclasses import dataclass, fields

import torch
from transformers import PreTrainedModel

from .beam_trace import BeamTrace
from .docid_decoders import RowDecoder, TreeDecoder, takes_tree_attention
from .docid_prefixes import ScoredPrefixes, check_prompts
from .title_trie import TitleTrie


@dataclass
class _Beams:
    """
    Open beams, ordered by query, one row each.

    `query` (n,); `prefix` (n,): number in [`ScoredPrefixes`], or -1 if not expanded yet; `parent` (n,): number of the
    prefix before the last token; `node` (n,): of the trie; `score` (n,): sum of log-probabilities; `tokens` (n,
    max_depth): path so far.
    """

    query: torch.LongTensor
    prefix: torch.LongTensor
    parent: torch.LongTensor
    node: torch.LongTensor
    score: torch.FloatTensor
    tokens: torch.LongTensor

    def __getitem__(self, rows) -> "_Beams":
        return _Beams(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: list["_Beams"]) -> "_Beams":
        """All of them in one, ordered by query."""
        joined = _Beams(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(_Beams)))
        return joined[joined.query.argsort(stable=True)]


class DocidBeamSearch:
    """
    Beam search over the trie by the rules of `generate` with `early_stopping="never"` (MINT, SIGIR 2025: docids are
    generated): of all continuations of a query's beams, finished ones among the best `num_beams` are kept, and the
    best `num_beams` that are not finished go on. A beam that can no longer enter the wanted docids is dropped; nothing
    that could enter them ranks behind it, so this changes no result. A [`BeamTrace`] around it records the steps.

    Args:
        prefixes ([`ScoredPrefixes`]):
            The empty prefix of each query.
        num_beams, num_docids, length_penalty:
            As for [`search_docids`].

    Attributes:
        leaf, score (tensors of shape `(batch_size, num_docids)`): best finished docids, best first; -1 and `-inf`
            where there is none.
        tokens (`torch.LongTensor` of shape `(batch_size, num_docids, max_depth)`): their tokens.
    """

    def __init__(self, prefixes: ScoredPrefixes, num_beams: int, num_docids: int, length_penalty: float = 0.0):
        self.prefixes, self.trie = prefixes, prefixes.trie
        self.num_beams, self.length_penalty = num_beams, length_penalty
        roots = torch.arange(len(prefixes.handle), device=self.trie.device)
        shape = (len(roots), num_docids)
        self.leaf = torch.full(shape, -1, device=roots.device)
        self.score = torch.full(shape, float("-inf"), device=roots.device)
        self.tokens = torch.zeros(*shape, self.trie.max_depth, dtype=torch.long, device=roots.device)
        # Tokens that the beams of each query have: queries go on at their own pace.
        self.length = torch.zeros_like(roots)
        self.trace = BeamTrace.of(prefixes.decoder.model)
        self.traced = self.trace and self.trace.begin(self.trie, len(roots))

        ready = _Beams(
            query=roots,
            prefix=roots,
            parent=roots,
            node=torch.zeros_like(roots),
            score=torch.zeros(len(roots), device=roots.device),
            tokens=roots.new_zeros(len(roots), self.trie.max_depth),
        )
        while len(ready.query):
            waiting = []
            while len(ready.query):
                kept = self._compete(ready)
                # A query whose beams are all expanded already, on forced continuations, goes on at once.
                waits = torch.isin(kept.query, kept.query[kept.prefix < 0])
                waiting.append(kept[waits])
                ready = kept[~waits]
            ready = _Beams.join(waiting)
            new = ready.prefix < 0
            if new.any():
                ready.prefix[new], _ = prefixes.expand(
                    ready.parent[new], _last(ready, self.length)[new], ready.node[new]
                )

    def _compete(self, beams: _Beams) -> _Beams:
        """One step of the beams of some queries: keeps finished docids and returns the beams that go on."""
        index, token, node, log_prob, prefix = self.prefixes.children(beams.prefix)
        score = beams.score[index] + log_prob
        queries, group = beams.query[index].unique_consecutive(return_inverse=True)
        first = torch.searchsorted(group, torch.arange(len(queries), device=group.device))
        place = torch.arange(len(group), device=group.device) - first[group]
        table = torch.full((len(queries), int(place.max()) + 1), float("-inf"), device=score.device)
        table[group, place] = score
        # Each beam has one finished continuation at most, so the best unfinished ones are among twice as many.
        score, place = table.topk(min(2 * self.num_beams, table.shape[1]))
        real = score > float("-inf")
        child = torch.where(real, first[:, None] + place, 0)

        self.length[queries] += 1
        length = self.length[queries, None]
        tokens = beams.tokens[index[child]].scatter(
            2, (length[:, :, None] - 1).expand(*child.shape, 1), token[child][:, :, None]
        )
        finished = real & self.trie.is_leaf(node[child].flatten()).view_as(child)
        final = score / length**self.length_penalty
        self._keep_best(
            queries,
            final.masked_fill(~finished, float("-inf"))[:, : self.num_beams],
            node[child][:, : self.num_beams],
            tokens[:, : self.num_beams],
        )

        # The best that can become of a beam: no further loss, and the length that is kindest to it.
        kindest = self.trie.max_depth if self.length_penalty > 0 else length + 1
        open_ = real & ~finished & (score / kindest**self.length_penalty > self.score[queries, -1:])
        open_ &= (real & ~finished).cumsum(1) <= self.num_beams
        if self.trace is not None:
            kept = finished & (torch.arange(finished.shape[1], device=finished.device) < self.num_beams)
            walked = (node[child], beams.node[index[child]], token[child])
            self.trace.record(self.traced, queries, length[:, 0], *walked, score, open_, kept)
        row, column = open_.nonzero(as_tuple=True)
        child = child[row, column]
        return _Beams(
            query=queries[row],
            prefix=prefix[child],
            parent=beams.prefix[index[child]],
            node=node[child],
            score=score[row, column],
            tokens=tokens[row, column],
        )

    def _keep_best(self, queries, score, leaf, tokens) -> None:
        """Merges newly finished docids (queries, n) into the best ones."""
        merged = torch.cat([self.score[queries], score], 1)
        best, place = merged.topk(self.score.shape[1])
        self.score[queries] = best
        self.leaf[queries] = torch.cat([self.leaf[queries], leaf], 1).gather(1, place)
        tokens = torch.cat([self.tokens[queries], tokens], 1)
        self.tokens[queries] = tokens.gather(1, place[:, :, None].expand(-1, -1, tokens.shape[2]))

    def found(self) -> list[list[tuple[int, float]]]:
        """Per query (leaf, score), best first."""
        return [
            [(leaf, score) for leaf, score in zip(leaves, scores, strict=True) if score > float("-inf")]
            for leaves, scores in zip(self.leaf.tolist(), self.score.tolist(), strict=True)
        ]


def _last(beams: _Beams, length: torch.LongTensor) -> torch.LongTensor:
    """Last token of each beam."""
    return beams.tokens.gather(1, length[beams.query, None] - 1)[:, 0]


@torch.no_grad()
def search_docids(
    model: PreTrainedModel,
    trie: TitleTrie,
    input_ids: torch.LongTensor,
    attention_mask: torch.LongTensor,
    *,
    num_beams: int = 10,
    num_docids: int = 10,
    scoring: str = "vocabulary",
    length_penalty: float = 0.0,
) -> list[list[tuple[int, float]]]:
    """
    The best docids of each prompt by beam search under the trie (MINT, SIGIR 2025: docids are generated).

    A docid's score is the sum of its tokens' log-probabilities, end token included, divided by their number to the
    power of `length_penalty`. Docids and scores are those of `generate` with [`TitleTrieLogitsProcessor`],
    `early_stopping="never"`, `max_new_tokens=trie.max_depth` and the same beams and penalty, less the rows that
    `generate` fills up with where beams outnumber titles.

    Args:
        model (`PreTrainedModel`):
            Model of either kind, such as [`MintForConditionalGeneration`].
        trie ([`TitleTrie`]):
            Titles that may come out.
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            Prompts; padded on the left for a decoder-only backbone.
        attention_mask (`torch.LongTensor` of shape `(batch_size, length)`):
            1 for tokens, 0 for padding.
        num_beams (`int`, *optional*, defaults to 10):
            Open beams per query.
        num_docids (`int`, *optional*, defaults to 10):
            Docids wanted per query, at most `num_beams`.
        scoring (`str`, *optional*, defaults to `"vocabulary"`):
            `"vocabulary"`: log-probabilities over the whole vocabulary; `"trie"`: renormalised over the tokens that
            the trie allows.
        length_penalty (`float`, *optional*, defaults to 0.0):
            Above 0 favours long titles, below 0 short ones; 0 compares plain sums.

    Returns:
        `list[list[tuple[int, float]]]`: per query (leaf, score), best first; fewer than `num_docids` where the beams
        reached fewer (always when the trie holds fewer).

    Raises:
        ValueError: if `scoring` is unknown, `num_docids` is not between 1 and `num_beams`, or prompts of a
            decoder-only backbone are padded on the right.
    """
    check_prompts(model, attention_mask, scoring)
    if not 1 <= num_docids <= num_beams:
        raise ValueError(f"`num_docids` is {num_docids}; it must be between 1 and `num_beams` ({num_beams}).")
    decoder = (TreeDecoder if takes_tree_attention(model) else RowDecoder)(model, input_ids, attention_mask)
    prefixes = ScoredPrefixes(decoder, trie.to(input_ids.device), scoring)
    return DocidBeamSearch(prefixes, num_beams, num_docids, length_penalty).found()


__all__ = ["DocidBeamSearch", "search_docids"]
