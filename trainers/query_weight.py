"""How much the text of a document found counts in its ranking, chosen on labelled queries."""

import torch

WEIGHTS = torch.linspace(0, 1, 41, dtype=torch.float64)
TEMPERATURES = torch.logspace(-1, 1, 21, dtype=torch.float64)
# Of the weight, before anything is seen. Of some dozens of labelled queries few tell one weight from another, and by
# these alone any may come out. The mean is what many labels gave (examples/results/README.md).
PRIOR_MEAN, PRIOR_STD = 0.35, 0.2


def calibrate_query_weight(
    scores: list[list[float]], log_probs: list[list[float]], relevant: list[list[bool]]
) -> float:
    """
    The weight w for which `softmax((score + w * log p(q | d)) / T)` over the documents found predicts best which of
    them is relevant, at the best temperature T, and which is likely beforehand (the mode of the posterior under a
    Gaussian prior): smoother on few queries than their R-precision.

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
    telling = [one for one in zip(scores, log_probs, relevant, strict=True) if any(one[2]) and not all(one[2])]
    if not telling:
        return 0.0
    losses = torch.zeros(len(WEIGHTS), len(TEMPERATURES), dtype=torch.float64)
    for score, log_prob, right in telling:
        score, log_prob = (torch.tensor(one, dtype=torch.float64) for one in (score, log_prob))
        logits = (score + WEIGHTS[:, None] * log_prob)[:, None, :] / TEMPERATURES[None, :, None]
        losses -= logits.log_softmax(-1)[..., torch.tensor(right)].logsumexp(-1)
    penalty = ((WEIGHTS - PRIOR_MEAN) / PRIOR_STD) ** 2 / 2
    return round(float(WEIGHTS[(losses.min(1).values + penalty).argmin()]), 3)
