"""Confidence of the models' own samples: the signals, their combination, the filter, the calibration."""

import logging
import math
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES

logger = logging.getLogger(__name__)

KEEP_RULES = ("fraction", "threshold", "calibrated")
PREFERENCES = ("confident", "uncertain")

MIN_CALIBRATION_SAMPLES = 10
"""A precision measured on fewer labelled samples says too little to set a threshold by."""

KEEP_NONE = 2.0
"""The threshold where none can be trusted: above every score and, unlike infinity, fit for JSON."""


@dataclass
class ConfidenceArguments:
    """
    How samples are scored and filtered (`mint.md`, Stage 2, step 3).

    A sample's score is the weighted mean of its signals, each brought to [0, 1]: `exp(log-probability)` of docid and
    answer, 1 / rank of the round trip (0 if the source document is not found), and the two agreements. Where neither
    agreement has a weight, the other model is not asked, which is more than half of the work.

    Args:
        weight_docid (`float`, *optional*, defaults to 1.0): weight of the docid's log-probability.
        weight_answer (`float`, *optional*, defaults to 1.0): weight of the answer's log-probability.
        weight_round_trip (`float`, *optional*, defaults to 2.0): weight of the round trip.
        weight_docid_agreement (`float`, *optional*, defaults to 1.0): weight of the agreement on the docid.
        weight_answer_agreement (`float`, *optional*, defaults to 1.0): weight of the agreement on the answer.
        keep (`str`, *optional*, defaults to `"fraction"`): keep the best `"fraction"`, all from a fixed `"threshold"`,
            or all from a threshold that is `"calibrated"` on labelled data, see [`calibrate_threshold`]. A labelled
            query has no round trip, so that the scores of `"calibrated"` leave it out.
        keep_fraction (`float`, *optional*, defaults to 0.5): share of the samples to keep, in (0, 1].
        prefer (`str`, *optional*, defaults to `"confident"`): which end of the scores `"fraction"` keeps. Samples that
            their writer is sure of say little that is new; with `"uncertain"` it is the round trip alone that tells
            right from wrong.
        keep_threshold (`float`, *optional*, defaults to 0.5): score from which a sample is kept, in [0, 1].
        max_round_trip_rank (`int`, *optional*, defaults to 1): a sample whose source document is not among that many
            first docids is dropped whatever its score; 0 asks for no round trip.
        target_precision (`float`, *optional*, defaults to 0.9): share of right first docids that the threshold of
            `"calibrated"` aims at, in (0, 1].

    Raises:
        ValueError: if a value is out of its range, or if no signal that the rule may use has a weight.
    """

    weight_docid: float = field(default=1.0, metadata={"help": "Weight of the docid's log-probability."})
    weight_answer: float = field(default=1.0, metadata={"help": "Weight of the answer's log-probability."})
    weight_round_trip: float = field(default=2.0, metadata={"help": "Weight of the round trip."})
    weight_docid_agreement: float = field(default=1.0, metadata={"help": "Weight of agreement on the docid."})
    weight_answer_agreement: float = field(default=1.0, metadata={"help": "Weight of agreement on the answer."})
    keep: str = field(default="fraction", metadata={"help": "Filter rule.", "choices": list(KEEP_RULES)})
    keep_fraction: float = field(default=0.5, metadata={"help": "Share of the samples to keep, in (0, 1]."})
    prefer: str = field(
        default="confident", metadata={"help": "Which end of the scores is kept.", "choices": list(PREFERENCES)}
    )
    keep_threshold: float = field(default=0.5, metadata={"help": "Score from which a sample is kept, in [0, 1]."})
    max_round_trip_rank: int = field(
        default=1, metadata={"help": "Drop samples whose source is not among that many first docids (0: keep them)."}
    )
    target_precision: float = field(
        default=0.9, metadata={"help": "Share of right first docids that a calibrated threshold aims at, in (0, 1]."}
    )

    def __post_init__(self):
        if self.keep not in KEEP_RULES:
            raise ValueError(f"`keep` is {self.keep!r}; it must be one of {KEEP_RULES}.")
        if self.prefer not in PREFERENCES:
            raise ValueError(f"`prefer` is {self.prefer!r}; it must be one of {PREFERENCES}.")
        if self.prefer == "uncertain" and (self.keep != "fraction" or not self.max_round_trip_rank):
            raise ValueError(
                "`prefer` 'uncertain' keeps a fraction of what the round trip vouches for: use `keep` 'fraction' and "
                "a `max_round_trip_rank` above 0."
            )
        for name in ("keep_fraction", "target_precision"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must lie in (0, 1].")
        if not 0 <= self.keep_threshold <= 1:
            raise ValueError(f"`keep_threshold` is {self.keep_threshold}; it must lie in [0, 1].")
        if self.max_round_trip_rank < 0:
            raise ValueError(f"`max_round_trip_rank` is {self.max_round_trip_rank}; it must be at least 0.")
        for name, weight in asdict(self).items():
            if name.startswith("weight_") and not 0 <= weight < math.inf:
                raise ValueError(f"`{name}` is {weight}; it must be a number, at least 0.")
        others = self.weight_docid + self.weight_answer + self.weight_docid_agreement + self.weight_answer_agreement
        if not others and (self.keep == "calibrated" or not self.weight_round_trip):
            raise ValueError(f"No signal that `keep` {self.keep!r} may use has a weight; set a weight above 0.")


def confidence_score(signals: dict, arguments: ConfidenceArguments) -> float:
    """
    The weighted mean of a sample's signals, in [0, 1] (`mint.md`, Stage 2, step 3).

    Args:
        signals (`dict`): the schema's `confidence` field; signals that are `None` are left out of the mean.
        arguments ([`ConfidenceArguments`]): the weights. With `keep="calibrated"` the round trip is left out too.

    Raises:
        ValueError: if no signal with a weight is there.
    """
    rank = None if arguments.keep == "calibrated" else signals["round_trip_rank"]
    values = [
        (arguments.weight_docid, signals["docid_log_prob"], math.exp),
        (arguments.weight_answer, signals["answer_log_prob"], math.exp),
        (arguments.weight_round_trip, rank, lambda value: 1 / value if value else 0.0),
        (arguments.weight_docid_agreement, signals["docid_agreement"], float),
        (arguments.weight_answer_agreement, signals["answer_agreement"], float),
    ]
    there = [(weight, to_unit(value)) for weight, value, to_unit in values if weight and value is not None]
    if not there:
        raise ValueError(f"No signal of {signals} has a weight; set a weight of ConfidenceArguments above 0.")
    mean = sum(weight * value for weight, value in there) / sum(weight for weight, _ in there)
    return min(mean, 1.0)  # rounding may take it above


def filter_samples(samples: list[dict], arguments: ConfidenceArguments, threshold: float | None = None) -> list[dict]:
    """
    Scores samples and marks those to keep; none is thrown away, so that a filter can be run again.

    A sample without query or answer is never kept. Signals are rounded to what the schema stores (float32) before
    they are scored: the samples that [`refilter`] reads back must have the same scores and stand in the same order.

    Args:
        samples (`list[dict]`): samples in the common schema, with their signals.
        arguments ([`ConfidenceArguments`]): weights and rule.
        threshold (`float`, *optional*): what [`calibrate_threshold`] found; needed for `keep="calibrated"`, and
            without use otherwise.

    Returns:
        `list[dict]`: the same samples, in order, with `confidence["score"]` and `kept` set.

    Raises:
        ValueError: if a sample has no signal with a weight, or if the calibrated threshold is missing.
    """
    if arguments.keep != "calibrated":
        threshold = arguments.keep_threshold
    elif threshold is None:
        raise ValueError("`keep` is 'calibrated', but there is no `threshold`: find it with calibrate_threshold.")
    scored = []
    for sample in samples:
        signals = _as_stored(sample["confidence"])
        signals["score"] = confidence_score(signals, arguments)
        scored.append({**sample, "confidence": signals, "kept": False})
    limit = arguments.max_round_trip_rank

    def eligible(sample: dict) -> bool:
        found = limit == 0 or 0 < (sample["confidence"]["round_trip_rank"] or 0) <= limit
        return found and bool(sample["query"]) and any(sample["answers"])

    ranked = sorted(
        filter(eligible, scored),
        key=lambda sample: sample["confidence"]["score"],
        reverse=arguments.prefer == "confident",
    )
    if arguments.keep == "fraction":
        kept = ranked[: math.ceil(arguments.keep_fraction * len(scored))]
    else:
        kept = [sample for sample in ranked if sample["confidence"]["score"] >= threshold]
    for sample in kept:
        sample["kept"] = True
    logger.info("Confidence filter: %d samples, %d eligible, %d kept.", len(scored), len(ranked), len(kept))
    return scored


def calibrate_threshold(samples: list[dict], arguments: ConfidenceArguments) -> float:
    """
    The lowest score from which a model's first docid is right often enough on labelled data: of the replies with that
    score or a higher one, a share of at least `target_precision` is right.

    Where no threshold can be trusted, no sample is kept: if the target is not reached on any
    `MIN_CALIBRATION_SAMPLES` best replies or more, or if there are fewer of them. The log says so.

    Args:
        samples (`list[dict]`): the model's replies to labelled queries, made by
            [`~trainers.pseudo_samples.labelled_signals`].
        arguments ([`ConfidenceArguments`]): weights and `target_precision`, with `keep="calibrated"`.

    Returns:
        `float`: the threshold in [0, 1], or `KEEP_NONE`.
    """
    scored = [
        (confidence_score(_as_stored(one["confidence"]), arguments), first_docid_is_right(one)) for one in samples
    ]
    accepted, right, threshold = 0, 0, KEEP_NONE
    # Replies of one score are accepted together, or not at all.
    for score, replies in groupby(sorted(scored, reverse=True), key=itemgetter(0)):
        found = [is_right for _, is_right in replies]
        accepted, right = accepted + len(found), right + sum(found)
        if accepted >= MIN_CALIBRATION_SAMPLES and right / accepted >= arguments.target_precision:
            threshold = score
    if threshold == KEEP_NONE:
        logger.warning(
            "No score of %d labelled replies gives a precision of %g on at least %d of them (%d are right): no "
            "sample will be kept. Lower `target_precision`, or use more validation samples.",
            accepted,
            arguments.target_precision,
            MIN_CALIBRATION_SAMPLES,
            right,
        )
    return threshold


def first_docid_is_right(sample: dict) -> bool:
    """Whether a sample's first docid is in its provenance: for a model's own, the document that it wrote of."""
    return any(docid in evidence for docid in sample["docids"][:1] for evidence in sample["provenance"])


def refilter(samples: Dataset, arguments: ConfidenceArguments) -> Dataset:
    """
    Filters co-training data again, with the signals that are stored in it: nothing is generated. What each model wrote
    in each iteration is filtered by itself, as [`~trainers.co_trainer.CoTrainer`] does it, so that the same arguments
    give the same `kept` and scores.

    Args:
        samples (`datasets.Dataset`): the `co_training` config, kept samples and dropped ones.
        arguments ([`ConfidenceArguments`]): weights and rule.

    Returns:
        `datasets.Dataset`: the same samples, in order, with `confidence["score"]` and `kept` set anew.

    Raises:
        ValueError: if a sample has no signal with a weight, which those of humans and of the external LLM have not,
            or if the rule is `"calibrated"`, which needs more than what is stored.
    """
    if arguments.keep == "calibrated":
        raise ValueError(
            "`keep` is 'calibrated', which takes the models' replies to labelled queries, and those are not stored. "
            "Use `keep` 'threshold' with `weight_round_trip` 0: `keep_threshold` as an iteration's report.md has it."
        )
    columns = samples.column_names
    needed = samples.select_columns(["query", "answers", "confidence"])
    filtered = [None] * len(samples)
    for numbers in rows_by_writer(samples).values():
        for number, sample in zip(numbers, filter_samples(needed.select(numbers).to_list(), arguments), strict=True):
            filtered[number] = sample
    for name in ("confidence", "kept"):
        values = [sample[name] for sample in filtered]
        samples = samples.remove_columns(name).add_column(name, values, feature=SAMPLE_FEATURES[name])
    return samples.select_columns(columns)


def rows_by_writer(samples: Dataset) -> dict[tuple[int, str], list[int]]:
    """
    Groups co-training data.

    Args:
        samples (`datasets.Dataset`): the `co_training` config.

    Returns:
        `dict[tuple[int, str], list[int]]`: (iteration, source) in ascending order to the numbers of the samples that
        this model wrote in this iteration, in their order.
    """
    groups = {}
    for number, writer in enumerate(zip(samples["iteration"], samples["source"], strict=True)):
        groups.setdefault(writer, []).append(number)
    return dict(sorted(groups.items()))


def _as_stored(signals: dict) -> dict:
    """Signals as the schema stores them."""
    return {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in signals.items()}


def calibrate_temperature(log_probs: list[float], correct: list[bool]) -> float:
    """
    The temperature T for which `exp(log_prob / T)` predicts best whether an answer is right (least cross-entropy), so
    that the answers of two models can compete (`mint.md`, Inference).

    Args:
        log_probs (`list[float]`): mean log-probability per token of each answer.
        correct (`list[bool]`): whether the answer is right.

    Returns:
        `float`: the best of 61 temperatures from 0.03 to 30, evenly spaced on a log scale; 1.0 without any answer.
    """
    if not log_probs:
        return 1.0
    temperatures = torch.logspace(-1.5, 1.5, 61, dtype=torch.float64)
    predicted = (
        (torch.tensor(log_probs, dtype=torch.float64)[None] / temperatures[:, None]).exp().clamp(1e-6, 1 - 1e-6)
    )
    target = torch.tensor(correct, dtype=torch.float64).expand_as(predicted)
    losses = torch.nn.functional.binary_cross_entropy(predicted, target, reduction="none").mean(1)
    return round(float(temperatures[losses.argmin()]), 4)
