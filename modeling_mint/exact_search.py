"""Exact docid search: the provably best docids, by best-first expansion of prefixes."""

import torch
from transformers import PreTrainedModel

from .docid_decoders import ReplayDecoder, TreeDecoder, takes_tree_attention
from .docid_prefixes import ScoredPrefixes, check_prompts
from .docid_search import search_docids
from .title_trie import TitleTrie

# Prefixes of a query that are expanded in one forward pass.
_BATCH = 16


class _Search:
    """Best-first search of some queries: open prefixes of all of them in flat tensors, found docids per query."""

    def __init__(self, prefixes: ScoredPrefixes, found: list[list[tuple[int, float]]], num_docids: int, budget: int):
        self.prefixes, self.num_docids, self.budget = prefixes, num_docids, budget
        self.found = [dict(ranked) for ranked in found]
        self.num_expanded = torch.zeros(len(found), dtype=torch.long, device=prefixes.trie.device)
        self.threshold = torch.full((len(found),), float("-inf"), device=prefixes.trie.device)
        roots = torch.arange(len(found), device=prefixes.trie.device)
        self.query, self.parent, self.token, self.node = (roots.new_empty(0) for _ in range(4))
        self.score = self.threshold.new_empty(0)
        self._open_children(roots, roots, torch.zeros(len(roots), device=roots.device))
        while len(best := self._best()):
            query, parent, token, node, score = (part[best] for part in self._open())
            rest = torch.ones(len(self.query), dtype=torch.bool, device=best.device)
            rest[best] = False
            self.query, self.parent, self.token, self.node, self.score = (part[rest] for part in self._open())
            new, num_expanded = prefixes.expand(parent, token, node)
            self.num_expanded.index_add_(0, query, num_expanded)
            self._open_children(new, query, score)
        self.complete = torch.ones_like(self.num_expanded).index_fill_(0, self.query, 0).bool().tolist()

    def _open(self) -> tuple[torch.Tensor, ...]:
        return self.query, self.parent, self.token, self.node, self.score

    def _best(self) -> torch.LongTensor:
        """Drops open prefixes that cannot enter the wanted docids; places of the best of the others, by query."""
        self._drop(self.score > self.threshold[self.query])
        order = self.score.argsort(descending=True, stable=True)
        order = order[self.query[order].argsort(stable=True)]
        query = self.query[order]
        rank = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        return order[rank < (self.budget - self.num_expanded[query]).clamp(max=_BATCH)]

    def _drop(self, keep: torch.BoolTensor) -> None:
        self.query, self.parent, self.token, self.node, self.score = (part[keep] for part in self._open())

    def _open_children(self, prefix, query, score) -> None:
        """Adds the children of expanded prefixes: finished ones to the found, expanded ones' own children in turn."""
        while len(prefix):
            index, token, node, log_prob, child_prefix = self.prefixes.children(prefix)
            parent, query, score = prefix[index], query[index], score[index] + log_prob
            finished = self.prefixes.trie.is_leaf(node)
            self._keep(query[finished], node[finished], score[finished])
            promising = ~finished & (score > self.threshold[query])
            new = promising & (child_prefix < 0)
            self.query = torch.cat([self.query, query[new]])
            self.parent = torch.cat([self.parent, parent[new]])
            self.token = torch.cat([self.token, token[new]])
            self.node = torch.cat([self.node, node[new]])
            self.score = torch.cat([self.score, score[new]])
            passed = promising & (child_prefix >= 0)
            prefix, query, score = child_prefix[passed], query[passed], score[passed]

    def _keep(self, query, leaf, score) -> None:
        """Merges finished docids into the found; a docid's first score stays."""
        for one, *docid in zip(query.tolist(), leaf.tolist(), score.tolist(), strict=True):
            self.found[one].setdefault(*docid)
        for one, found in enumerate(self.found):
            best = sorted(found.items(), key=lambda docid: -docid[1])[: self.num_docids]
            self.found[one] = dict(best)
            if len(best) == self.num_docids:
                self.threshold[one] = best[-1][1]


@torch.no_grad()
def exact_search_docids(
    model: PreTrainedModel,
    trie: TitleTrie,
    input_ids: torch.LongTensor,
    attention_mask: torch.LongTensor,
    *,
    num_docids: int = 10,
    scoring: str = "vocabulary",
    budget: int = 500,
) -> tuple[list[list[tuple[int, float]]], list[bool], list[int]]:
    """
    The provably best docids of each prompt: what scoring every title of the collection would find.

    Sums of log-probabilities only fall along a path, so a prefix whose sum does not exceed the last wanted docid's can
    be dropped with all titles below it. A beam search gives the first docids, then the best open prefixes are
    expanded until none is left or the budget is used up. Only plain sums have this property: there is no length
    penalty here.

    Args:
        model, trie, input_ids, attention_mask, scoring:
            As for [`search_docids`].
        num_docids (`int`, *optional*, defaults to 10):
            Docids wanted per query.
        budget (`int`, *optional*, defaults to 500):
            Prefixes expanded per query, forced continuations included, before the search of that query gives up (the
            last forward pass may go beyond it by its forced continuations). It bounds the memory: a decoder-only
            model keeps one column of the cache for each.

    Returns:
        `tuple`: per query (leaf, score), best first, as from [`search_docids`]; per query whether they are proven to
        be the best (`False`: the budget ran out, and they are no worse than those of beam search); per query the
        number of expanded prefixes.

    Raises:
        ValueError: if `scoring` is unknown, `num_docids` or `budget` is below 1, or prompts of a decoder-only backbone
            are padded on the right.
    """
    check_prompts(model, attention_mask, scoring)
    if budget < 1:
        raise ValueError(f"`budget` is {budget}; it must be at least 1 expanded prefix per query.")
    beams = {"num_beams": max(num_docids, 10), "num_docids": num_docids, "scoring": scoring}
    found = search_docids(model, trie, input_ids, attention_mask, **beams)
    decoder = (TreeDecoder if takes_tree_attention(model) else ReplayDecoder)(model, input_ids, attention_mask)
    search = _Search(ScoredPrefixes(decoder, trie.to(input_ids.device), scoring), found, num_docids, budget)
    return [list(ranked.items()) for ranked in search.found], search.complete, search.num_expanded.tolist()


__all__ = ["exact_search_docids"]
