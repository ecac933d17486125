"""MINT's inference strategies: how RAG and GAR together answer a question (`mint.md`, Inference)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers.generation.streamers import BaseStreamer

from .beam_trace import BeamTrace
from .generation_mint import RetrievalOutput, TextOutput
from .query_likelihood import rank_by_reading, read_found
from .step_watch import watch_steps
from .title_trie import TitleTrie

STRATEGIES = ("rag", "gar", "ensemble", "cascade")
FUSIONS = ("softmax", "reciprocal_rank")
# The usual constant of reciprocal rank fusion (Cormack et al., SIGIR 2009).
_RECIPROCAL_RANK_OFFSET = 60


@dataclass
class StrategyOutput:
    """
    Answers and documents for a list of queries.

    Attributes:
        answers (`list[str]`): one answer per query.
        scores (`list[float]`): confidence of the answer in [0, 1]: its length-normalised probability, tempered by the
            `answer_temperature` of the model that wrote it.
        rows (`list[list[int]]`): rows of the documents per query, best first.
        document_scores (`list[list[float]]`): probability of each document among those returned; sums to 1 per query.
    """

    answers: list[str]
    scores: list[float]
    rows: list[list[int]]
    document_scores: list[list[float]]


def answer_confidence(log_probs: list[float], temperature: float) -> list[float]:
    """`exp(log_prob / temperature)` of each mean log-probability: a confidence in [0, 1]."""
    return [math.exp(min(0.0, log_prob) / temperature) for log_prob in log_probs]


def _probabilities(scores: list[float]) -> list[float]:
    return torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()


def fuse(
    rankings: list[tuple[list[int], list[float]]], k: int, fusion: str = "softmax"
) -> tuple[list[int], list[float]]:
    """
    Merges the rankings of one query.

    The scores of two models are not comparable as they are (models and prompts differ), so each ranking is turned into
    probabilities by a softmax over its own top k, and those are summed; or, with `"reciprocal_rank"`, only ranks
    count.

    Args:
        rankings (`list[tuple[list[int], list[float]]]`):
            (rows, scores) per model, best first; scores are sums of log-probabilities.
        k (`int`):
            Documents to return.
        fusion (`str`, *optional*, defaults to `"softmax"`):
            `"softmax"` or `"reciprocal_rank"`.

    Returns:
        `tuple[list[int], list[float]]`: rows, best first, and their fused scores, which sum to 1.

    Raises:
        ValueError: if `fusion` is unknown.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"`fusion` is {fusion!r}; it must be one of {FUSIONS}.")
    total: dict[int, float] = {}
    for rows, scores in rankings:
        if fusion == "softmax":
            shares = _probabilities(scores)
        else:
            shares = [1 / (_RECIPROCAL_RANK_OFFSET + rank) for rank in range(1, len(rows) + 1)]
        for row, share in zip(rows, shares, strict=True):
            total[row] = total.get(row, 0.0) + share
    best = sorted(total.items(), key=lambda item: -item[1])[:k]
    norm = sum(share for _, share in best)
    return [row for row, _ in best], [share / norm for _, share in best]


