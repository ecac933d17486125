"""MINT as a transformers pipeline: question in, answer and ranked documents out."""

import os

from transformers import Pipeline

from .modeling_mint import MintForConditionalGeneration
from .processing_mint import MintProcessor
from .strategies_mint import StrategyInference, fuse

_CALL_PARAMETERS = (
    "strategy",
    "top_k",
    "num_beams",
    "num_documents",
    "fusion",
    "query_likelihood_weight",
    "threshold",
    "trie",
    "details",
    "streamers",
    "on_step",
    "max_new_tokens",
    "batch_size",
    "show_progress",
)


class MintPipeline(Pipeline):
    """
    Question answering with retrieval, by strategy `"rag"`, `"gar"`, `"ensemble"` or `"cascade"` (see
    [`StrategyInference`]).

    Args:
        model ([`MintForConditionalGeneration`]):
            A MINT model of either role, or the base that `adapters` belong to.
        gar_model, rag_model ([`MintForConditionalGeneration`] or `str`, *optional*):
            The partner of `model`, as a model or as the folder or Hub id to load it from; needed by `"ensemble"` and
            `"cascade"`.
        adapters (`dict[str, str]`, *optional*):
            Folder or Hub id of the adapter by role, `"rag"` or `"gar"`. They are put onto `model`, so that one base
            in memory plays both roles; without them the model's weights are its own.
        strategy (`str`, *optional*):
            Defaults to the role of `model`, with `adapters` to the first one's.
        top_k (`int`, *optional*, defaults to 5):
            Documents to return.
        num_beams (`int`, *optional*):
            Beams of the docid search; defaults to `max(top_k, 10)`.
        num_documents (`int`, *optional*, defaults to 2):
            Documents that RAG's generator reads.
        fusion (`str`, *optional*, defaults to `"softmax"`):
            How `"ensemble"` merges rankings.
        query_likelihood_weight (`float`, *optional*):
            How much the texts of the documents found count in their ranking, see [`StrategyInference`].
        threshold (`float`, *optional*, defaults to 0.0):
            An answer with a lower score is an abstention: `answer` is the empty string, `abstained` is true.
        trie ([`TitleTrie`], *optional*):
            Part of the collection to retrieve from: `ask.processor.trie.subset(rows)`.
        details (`bool`, *optional*, defaults to `False`):
            Tell how the answer came about. Questions are then taken one by one.
        streamers, on_step:
            To follow the models while they work, see [`StrategyInference`].

    Returns (on call):
        `dict` per question: `answer` (`str`), `score` (`float` in [0, 1]), `abstained` (`bool`), `documents`
        (list of `title`, `score` (probability among those returned), `text`, `row`), `strategy` (`str`). With
        `details` also `details`: `seconds` (wall time of `retrieval` and `answer`), and by the role of each model that
        took part `answers` (`answer`, `score`), `documents` (as above) and `trees` ([`BeamTrace.tree`]).

    Example:

    ```python
    >>> from transformers import pipeline
    >>> import modeling_mint

    >>> ask = pipeline("mint", model="outputs/mint-rag", gar_model="outputs/mint-gar", trust_remote_code=True)
    >>> ask("Who designed the Eiffel Tower?", strategy="cascade")["answer"]

    >>> adapters = {"rag": "outputs/mint-rag-adapter", "gar": "outputs/mint-gar-adapter"}
    >>> ask = pipeline("mint", model="outputs/mint-base", adapters=adapters, trust_remote_code=True)
    >>> ask("Who designed the Eiffel Tower?", strategy="ensemble")["answer"]
    ```"""

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __init__(
        self,
        model,
        *args,
        gar_model=None,
        rag_model=None,
        adapters: dict[str, str] | None = None,
        processor: MintProcessor | None = None,
        **kwargs,
    ):
        if adapters is not None:
            if gar_model is not None or rag_model is not None:
                raise ValueError("Give the partner as one of `adapters` or as a model, not as both.")
            model.load_roles(adapters)
        partners = {"gar": gar_model, "rag": rag_model}
        if partners.pop(model.config.role) is not None:
            role = model.config.role
            raise ValueError(f"`model` is itself the {role.upper()} model; give its partner, not `{role}_model`.")
        ((partner_role, partner),) = partners.items()
        if isinstance(partner, str | os.PathLike):
            partner = type(model).from_pretrained(partner, dtype=model.dtype)
        if partner is not None and partner.config.role != partner_role:
            raise ValueError(f"`{partner_role}_model` has the role {partner.config.role!r}.")
        super().__init__(model, *args, processor=processor, **kwargs)
        # Kept here: with adapters, the role of the model is that of the call before.
        self.role = model.config.role
        self.models = {self.role: self.model, partner_role: partner and partner.to(self.device)}
        if partner is None:
            self.models |= dict.fromkeys(model.calibrations, self.model)

    def _sanitize_parameters(self, **parameters):
        unknown = sorted(set(parameters) - set(_CALL_PARAMETERS))
        if unknown:
            raise ValueError(f"Unknown argument(s) {unknown}; this pipeline takes {list(_CALL_PARAMETERS)}.")
        return {}, parameters, {}

    def preprocess(self, inputs):
        questions = [inputs] if isinstance(inputs, str) else list(inputs)
        for question in questions:
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"A question must be a string that is not empty, got {question!r}.")
        return {"queries": questions}

    def _forward(self, model_inputs, strategy=None, top_k=5, threshold=0.0, details=False, **options):
        strategy, queries = strategy or self.role, model_inputs["queries"]
        runs = []
        for some in [[query] for query in queries] if details else [queries]:
            inference = StrategyInference(some, self.processor, k=top_k, trace=details, **self.models, **options)
            runs.append((inference, inference.run(strategy)))
        return {"runs": runs, "strategy": strategy, "threshold": threshold, "details": details}

    def postprocess(self, model_outputs):
        results = []
        for inference, output in model_outputs["runs"]:
            for answer, score, rows, shares in zip(
                output.answers, output.scores, output.rows, output.document_scores, strict=True
            ):
                abstained = score < model_outputs["threshold"]
                result = {
                    "answer": "" if abstained else answer,
                    "score": score,
                    "abstained": abstained,
                    "documents": self._documents(rows, shares),
                    "strategy": model_outputs["strategy"],
                }
                results.append(result | ({"details": self._details(inference)} if model_outputs["details"] else {}))
        return results

    def _documents(self, rows: list[int], shares: list[float]) -> list[dict]:
        found = [(*self.processor.document(row), share, row) for row, share in zip(rows, shares, strict=True)]
        return [{"title": title, "score": share, "text": text, "row": row} for title, text, share, row in found]

    def _details(self, inference: StrategyInference) -> dict:
        """How the answer to the one query of an inference came about."""
        answers, documents, trees = {}, {}, {}
        for role, written in inference.answers.items():
            answers[role] = {"answer": written.texts[0], "score": inference.confidences(role, written)[0]}
        for role, found in inference.documents.items():
            documents[role] = self._documents(*fuse([(found.rows[0], found.scores[0])], len(found.rows[0])))
            trees[role] = inference.traces[role].tree(0, self.processor, found.rows[0])
        return {"seconds": inference.seconds, "answers": answers, "documents": documents, "trees": trees}

    def __call__(self, inputs: str | list[str], **kwargs) -> dict | list[dict]:
        """Answers one question (a `dict`) or several, batched (a `list[dict]`)."""
        _, call_parameters, _ = self._sanitize_parameters(**kwargs)
        model_outputs = self.forward(self.preprocess(inputs), **{**self._forward_params, **call_parameters})
        results = self.postprocess(model_outputs)
        return results[0] if isinstance(inputs, str) else results


__all__ = ["MintForConditionalGeneration", "MintPipeline", "MintProcessor"]
