"""Co-training's own samples: one model writes them, its partner is asked what it makes of them."""

from datasets import Dataset
from transformers import set_seed

from dataset_builders.features import new_sample
from modeling_mint import MintForConditionalGeneration, MintProcessor, StrategyInference
from modeling_mint.generation_mint import RetrievalOutput, TextOutput
from modeling_mint.tokenization_mint import encode_targets

from .metrics.kilt_downstream.kilt_downstream import answer_f1

PARTNER = {"rag": "gar", "gar": "rag"}


def write_samples(
    model: MintForConditionalGeneration,
    partner: MintForConditionalGeneration | None,
    rows: list[int],
    processor: MintProcessor,
    iteration: int,
    *,
    role: str,
    queries: list[str] | None = None,
    temperature: float = 0.0,
    seed: int = 42,
    **options,
) -> list[dict]:
    """
    One sample per document (`mint.md`, Stage 2, steps 1 to 3), with every confidence signal.

    RAG writes d -> query, query -> docids, (query, documents) -> answer; GAR writes d -> query, query -> answer,
    (query, answer) -> docids. The partner then answers the query in its own way, for the agreement.

    Args:
        model ([`MintForConditionalGeneration`]):
            The writer.
        partner ([`MintForConditionalGeneration`], *optional*):
            The model of the other role, the same object if that holds an adapter for each role. With `None` there are
            no agreements, and less than half of the work.
        rows (`list[int]`):
            Rows of the unlabelled documents.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        iteration (`int`):
            Co-training iteration, counted from 1.
        role (`str`):
            Role of the writer, `"rag"` or `"gar"`.
        queries (`list[str]`, *optional*):
            A query for each document, which then is not written: the samples' other fields are the writer's, but for
            the passage, which is empty.
        temperature (`float`, *optional*, defaults to 0.0):
            Of the queries' sampling; 0 writes greedily.
        seed (`int`, *optional*, defaults to 42):
            Seed of the sampling, which depends on nothing else.
        **options:
            As for [`StrategyInference`].

    Returns:
        `list[dict]`: samples in the common schema, not filtered yet.
    """
    batching = {name: options[name] for name in ("batch_size", "show_progress") if name in options}
    set_seed(seed)
    model.set_role(role)
    passages = [""] * len(rows)
    if queries is None:
        queries = model.write_queries(rows, processor, temperature=temperature, **batching).texts
        passages = [text for _, text in processor.context(rows)]
    samples = []
    for row, query, passage, reply in zip(
        rows, queries, passages, _replies(model, partner, queries, processor, role, **options), strict=True
    ):
        reply["confidence"]["round_trip_rank"] = _rank(row, reply["rows"])
        samples.append(
            new_sample(
                id=f"{role}-{iteration}-{row}",
                query=query,
                provenance=[[processor.document(row)[0]]],
                passage=passage,
                source=role,
                model=f"mint-{role}",
                iteration=iteration,
                **reply,
            )
        )
    return samples


def labelled_signals(
    model: MintForConditionalGeneration,
    partner: MintForConditionalGeneration | None,
    samples: Dataset,
    processor: MintProcessor,
    *,
    role: str,
    **options,
) -> list[dict]:
    """
    What a model replies to labelled queries, with the confidence signals that it would have as its own samples: what a
    threshold is calibrated on. There is no round trip, since the query was not written from a document.

    Args:
        model, partner, processor, role, **options:
            As for [`write_samples`].
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.

    Returns:
        `list[dict]`: samples in the common schema: the labelled ids, queries and provenance, the model's docids and
        answers.
    """
    replies = _replies(model, partner, samples["query"][:], processor, role, **options)
    return [
        new_sample(
            id=sample["id"],
            task=sample["task"],
            query=sample["query"],
            provenance=sample["provenance"],
            source=role,
            model=f"mint-{role}",
            **reply,
        )
        for sample, reply in zip(samples, replies, strict=True)
    ]


def _replies(model, partner, queries: list[str], processor: MintProcessor, role: str, **options) -> list[dict]:
    """The model's docids and answer to each query, and its confidence, the partner's agreement included."""
    # One inference for both: two roles of one object are switched by it before each use.
    # Nothing is read: the log-probability of the docid alone is a signal.
    models = {role: model, PARTNER[role]: partner}
    inference = StrategyInference(queries, processor, query_likelihood_weight=0.0, **models, **options)
    found, answers = _retrieved_and_answered(inference, role)
    if partner is None:
        agreements = [{}] * len(queries)
    else:
        other_found, other_answers = _retrieved_and_answered(inference, PARTNER[role])
        agreements = [
            {
                "docid_agreement": _reciprocal(_rank(found.rows[i][0], other_found.rows[i])),
                "answer_agreement": answer_f1(answers.texts[i], other_answers.texts[i]),
            }
            for i in range(len(queries))
        ]
    return [
        {
            "answers": [answers.texts[i]],
            "docids": found.docids[i],
            "rows": found.rows[i],
            "confidence": {
                "docid_log_prob": found.scores[i][0]
                / len(encode_targets(processor.tokenizer, found.docids[i][:1])[0]),
                "answer_log_prob": answers.log_probs[i],
                **agreements[i],
            },
        }
        for i in range(len(queries))
    ]


def _retrieved_and_answered(inference: StrategyInference, role: str) -> tuple[RetrievalOutput, TextOutput]:
    if role == "rag":
        return inference.rag_documents, inference.rag_answers
    return inference.gar_documents, inference.gar_answers


def _rank(row: int, ranking: list[int]) -> int:
    """Rank of `row`, 1 = first; 0 if it is not there."""
    return ranking.index(row) + 1 if row in ranking else 0


def _reciprocal(rank: int) -> float:
    return 1 / rank if rank else 0.0
