"""Arguments of co-training."""

from dataclasses import dataclass, field

from .evaluation import METRICS
from .exchange import DOCID_TARGETS, WEIGHTINGS

QUERY_SOURCES = ("written", "labelled")


@dataclass
class CoTrainingArguments:
    """
    The rounds of co-training (`mint.md`, Stage 2).

    Args:
        max_iterations (`int`, *optional*, defaults to 1): iterations at most.
        patience (`int`, *optional*, defaults to 2): stop after that many iterations in which the mean dev score of
            the two models did not rise.
        documents_per_iteration (`int`, *optional*, defaults to 1000): unlabelled documents that each model writes a
            sample for, drawn anew in each iteration.
        query_source (`str`, *optional*, defaults to `"written"`): what is asked of a document: a query that each of
            the two models writes itself, or a `"labelled"` one of a related document, its title in the place of that
            one's, see [`~dataset_builders.title_substitution.ask_of_others`]. Docids and answers are the models', and
            partners learn to retrieve alone from them.
        query_temperature (`float`, *optional*, defaults to 0.7): of the sampling of queries; 0 writes greedily.
        labelled_share (`float`, *optional*, defaults to 0.5): share of labelled samples in what a model trains on, so
            that it does not drift; in [0, 1).
        max_pseudo_ratio (`float`, *optional*): at most that many of the partner's samples per labelled sample that
            there is, the most confident first; all of them by default.
        weighting (`str`, *optional*, defaults to `"linear"`): how confidence weighs a partner's sample in the loss,
            see [`exchange_samples`].
        docid_target (`str`, *optional*, defaults to `"first"`): which docid a partner's sample teaches, the writer's
            first one or the `"source"` of the query, see [`exchange_samples`]. They differ where
            `ConfidenceArguments.max_round_trip_rank` is not 1.
        restart_from_warm_up (`bool`, *optional*, defaults to `False`): train each iteration from the warmed-up models
            on all kept samples so far, instead of from the last models on the new ones.
        dev_metric (`str`, *optional*, defaults to `"r_precision"`): the score that decides, see `evaluation.METRICS`.
        max_dev_drop (`float`, *optional*, defaults to 0.1): a model whose dev score falls by more than that below its
            best so far has collapsed, and that best one takes its place.
        block_size (`int`, *optional*, defaults to 64): samples that are written, or judged, before they are saved: the
            unit of resuming and of sharing among processes.
    """

    max_iterations: int = field(default=1, metadata={"help": "Co-training iterations at most."})
    patience: int = field(default=2, metadata={"help": "Stop after that many iterations without a better dev score."})
    documents_per_iteration: int = field(
        default=1000, metadata={"help": "Unlabelled documents that each model writes a sample for, per iteration."}
    )
    query_source: str = field(
        default="written",
        metadata={
            "help": "Who asks: the models, or labels with other titles in them.",
            "choices": list(QUERY_SOURCES),
        },
    )
    query_temperature: float = field(
        default=0.7, metadata={"help": "Sampling temperature of the queries (0: greedy)."}
    )
    labelled_share: float = field(
        default=0.5, metadata={"help": "Share of labelled samples in the exchange training, in [0, 1)."}
    )
    max_pseudo_ratio: float | None = field(
        default=None, metadata={"help": "Partner's samples per labelled sample at most, the most confident first."}
    )
    weighting: str = field(
        default="linear",
        metadata={"help": "How confidence weighs a partner's sample.", "choices": list(WEIGHTINGS)},
    )
    docid_target: str = field(
        default="first",
        metadata={"help": "Docid that a partner's sample teaches.", "choices": list(DOCID_TARGETS)},
    )
    restart_from_warm_up: bool = field(
        default=False, metadata={"help": "Start each iteration from the warmed-up models, with all kept samples."}
    )
    dev_metric: str = field(
        default="r_precision", metadata={"help": "Dev score that decides which iteration is best."}
    )
    max_dev_drop: float = field(
        default=0.1, metadata={"help": "A model whose dev score falls by more below its best is rolled back to that."}
    )
    block_size: int = field(default=64, metadata={"help": "Samples written or judged before they are saved."})

    def __post_init__(self):
        for name in ("max_iterations", "patience", "documents_per_iteration", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.labelled_share < 1:
            raise ValueError(f"`labelled_share` is {self.labelled_share}; it must lie in [0, 1).")
        if self.max_pseudo_ratio is not None and self.max_pseudo_ratio <= 0:
            raise ValueError(f"`max_pseudo_ratio` is {self.max_pseudo_ratio}; it must be above 0, or None for no cap.")
        if self.query_source not in QUERY_SOURCES:
            raise ValueError(f"`query_source` is {self.query_source!r}; it must be one of {QUERY_SOURCES}.")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"`weighting` is {self.weighting!r}; it must be one of {WEIGHTINGS}.")
        if self.docid_target not in DOCID_TARGETS:
            raise ValueError(f"`docid_target` is {self.docid_target!r}; it must be one of {DOCID_TARGETS}.")
        if self.dev_metric not in METRICS:
            raise ValueError(f"`dev_metric` is {self.dev_metric!r}; it must be one of {METRICS}.")
        if self.max_dev_drop < 0:
            raise ValueError(f"`max_dev_drop` is {self.max_dev_drop}; it must be at least 0 (1 never rolls back).")
