"""How much the text of a document found counts in its ranking, chosen on labelled queries."""

import torch

WEIGHTS = torch.linspace(0, 1, 41, dtype=torch.float64)
TEMPERATURES = torch.logspace(-1, 1, 21, dtype=torch.float64)


def calibrate_query_weight(
    scores: list[list[float]], log_probs: list[list[float]], relevant: list[list[bool]]
) -> float:
    """
    The weight w for which `softmax((score + w * log p(q | d)) / T)` over the documents found predicts best which of
    them is relevant (least cross-entropy, at the best temperature T): smoother on few queries than their R-precision.

    Args:
        scores (`list[list[float]]`):
            Of each query, log-probabilities of the docids found.
        log_probs (`list[list[float]]`):
            What [`~modeling_mint.query_likelihood.query_log_probs`] gave for them.
        relevant (`list[list[bool]]`):
            Whether they are relevant.

    Returns:
        `float`: one of `WEIGHTS`; 0.0 where no query has found a relevant document beside others.
    """
    losses = torch.zeros(len(WEIGHTS), len(TEMPERATURES), dtype=torch.float64)
    for score, log_prob, right in zip(scores, log_probs, relevant, strict=True):
        if any(right) and not all(right):
            score, log_prob = (torch.tensor(one, dtype=torch.float64) for one in (score, log_prob))
            logits = (score + WEIGHTS[:, None] * log_prob)[:, None, :] / TEMPERATURES[None, :, None]
            chosen = logits.log_softmax(-1)[..., torch.tensor(right)]
            losses -= chosen.logsumexp(-1)
    return round(float(WEIGHTS[losses.min(1).values.argmin()]), 3)
