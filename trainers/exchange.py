"""What a model trains on in the exchange: its partner's kept samples, weighted, and labelled ones."""

import logging
import random

from datasets import Dataset, concatenate_datasets
from scipy.stats import rankdata

from dataset_builders.features import SAMPLE_FEATURES

logger = logging.getLogger(__name__)

WEIGHTINGS = ("none", "linear", "rank")
DOCID_TARGETS = ("first", "source")


def exchange_samples(
    kept: list[dict],
    labelled: Dataset,
    *,
    labelled_share: float,
    max_pseudo_ratio: float | None,
    weighting: str,
    docid_target: str = "first",
    query_source: str = "written",
    seed: int | str,
) -> Dataset:
    """
    Makes the samples of one exchange training (MINT, SIGIR 2025; `mint.md`, Stage 2, step 4).

    The exchange loss is a weighted mean over its own tokens, so that only the ratios of the weights count: none of the
    weightings makes it larger or smaller as a whole, as `lambda_exchange` does.

    Args:
        kept (`list[dict]`):
            The partner's kept samples in the common schema, with their confidence scores.
        labelled (`datasets.Dataset`):
            All labelled training samples.
        labelled_share (`float`):
            Share of labelled samples in the whole, in [0, 1). They are drawn without replacement: the share is lower
            where there are too few of them.
        max_pseudo_ratio (`float`, *optional*):
            At most that many of the partner's samples per labelled sample that there is, the most confident first;
            `None` takes all.
        weighting (`str`):
            Weight of a partner's sample in the loss: `"none"` 1; `"linear"` its confidence score; `"rank"` its rank
            among those taken, counted from the least confident (the mean rank of equal scores), by their number.
        docid_target (`str`, *optional*, defaults to `"first"`):
            Which docid a partner's sample teaches: `"first"` the one that the writer ranked first; `"source"` the
            document that the query was written from, which takes the first place of the ranking. What the writer did
            not find at all has no such place and is left out.
        query_source (`str`, *optional*, defaults to `"written"`):
            Where the queries come from. A `"labelled"` one with another title in it often makes no sense, and what is
            replied to it is a guess: of such samples retrieval is learnt alone, as of all those of source
            "substituted".
        seed (`int` or `str`):
            Seed of the draw of labelled samples.

    Returns:
        `datasets.Dataset`: the partner's samples in their order, each with its weight, in [0, 1], in place of
        `confidence["score"]`, which is where [`training_examples`] reads it; behind them the labelled ones.

    Raises:
        ValueError: if `weighting` or `docid_target` is unknown, or if none of the partner's samples is left.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"`weighting` is {weighting!r}; it must be one of {WEIGHTINGS}.")
    if docid_target not in DOCID_TARGETS:
        raise ValueError(f"`docid_target` is {docid_target!r}; it must be one of {DOCID_TARGETS}.")
    if docid_target == "source":
        kept = [_source_first(sample) for sample in kept if sample["confidence"]["round_trip_rank"]]
    taken = _most_confident(kept, len(kept) if max_pseudo_ratio is None else int(max_pseudo_ratio * len(labelled)))
    if not taken:
        raise ValueError(
            f"None of {len(kept)} kept samples is left to train on: with {len(labelled)} labelled samples, "
            f"`max_pseudo_ratio` {max_pseudo_ratio} allows none. Raise it, or keep more samples."
        )
    weights = _weights([sample["confidence"]["score"] for sample in taken], weighting)
    mark = {"source": "substituted"} if query_source == "labelled" else {}
    weighted = [
        sample | mark | {"confidence": sample["confidence"] | {"score": weight}}
        for sample, weight in zip(taken, weights, strict=True)
    ]

    wanted = round(len(taken) * labelled_share / (1 - labelled_share))
    number = min(wanted, len(labelled))
    rows = sorted(random.Random(seed).sample(range(len(labelled)), number))
    logger.info("Exchange: %d of %d kept samples, %d labelled ones.", len(taken), len(kept), number)
    if number < wanted:
        logger.warning(
            "Only %d labelled samples, not %d: their share is %.3f, not %.3f. Lower `max_pseudo_ratio` to raise it.",
            number,
            wanted,
            number / (number + len(taken)),
            labelled_share,
        )
    return concatenate_datasets([Dataset.from_list(weighted, features=SAMPLE_FEATURES), labelled.select(rows)])


def _source_first(sample: dict) -> dict:
    """The sample, the document that its query was written from in front of the others."""
    rank = sample["confidence"]["round_trip_rank"]
    order = [rank - 1, *(place for place in range(len(sample["rows"])) if place != rank - 1)]
    return sample | {name: [sample[name][place] for place in order] for name in ("docids", "rows")}


def _most_confident(samples: list[dict], number: int) -> list[dict]:
    """The `number` samples with the highest scores, the first of equals, in their order."""
    by_score = sorted(range(len(samples)), key=lambda place: -samples[place]["confidence"]["score"])
    return [samples[place] for place in sorted(by_score[:number])]


def _weights(scores: list[float], weighting: str) -> list[float]:
    if weighting == "none":
        return [1.0] * len(scores)
    if weighting == "linear":
        return scores
    return (rankdata(scores) / len(scores)).tolist()
