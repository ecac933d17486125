"""How the beams of a docid search walked the trie: a record of every step, and the tree that it makes."""

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from .title_trie import TitleTrie

# What can become of a branch, best first: a document's title, another title, given up.
STATES = ("found", "finished", "pruned")


@dataclass(frozen=True)
class TracedBeam:
    """
    One continuation that competed at a step of the search.

    Attributes:
        step (`int`): tokens of the docid so far, this one included.
        node (`int`): node of the trie that it reached; within a query it stands for the whole prefix.
        parent (`int`): node of the beam that was continued; 0 is the root.
        token (`int`): the token that leads from the one to the other.
        score (`float`): sum of log-probabilities so far.
        state (`str`): `"live"` (goes on), `"finished"` (a complete docid among the best) or `"pruned"`.
    """

    step: int
    node: int
    parent: int
    token: int
    score: float
    state: str


class BeamTrace:
    """
    Records the docid searches that a model makes in its context, in this thread. Without one nothing is recorded and
    nothing spent; with one the search finds the same.

    Args:
        model (`PreTrainedModel`):
            Model of either kind.

    Attributes:
        beams (`list[list[TracedBeam]]`): per query, in the order searched, the continuations of every step: of all
            that the trie allowed, the best `2 * num_beams`.
        trie ([`TitleTrie`]): trie of the last search.

    Example:

    ```python
    >>> with BeamTrace(model) as trace:
    ...     found = model.retrieve(["who designed the eiffel tower?"], processor)
    >>> tree = trace.tree(0, processor, found.rows[0])
    ```"""

    def __init__(self, model: PreTrainedModel):
        self.beams: list[list[TracedBeam]] = []
        self.trie: TitleTrie | None = None
        # On the model, not in this module: as remote code, two models may bring a copy of the module each.
        self._traces = vars(model).setdefault("_beam_traces", {})

    def __enter__(self) -> Self:
        self._outer = self._traces.get(threading.get_ident())
        self._traces[threading.get_ident()] = self
        return self

    def __exit__(self, *error) -> None:
        del self._traces[threading.get_ident()]
        if self._outer is not None:
            self._traces[threading.get_ident()] = self._outer

    @staticmethod
    def of(model: PreTrainedModel) -> "BeamTrace | None":
        """The trace that records a model's searches in this thread now, if there is one."""
        return vars(model).get("_beam_traces", {}).get(threading.get_ident())

    def begin(self, trie: "TitleTrie", num_queries: int) -> list[list[TracedBeam]]:
        """Makes room for the queries of a search and returns their lists, to be given to `record`."""
        self.trie = trie
        searched = [[] for _ in range(num_queries)]
        self.beams += searched
        return searched

    @staticmethod
    def record(
        searched: list[list[TracedBeam]],
        queries: torch.LongTensor,
        step: torch.LongTensor,
        node: torch.LongTensor,
        parent: torch.LongTensor,
        token: torch.LongTensor,
        score: torch.FloatTensor,
        live: torch.BoolTensor,
        finished: torch.BoolTensor,
    ) -> None:
        """
        Adds one step of some queries.

        Args:
            searched (`list[list[TracedBeam]]`): what `begin` gave.
            queries, step (`torch.LongTensor` of shape `(n,)`): numbers of the queries, tokens of their beams.
            node, parent, token, score, live, finished (tensors of shape `(n, m)`): continuations, best first; `-inf`
                is the score of none.
        """
        columns = (part.tolist() for part in (queries, step, node, parent, token, score, live, finished))
        for query, length, *continuations in zip(*columns, strict=True):
            for child, before, last, total, goes_on, is_complete in zip(*continuations, strict=True):
                if total > float("-inf"):
                    state = "live" if goes_on else "finished" if is_complete else "pruned"
                    searched[query].append(TracedBeam(length, child, before, last, total, state))

    def tree(self, query: int, processor, rows: list[int], max_leaves: int = 14) -> dict[str, Any]:
        """
        The walk of one query's beams as a tree to look at, made of plain values. Chains without a branch are one edge.

        Args:
            query (`int`):
                Number of the query, in the order searched.
            processor ([`MintProcessor`]):
                Processor whose collection was searched.
            rows (`list[int]`):
                Rows of the documents that were found, best first.
            max_leaves (`int`, *optional*, defaults to 14):
                Ends of branches to keep: those that were found, then the most probable of more than one token.

        Returns:
            `dict`: the root, with `hidden`, the number of ends left out. Each node has `text` (what the edge to it
            writes; empty where it only closes the title), `prefix` (all that is written by then), `probability` (of
            having written this far), `state` (one of `STATES`, the best below it) and `children` (best first); an end
            has `rank` (place among `rows` from 1 on, or `None`), and `title` if it is one.
        """
        beams = {beam.node: beam for beam in self.beams[query]}
        ends = set(beams) - {beam.parent for beam in beams.values()}
        leaves = [self._leaf(beams[node], processor, rows) for node in ends]
        # What the first token decides says little of the walk, so such ends come last.
        leaves.sort(
            key=lambda leaf: (
                leaf["rank"] or len(rows) + 1,
                beams[leaf["node"]].step == 1,
                -beams[leaf["node"]].score,
                leaf["node"],
            )
        )
        kept, children = {}, {}
        for leaf in leaves[:max_leaves]:
            node = leaf.pop("node")
            kept[node] = leaf
            while node in beams and beams[node] not in children.setdefault(beams[node].parent, []):
                children[beams[node].parent].append(beams[node])
                node = beams[node].parent

        def grow(node: int, tokens: list[int], before: str, probability: float) -> dict[str, Any]:
            while node and len(children.get(node, ())) == 1:
                (only,) = children[node]
                node, tokens, probability = only.node, [*tokens, only.token], math.exp(only.score)
            # Half a character, of which the next token brings the rest, belongs to the next edge.
            text = processor.tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
            branches = [
                grow(beam.node, [*tokens, beam.token], text, math.exp(beam.score)) for beam in children.get(node, ())
            ]
            branches.sort(key=lambda branch: (STATES.index(branch["state"]), -branch["probability"]))
            state = branches[0]["state"] if branches else "pruned"
            edge = {
                "text": text[len(before) :].strip(),
                "prefix": text.strip(),
                "probability": probability,
                "state": state,
            }
            return edge | kept.get(node, {}) | {"children": branches}

        return grow(0, [], "", 1.0) | {"hidden": len(leaves[max_leaves:])}

    def _leaf(self, beam: TracedBeam, processor, rows: list[int]) -> dict[str, Any]:
        """What stands at the end of a branch: a title, or where the branch was given up."""
        if beam.state != "finished":
            return {"node": beam.node, "state": "pruned", "rank": None}
        below = self.trie.rows(beam.node)
        rank = next((rank for rank, row in enumerate(rows, start=1) if row in below), None)
        state = "finished" if rank is None else "found"
        return {"node": beam.node, "state": state, "rank": rank, "title": processor.document(below[0])[0]}


__all__ = ["STATES", "BeamTrace", "TracedBeam"]
