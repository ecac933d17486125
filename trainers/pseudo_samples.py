"""Co-training's own samples: one model writes them, its partner is asked what it makes of them."""

from transformers import set_seed

from dataset_builders.features import new_sample
from modeling_mint import MintForConditionalGeneration, MintProcessor, StrategyInference
from modeling_mint.tokenization_mint import encode_targets

from .metrics.kilt_downstream.kilt_downstream import answer_f1


def write_samples(
    model: MintForConditionalGeneration,
    partner: MintForConditionalGeneration,
    rows: list[int],
    processor: MintProcessor,
    iteration: int,
    *,
    temperature: float = 0.0,
    seed: int = 42,
    **options,
) -> list[dict]:
    """
    One sample per document (`mint.md`, Stage 2, steps 1 to 3), with every confidence signal.

    RAG writes d -> query, query -> docids, (query, documents) -> answer; GAR writes d -> query, query -> answer,
    (query, answer) -> docids. The partner then answers the query in its own way, for the agreement.

    Args:
        model, partner ([`MintForConditionalGeneration`]):
            The writer and the model of the other role.
        rows (`list[int]`):
            Rows of the unlabelled documents.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        iteration (`int`):
            Co-training iteration, counted from 1.
        temperature (`float`, *optional*, defaults to 0.0):
            Of the queries' sampling; 0 writes greedily.
        seed (`int`, *optional*, defaults to 42):
            Seed of the sampling.
        **options:
            As for [`StrategyInference`].

    Returns:
        `list[dict]`: samples in the common schema, not filtered yet.
    """
    role, partner_role = model.config.role, partner.config.role
    batching = {name: options[name] for name in ("batch_size", "show_progress") if name in options}
    set_seed(seed)
    passages = [text for _, text in processor.context(rows)]
    queries = model.write_queries(rows, processor, temperature=temperature, **batching).texts
    own = StrategyInference(queries, processor, **{role: model}, **options)
    other = StrategyInference(queries, processor, **{partner_role: partner}, **options)
    found, answers = _retrieved_and_answered(own, role)
    other_found, other_answers = _retrieved_and_answered(other, partner_role)

    samples = []
    for i, row in enumerate(rows):
        docid_length = len(encode_targets(processor.tokenizer, found.docids[i][:1])[0])
        samples.append(
            new_sample(
                id=f"{role}-{iteration}-{row}",
                task="open_qa",
                query=queries[i],
                answers=[answers.texts[i]],
                docids=found.docids[i],
                rows=found.rows[i],
                provenance=[[processor.document(row)[0]]],
                passage=passages[i],
                source=role,
                model=f"mint-{role}",
                iteration=iteration,
                confidence={
                    "docid_log_prob": found.scores[i][0] / docid_length,
                    "answer_log_prob": answers.log_probs[i],
                    "round_trip_rank": _rank(row, found.rows[i]),
                    "docid_agreement": _reciprocal(_rank(found.rows[i][0], other_found.rows[i])),
                    "answer_agreement": answer_f1(answers.texts[i], other_answers.texts[i]),
                    "score": None,
                },
            )
        )
    return samples


def _retrieved_and_answered(inference: StrategyInference, role: str):
    if role == "rag":
        return inference.rag_documents, inference.rag_answers
    return inference.gar_documents, inference.gar_answers


def _rank(row: int, ranking: list[int]) -> int:
    """Rank of `row`, 1 = first; 0 if it is not there."""
    return ranking.index(row) + 1 if row in ranking else 0


def _reciprocal(rank: int) -> float:
    return 1 / rank if rank else 0.0
