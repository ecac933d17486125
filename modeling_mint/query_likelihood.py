"""How likely a document is to be asked a query: its text counts in a ranking, not its title alone."""

import torch

from .generation_mint import RetrievalOutput, batches_of_like_length
from .tasks_mint import format_prompt

REACH = 8.0
"""In nats: a docid that is less likely than the first one by more than that (1 in 3,000) is not brought to the top."""


@torch.no_grad()
def query_log_probs(
    model,
    processor,
    queries: list[str],
    rows: list[list[int]],
    *,
    batch_size: int = 16,
    show_progress: bool = False,
) -> list[list[float]]:
    """
    `log p(q | text of d)` by `document_to_query`: the query-likelihood model of retrieval (Ponte and Croft, SIGIR
    1998), with a language model as in Sachan et al., EMNLP 2022. To use it is our choice: both roles learn the task.

    Args:
        model ([`MintForConditionalGeneration`]):
            Model of either role.
        processor ([`MintProcessor`]):
            Processor with the collection.
        queries (`list[str]`):
            Queries.
        rows (`list[list[int]]`):
            Rows of the documents to read per query.
        batch_size (`int`, *optional*, defaults to 16):
            Documents read at a time, those of like length together.
        show_progress (`bool`, *optional*, defaults to `False`):
            Show a progress bar.

    Returns:
        `list[list[float]]`: per query and document the sum of the log-probabilities of the query's tokens, end token
        included.
    """
    pairs = [(query, text) for query, some in zip(queries, rows, strict=True) for _, text in processor.context(some)]
    prompts = [format_prompt("document_to_query", document=text) for _, text in pairs]
    sums = [0.0] * len(pairs)
    for batch in batches_of_like_length(prompts, batch_size, show_progress, "Reading"):
        examples = [processor.encode_example(prompts[i], (pairs[i][0],)) for i in batch]
        for i, log_prob in zip(batch, _log_probs(model, processor, examples).tolist(), strict=True):
            sums[i] = log_prob
    remaining = iter(sums)
    return [[next(remaining) for _ in some] for some in rows]


def _log_probs(model, processor, examples: list[tuple[list[int], list[int]]]) -> torch.FloatTensor:
    """Log-probability of each target behind its prompt, given as ids; float32 of shape `(len(examples),)`."""
    prompts, targets = zip(*examples, strict=True)
    length = max(map(len, targets))

    def padded(sequences: list[list[int]], side: str) -> dict[str, torch.Tensor]:
        pad = processor.tokenizer.pad
        return pad({"input_ids": sequences}, padding_side=side, return_tensors="pt").to(model.device)

    if model.config.is_encoder_decoder:
        ends, inputs = padded(targets, "right"), padded(prompts, "right")
        decoder_input_ids = model.prepare_decoder_input_ids_from_labels(ends["input_ids"])
        logits = model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
    else:
        # Padded on the left, so that all targets end in the last column; a target's last token predicts nothing.
        ends = padded(targets, "left")
        inputs = padded([prompt + target[:-1] for prompt, target in examples], "left")
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        logits = model(**inputs, position_ids=positions, logits_to_keep=length, use_cache=False).logits
    log_probs = logits.float().log_softmax(-1).gather(2, ends["input_ids"][:, :, None])[:, :, 0]
    return (log_probs * ends["attention_mask"]).sum(1)


def read_found(model, processor, queries: list[str], found: RetrievalOutput, **batching) -> list[list[float]]:
    """
    Reads the documents that a text may bring to the top: those whose docid is at least `exp(-REACH)` times as likely
    as the first one's. Where that is the first alone, nothing is read.

    Args:
        model, processor, queries, **batching:
            As for [`query_log_probs`].
        found ([`RetrievalOutput`]):
            Documents per query, scored by the log-probability of their docids, best first.

    Returns:
        `list[list[float]]`: `log p(q | d)` of each query's first documents, of as many as were read.
    """
    near = [sum(score >= scores[0] - REACH for score in scores) for scores in found.scores]
    rows = [some[:number] if number > 1 else [] for some, number in zip(found.rows, near, strict=True)]
    return query_log_probs(model, processor, queries, rows, **batching)


def rank_by_reading(
    found: RetrievalOutput, log_probs: list[list[float]], weight: float, k: int | None = None
) -> RetrievalOutput:
    """
    Ranks what was found anew, by `log p(d | q) + weight * (log p(q | d) - M)`, where `M` is the highest `log p(q | d)`
    of those read. Documents that were not read are taken to be as good as that, and still none of them comes first.

    Args:
        found ([`RetrievalOutput`]):
            Documents per query, scored by the log-probability of their docids, best first.
        log_probs (`list[list[float]]`):
            What [`read_found`] gave for them.
        weight (`float`):
            Of the query's log-probability, at least 0: that has some twenty tokens, a docid three.
        k (`int`, *optional*):
            Documents to return per query; all by default.

    Returns:
        [`RetrievalOutput`]: the same documents, or the best `k` of them; those with equal scores keep their order.
    """
    ranked = RetrievalOutput([], [], [])
    for docids, scores, rows, read in zip(found.docids, found.scores, found.rows, log_probs, strict=True):
        gains = [weight * (log_prob - max(read)) for log_prob in read] + [0.0] * (len(scores) - len(read))
        sums = [score + gain for score, gain in zip(scores, gains, strict=True)]
        order = sorted(range(len(sums)), key=lambda place: -sums[place])[:k]
        ranked.docids.append([docids[place] for place in order])
        ranked.scores.append([sums[place] for place in order])
        ranked.rows.append([rows[place] for place in order])
    return ranked


__all__ = ["query_log_probs", "rank_by_reading", "read_found"]