class StrategyInference:
    """
    Answers a list of queries by any of MINT's strategies (`mint.md`, Inference; `cascade` is our addition):

    - `"rag"`: RAG retrieves, RAG answers from the documents;
    - `"gar"`: GAR answers, GAR retrieves with its own answer;
    - `"ensemble"`: both; rankings are fused, the more confident answer wins;
    - `"cascade"`: GAR's answer guides GAR's retriever, RAG answers from the documents so found.

    What two strategies share is computed once.

    Args:
        queries (`list[str]`):
            Queries.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        rag, gar ([`MintForConditionalGeneration`], *optional*):
            The models that the strategy needs. One object may be both, with an adapter for each role
            (`load_roles`): it takes the role that is its turn.
        k (`int`, *optional*, defaults to 5):
            Documents to return per query.
        num_beams (`int`, *optional*):
            Beams of the docid search; defaults to `max(k, 10)`.
        num_documents (`int`, *optional*, defaults to 2):
            Documents that RAG's generator reads.
        fusion (`str`, *optional*, defaults to `"softmax"`):
            How `"ensemble"` merges rankings, see [`fuse`].
        query_likelihood_weight (`float`, *optional*):
            How much it counts in the ranking of the documents found, one per beam, whether a text is one to be asked
            the query, see [`~modeling_mint.query_likelihood.rank_by_reading`]; the best `k` are returned. 0.0 reads
            nothing. Defaults to each model's own, which was calibrated.
        trie ([`TitleTrie`], *optional*):
            Part of the processor's trie to retrieve from, such as the documents of a topic
            (`processor.trie.subset(rows)`).
        trace (`bool`, *optional*, defaults to `False`):
            Record how the beams of each retrieval walked the trie.
        streamers (`Mapping[str, BaseStreamer]`, *optional*):
            By role, a streamer of transformers that is given the tokens of that model's answer as they come. For one
            query at a time.
        on_step (`Callable[[], None]`, *optional*):
            Called before every forward pass of a model; what it raises (such as `TimeoutError`) ends the work.
        max_new_tokens, batch_size, show_progress:
            As for `MintForConditionalGeneration.answer`.

    Attributes:
        answers, documents (`dict[str, TextOutput]`, `dict[str, RetrievalOutput]`):
            What each role's model has made so far.
        traces (`dict[str, BeamTrace]`):
            With `trace`, the retrieval of each role.
        seconds (`dict[str, float]`):
            Wall time spent on `"retrieval"` and on `"answer"` so far.

    Raises:
        ValueError: if a model writes docids of another granularity than the collection's, or
            `query_likelihood_weight` is below 0.
    """

    def __init__(
        self,
        queries: list[str],
        processor,
        *,
        rag=None,
        gar=None,
        k: int = 5,
        num_beams: int | None = None,
        num_documents: int = 2,
        fusion: str = "softmax",
        query_likelihood_weight: float | None = None,
        trie: TitleTrie | None = None,
        trace: bool = False,
        streamers: Mapping[str, BaseStreamer] | None = None,
        on_step: Callable[[], None] | None = None,
        max_new_tokens: int = 24,
        batch_size: int = 16,
        show_progress: bool = False,
    ):
        self.queries = queries
        self.processor = processor
        self.models = {"rag": rag, "gar": gar}
        for model in filter(None, self.models.values()):
            processor.check_granularity(model.config)
        if query_likelihood_weight is not None and query_likelihood_weight < 0:
            raise ValueError(f"`query_likelihood_weight` is {query_likelihood_weight!r}; it must be at least 0.")
        self.num_documents = num_documents
        self.fusion = fusion
        self.query_likelihood_weight = query_likelihood_weight
        self.trace = trace
        self.streamers = streamers or {}
        self.on_step = on_step
        self.batching = {"batch_size": batch_size, "show_progress": show_progress}
        self.search = {"k": k, "num_beams": num_beams, "trie": trie} | self.batching
        self.writing = {"max_new_tokens": max_new_tokens} | self.batching
        self.answers: dict[str, TextOutput] = {}
        self.documents: dict[str, RetrievalOutput] = {}
        self.traces: dict[str, BeamTrace] = {}
        self.seconds = {"retrieval": 0.0, "answer": 0.0}

    def _model(self, role: str):
        if self.models[role] is None:
            raise ValueError(f"This strategy needs a {role.upper()} model: give `{role}_model`, or its adapter.")
        self.models[role].set_role(role)
        return self.models[role]

    @cached_property
    def rag_documents(self) -> RetrievalOutput:
        """`R(q)` by RAG."""
        return self._retrieve("rag")

    @cached_property
    def gar_answers(self) -> TextOutput:
        """GAR's closed-book answers."""
        return self._answer("gar")

    @cached_property
    def gar_documents(self) -> RetrievalOutput:
        """Documents that GAR retrieves with its own answers."""
        return self._retrieve("gar", self.gar_answers.texts)

    @cached_property
    def rag_answers(self) -> TextOutput:
        """RAG's answers from RAG's documents."""
        return self._answer("rag", self.rag_documents)

    @cached_property
    def cascade_answers(self) -> TextOutput:
        """RAG's answers from GAR's documents."""
        return self._answer("rag", self.gar_documents)

    def _retrieve(self, role: str, answers: list[str] | None = None) -> RetrievalOutput:
        model = self._model(role)
        weight = self.query_likelihood_weight
        if weight is None:
            weight = model.config.query_likelihood_weight
        k, num_beams = self.search["k"], self.search["num_beams"]
        search = self.search
        if weight and k > 0:  # `retrieve` refuses the others
            # What is read is ranked anew: all that the beams hold may come among the first `k`.
            search = search | {"k": max(k, num_beams or 10)}
        with self._at_work("retrieval", model):
            if not self.trace:
                found = model.retrieve(self.queries, self.processor, answers=answers, **search)
            else:
                with BeamTrace(model) as self.traces[role]:
                    found = model.retrieve(self.queries, self.processor, answers=answers, **search)
            if weight:
                log_probs = read_found(model, self.processor, self.queries, found, **self.batching)
                found = rank_by_reading(found, log_probs, weight, k)
        self.documents[role] = found
        return found

    def _answer(self, role: str, found: RetrievalOutput | None = None) -> TextOutput:
        model, streamer = self._model(role), self.streamers.get(role)
        context = None if found is None else [rows[: self.num_documents] for rows in found.rows]
        with self._at_work("answer", model, streamer):
            answers = model.answer(self.queries, self.processor, context, **self.writing)
        if streamer is not None:
            streamer.end()
        self.answers[role] = answers
        return answers

    @contextmanager
    def _at_work(self, what: str, model, streamer: BaseStreamer | None = None) -> Iterator[None]:
        """Takes the time, and lets `on_step` and the streamer follow."""

        def step(tokens: torch.LongTensor) -> None:
            if self.on_step is not None:
                self.on_step()
            if streamer is not None:
                streamer.put(tokens)

        start = time.perf_counter()
        if self.on_step is None and streamer is None:
            yield
        else:
            with watch_steps(model, step):
                yield
        self.seconds[what] += time.perf_counter() - start

    def confidences(self, role: str, answers: TextOutput) -> list[float]:
        """Confidences in [0, 1] of the answers that the model of a role wrote."""
        return answer_confidence(answers.log_probs, self._model(role).config.answer_temperature)

    def run(self, strategy: str) -> StrategyOutput:
        """
        Args:
            strategy (`str`): `"rag"`, `"gar"`, `"ensemble"` or `"cascade"`.

        Returns:
            [`StrategyOutput`]

        Raises:
            ValueError: if the strategy is unknown or lacks a model that it needs.
        """
        if strategy == "rag":
            answers, scores = self.rag_answers.texts, self.confidences("rag", self.rag_answers)
            found = [self.rag_documents]
        elif strategy == "gar":
            answers, scores = self.gar_answers.texts, self.confidences("gar", self.gar_answers)
            found = [self.gar_documents]
        elif strategy == "cascade":
            answers, scores = self.cascade_answers.texts, self.confidences("rag", self.cascade_answers)
            found = [self.gar_documents]
        elif strategy == "ensemble":
            rag_scores = self.confidences("rag", self.rag_answers)
            gar_scores = self.confidences("gar", self.gar_answers)
            rag_wins = [rag >= gar for rag, gar in zip(rag_scores, gar_scores, strict=True)]
            pairs = zip(self.rag_answers.texts, self.gar_answers.texts, rag_wins, strict=True)
            answers = [rag if wins else gar for rag, gar, wins in pairs]
            scores = [max(pair) for pair in zip(rag_scores, gar_scores, strict=True)]
            found = [self.rag_documents, self.gar_documents]
        else:
            raise ValueError(f"`strategy` is {strategy!r}; it must be one of {STRATEGIES}.")
        k = self.search["k"]
        fused = [
            fuse([(one.rows[i], one.scores[i]) for one in found], k, self.fusion) for i in range(len(self.queries))
        ]
        return StrategyOutput(answers, scores, [rows for rows, _ in fused], [shares for _, shares in fused])


__all__ = ["FUSIONS", "STRATEGIES", "StrategyInference", "StrategyOutput", "answer_confidence", "fuse"]
