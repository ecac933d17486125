"""The arguments of `evaluate_mint.py` for predictions and models that belong to no run."""

from dataclasses import dataclass, field

from modeling_mint import STRATEGIES
from trainers.kilt_predictions import WIKIPEDIA_ID

NEEDED_ROLES = {"rag": {"rag"}, "gar": {"gar"}, "ensemble": {"rag", "gar"}, "cascade": {"rag", "gar"}}
MODEL_ARGUMENTS = ("rag_model", "gar_model", "base", "rag_adapter", "gar_adapter")


@dataclass
class EvaluationArguments:
    """
    What to score by a labelled KILT file: `predictions`, two files to `compare`, or models.

    Args:
        labelled (`str`, *optional*): the gold file: KILT JSONL.
        predictions (`str`, *optional*): predictions in KILT's submission format.
        compare (`list[str]`, *optional*): two such files; the second is subtracted from the first.
        rag_model, gar_model (`str`, *optional*): folder or Hub id of a model; one or both.
        base, rag_adapter, gar_adapter (`str`, *optional*): folder or Hub id of a base, and of one or two adapters on
            it, instead of full models.
        strategy (`str`, *optional*, defaults to `"all"`): how the models answer: `"rag"`, `"gar"`, `"ensemble"`,
            `"cascade"` or all that the models given allow.
        output_dir (`str`, *optional*): folder that models' predictions and scores are written to. An evaluation that
            was interrupted goes on where it was.
        json (`str`, *optional*): file for the scores; for models, `scores.json` in `output_dir` as well.
        train (`str`, *optional*): KILT JSONL that the system was trained on: scores apart for pages seen there.
        rank_keys (`str`, *optional*): fields of a provenance that a docid is made of, with commas between; `docid` for
            title and section as collections of sections have them. Defaults to `wikipedia_id`, for models whose
            collection has none to `title`. They hold for retrieval and for the KILT versions of the answers' scores
            (which KILT's own scorer takes by `wikipedia_id` always).
        ks (`str`, *optional*, defaults to `"1,5,10"`): cut-offs of precision, recall and success rate.
        top_k (`int`, *optional*): documents that a model retrieves; defaults to the largest of `ks`.
        num_beams (`int`, *optional*): beams of the docid search; at least 10 by default.
        num_documents (`int`, *optional*, defaults to 2): documents that RAG's generator reads.
        query_likelihood_weight (`float`, *optional*): how much it counts whether the text of a document found is one
            to be asked the query; 0 reads nothing. Defaults to what was calibrated of each model.
        max_new_tokens (`int`, *optional*, defaults to 24): most tokens of an answer.
        inference_batch_size (`int`, *optional*, defaults to 16): queries worked on at a time.
        limit (`int`, *optional*): models answer so many queries only, spread evenly over the file.
        num_resamples (`int`, *optional*, defaults to 2000): resamples of the bootstrap.
        seed (`int`, *optional*, defaults to 42): seed of the bootstrap and of the examples.
    """

    labelled: str = field(default="", metadata={"help": "The gold file: KILT JSONL."})
    predictions: str = field(default="", metadata={"help": "Score these predictions (KILT's submission format)."})
    compare: list[str] = field(
        default_factory=list, metadata={"help": "Compare two prediction files; the second is subtracted."}
    )
    rag_model: str = field(default="", metadata={"help": "Evaluate this RAG model: folder or Hub id."})
    gar_model: str = field(default="", metadata={"help": "Evaluate this GAR model: folder or Hub id."})
    base: str = field(default="", metadata={"help": "Base of the adapters: folder or Hub id."})
    rag_adapter: str = field(default="", metadata={"help": "RAG's adapter, with --base."})
    gar_adapter: str = field(default="", metadata={"help": "GAR's adapter, with --base."})
    strategy: str = field(
        default="all",
        metadata={"help": "How models answer (default: all that they can).", "choices": [*STRATEGIES, "all"]},
    )
    output_dir: str = field(default="", metadata={"help": "Models: where to write. Alone: a run, see below."})
    json: str = field(default="", metadata={"help": "File for the scores."})
    train: str = field(default="", metadata={"help": "Training file: scores apart for pages seen in it."})
    rank_keys: str = field(
        default="", metadata={"help": "Fields that make up a docid (default: wikipedia_id), such as title."}
    )
    ks: str = field(
        default="1,5,10", metadata={"help": "Cut-offs of precision, recall and success rate (default: 1,5,10)."}
    )
    top_k: int | None = field(default=None, metadata={"help": "Documents to retrieve (default: the largest of ks)."})
    num_beams: int | None = field(default=None, metadata={"help": "Beams of the docid search (default: 10 or top_k)."})
    num_documents: int = field(default=2, metadata={"help": "Documents that RAG's generator reads (default: 2)."})
    query_likelihood_weight: float | None = field(
        default=None, metadata={"help": "Weight of the texts of documents found (default: each model's own)."}
    )
    max_new_tokens: int = field(default=24, metadata={"help": "Most tokens of an answer (default: 24)."})
    inference_batch_size: int = field(default=16, metadata={"help": "Queries worked on at a time (default: 16)."})
    limit: int | None = field(default=None, metadata={"help": "Models answer so many queries only."})
    num_resamples: int = field(default=2000, metadata={"help": "Resamples of the bootstrap (default: 2000)."})
    seed: int = field(default=42, metadata={"help": "Seed of the bootstrap and of the examples (default: 42)."})

    @property
    def models(self) -> dict[str, str]:
        """Folders or Hub ids by argument."""
        return {name: getattr(self, name) for name in MODEL_ARGUMENTS if getattr(self, name)}

    @property
    def chosen(self) -> bool:
        """Whether one of these modes is asked for."""
        return bool(self.predictions or self.compare or self.models)

    @property
    def cut_offs(self) -> list[int]:
        """`ks` as numbers."""
        return sorted({int(k) for k in self.ks.split(",")})

    def keys(self, default: tuple[str, ...] = WIKIPEDIA_ID) -> tuple[str, ...]:
        """`rank_keys` as a tuple."""
        return tuple(self.rank_keys.split(",")) if self.rank_keys else default

    def check(self) -> None:
        """Raises `ValueError` if the arguments do not make up one mode."""
        if sum(map(bool, (self.predictions, self.compare, self.models))) > 1:
            raise ValueError("--predictions, --compare and models are three modes: give the arguments of one.")
        if not self.labelled:
            raise ValueError("give the gold file to score by, --labelled GOLD.jsonl.")
        if self.compare and len(self.compare) != 2:
            raise ValueError(f"--compare takes two prediction files, got {len(self.compare)}.")
        if not all(k.strip().isdigit() and int(k) > 0 for k in self.ks.split(",")):
            raise ValueError(f"--ks is {self.ks!r}; give positive integers with commas between, such as 1,5,10.")
        if not all(key.strip() == key and key for key in self.keys()):
            raise ValueError(f"--rank_keys is {self.rank_keys!r}; give fields with commas between.")
        if self.num_resamples < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError("--num_resamples and --limit must be at least 1.")
        if not self.models:
            return
        if not self.output_dir:
            raise ValueError("give the folder to write the models' predictions to, --output_dir.")
        adapters, full = bool(self.rag_adapter or self.gar_adapter), bool(self.rag_model or self.gar_model)
        if adapters == full or bool(self.base) != adapters:
            raise ValueError("give --rag_model or --gar_model (or both), or --base with the adapters of these roles.")
        missing = sorted(NEEDED_ROLES.get(self.strategy, set()) - self.roles())
        if missing:
            raise ValueError(f"--strategy {self.strategy} needs a {missing[0].upper()} model too.")

    def roles(self) -> set[str]:
        """Roles of the models given."""
        return {role for role in ("rag", "gar") if getattr(self, f"{role}_model") or getattr(self, f"{role}_adapter")}

    def strategies(self) -> list[str]:
        """What to run."""
        chosen = STRATEGIES if self.strategy == "all" else [self.strategy]
        return [strategy for strategy in chosen if NEEDED_ROLES[strategy] <= self.roles()]
