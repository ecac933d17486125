"""Co-training: RAG and GAR write samples for each other, iteration by iteration (`mint.md`, Stage 2)."""

import json
import logging
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.features import SAMPLE_FEATURES
from dataset_builders.writing import write_text
from modeling_mint import MintForConditionalGeneration, MintProcessor

from .confidence import ConfidenceArguments, filter_samples
from .evaluation import METRICS, evaluate_role
from .pseudo_samples import write_samples
from .task_examples import tokenize_examples
from .training_stage import TRAINING_LOG_NAME, train_stage

logger = logging.getLogger(__name__)

PARTNER = {"rag": "gar", "gar": "rag"}


@dataclass
class CoTrainingArguments:
    """
    The rounds of co-training.

    Args:
        max_iterations (`int`, *optional*, defaults to 1): iterations at most.
        patience (`int`, *optional*, defaults to 2): stop after that many iterations in which the mean dev score of
            the two models did not rise.
        documents_per_iteration (`int`, *optional*, defaults to 1000): unlabelled documents that each model writes a
            sample for, drawn anew in each iteration.
        query_temperature (`float`, *optional*, defaults to 0.7): of the sampling of queries; 0 writes greedily.
        labelled_share (`float`, *optional*, defaults to 0.5): share of labelled samples in what a model trains on, so
            that it does not drift; in [0, 1).
        restart_from_warm_up (`bool`, *optional*, defaults to `False`): train each iteration from the warmed-up models
            on all kept samples so far, instead of from the last models on the new ones.
        dev_metric (`str`, *optional*, defaults to `"r_precision"`): the score that decides, see `evaluation.METRICS`.
    """

    max_iterations: int = field(default=1, metadata={"help": "Co-training iterations at most."})
    patience: int = field(default=2, metadata={"help": "Stop after that many iterations without a better dev score."})
    documents_per_iteration: int = field(
        default=1000, metadata={"help": "Unlabelled documents that each model writes a sample for, per iteration."}
    )
    query_temperature: float = field(
        default=0.7, metadata={"help": "Sampling temperature of the queries (0: greedy)."}
    )
    labelled_share: float = field(
        default=0.5, metadata={"help": "Share of labelled samples in the exchange training, in [0, 1)."}
    )
    restart_from_warm_up: bool = field(
        default=False, metadata={"help": "Start each iteration from the warmed-up models, with all kept samples."}
    )
    dev_metric: str = field(
        default="r_precision", metadata={"help": "Dev score that decides which iteration is best."}
    )

    def __post_init__(self):
        if not 0 <= self.labelled_share < 1:
            raise ValueError(f"`labelled_share` is {self.labelled_share}; it must lie in [0, 1).")
        if self.max_iterations < 1:
            raise ValueError(f"`max_iterations` is {self.max_iterations}; co-training takes at least 1.")
        if self.dev_metric not in METRICS:
            raise ValueError(f"`dev_metric` is {self.dev_metric!r}; it must be one of {METRICS}.")


class CoTrainer:
    """
    Runs the exchange (MINT, SIGIR 2025; `mint.md`, Stage 2):
    `theta(t+1) <- train theta(t) on the kept D_GAR`, `psi(t+1) <- train psi(t) on the kept D_RAG`.

    Each step of an iteration writes its result as a file or folder in `output_dir/iteration-<t>/`
    (`rag_samples.jsonl`, `gar_samples.jsonl`, `mint-rag/`, `mint-gar/`, `dev_scores.json`), complete or not at all; a
    run that was interrupted takes what is there and goes on.

    Args:
        models (`dict[str, str | os.PathLike]`):
            Folders of the warmed-up models, `{"rag": ..., "gar": ...}`.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        labelled (`datasets.Dataset`):
            Labelled training samples.
        validation (`datasets.Dataset`):
            Labelled samples that judge.
        unlabelled_rows (`list[int]`):
            Rows of the unlabelled documents D^-.
        output_dir (`str` or `os.PathLike`):
            Folder of the run.
        training_arguments (`dict`):
            Arguments of the exchange training, see [`joint_trainer`].
        arguments ([`CoTrainingArguments`], *optional*):
            The rounds.
        confidence ([`ConfidenceArguments`], *optional*):
            Scoring and filter of the samples.
        retriever ([`Bm25Retriever`], *optional*):
            Finds what labelled `grounded_answer` examples read, see [`tokenize_examples`].
        peft_config (`peft.PeftConfig`, *optional*):
            Train adapters (merged after each iteration).
        example_options (`dict`, *optional*):
            Options of [`tokenize_examples`]: `task_rates`, `num_documents`, `retrieved_share`.
        inference_options (`dict`, *optional*):
            Options of [`StrategyInference`].
        seed (`int`, *optional*, defaults to 42):
            Seed of all draws.
    """

    def __init__(
        self,
        models: dict[str, str | os.PathLike],
        processor: MintProcessor,
        labelled: Dataset,
        validation: Dataset,
        unlabelled_rows: list[int],
        output_dir: str | os.PathLike,
        training_arguments: dict,
        arguments: CoTrainingArguments | None = None,
        confidence: ConfidenceArguments | None = None,
        retriever: Bm25Retriever | None = None,
        peft_config=None,
        example_options: dict | None = None,
        inference_options: dict | None = None,
        seed: int = 42,
    ):
        self.warm_models = {role: Path(folder) for role, folder in models.items()}
        self.processor = processor
        self.labelled = labelled
        self.validation = validation
        self.unlabelled_rows = unlabelled_rows
        self.output_dir = Path(output_dir)
        self.training_arguments = training_arguments
        self.arguments = arguments or CoTrainingArguments()
        self.confidence = confidence or ConfidenceArguments()
        self.retriever = retriever
        self.peft_config = peft_config
        self.example_options = example_options or {}
        self.inference_options = inference_options or {}
        self.seed = seed

    def run(self) -> dict:
        """
        Co-trains until converged: at most `max_iterations`, less when the dev score stops rising.

        Returns:
            `dict`: `best_iteration` (0: the warmed-up models), `models` (folders of the best ones by role), and
            `iterations`, one entry each: `iteration`, `dev_scores` by role, `samples` and `kept` by role of the
            writer, and `precision` of the kept docids against the documents that the queries were written from.
        """
        models = dict(self.warm_models)
        iterations = [{"iteration": 0, "dev_scores": self._judge(0, models)}]
        best, best_models = iterations[0], models
        for iteration in range(1, self.arguments.max_iterations + 1):
            logger.info("Co-training, iteration %d of at most %d.", iteration, self.arguments.max_iterations)
            samples = self._write_and_filter(iteration, models)
            models = {role: self._train(iteration, role, samples[PARTNER[role]], models) for role in ("rag", "gar")}
            report = {"iteration": iteration, "dev_scores": self._judge(iteration, models), **_sample_report(samples)}
            iterations.append(report)
            if self._score(report) > self._score(best):
                best, best_models = report, models
            elif iteration - best["iteration"] >= self.arguments.patience:
                logger.info("Converged: no better dev score in %d iterations.", self.arguments.patience)
                break
        return {
            "best_iteration": best["iteration"],
            "models": {role: str(folder) for role, folder in best_models.items()},
            "iterations": iterations,
        }

    def _score(self, report: dict) -> float:
        return sum(scores[self.arguments.dev_metric] for scores in report["dev_scores"].values()) / 2

    def _folder(self, iteration: int) -> Path:
        folder = self.output_dir / f"iteration-{iteration}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write_and_filter(self, iteration: int, models: dict[str, Path]) -> dict[str, list[dict]]:
        """D_RAG and D_GAR of this iteration, by the role that wrote them, with `kept` set by the filter."""
        paths = {role: self._folder(iteration) / f"{role}_samples.jsonl" for role in ("rag", "gar")}
        if not all(path.is_file() for path in paths.values()):
            loaded = {role: MintForConditionalGeneration.from_pretrained(models[role]) for role in models}
            rng = random.Random(f"{self.seed}-{iteration}")
            count = min(self.arguments.documents_per_iteration, len(self.unlabelled_rows))
            rows = sorted(rng.sample(self.unlabelled_rows, count))
            for role, path in paths.items():
                if path.is_file():
                    continue
                samples = write_samples(
                    loaded[role],
                    loaded[PARTNER[role]],
                    rows,
                    self.processor,
                    iteration,
                    temperature=self.arguments.query_temperature,
                    seed=self.seed + iteration,
                    **self.inference_options,
                )
                samples = filter_samples(samples, self.confidence)
                write_text(path, "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples))
        return {role: read_samples(path) for role, path in paths.items()}

    def _train(self, iteration: int, role: str, partner_samples: list[dict], models: dict[str, Path]) -> Path:
        """The next model of `role`, trained on its partner's kept samples and some labelled ones."""
        folder = self._folder(iteration) / f"mint-{role}"
        if (folder / TRAINING_LOG_NAME).is_file():
            return folder
        kept = [sample for sample in partner_samples if sample["kept"]]
        start = models[role]
        if self.arguments.restart_from_warm_up:
            start = self.warm_models[role]
            for earlier in range(1, iteration):
                path = self._folder(earlier) / f"{PARTNER[role]}_samples.jsonl"
                kept = [sample for sample in read_samples(path) if sample["kept"]] + kept
        if not kept:
            logger.warning(
                "Iteration %d: no sample of %s was kept; %s stays as it is.", iteration, PARTNER[role], role
            )
            return start

        share = self.arguments.labelled_share
        num_labelled = min(len(self.labelled), round(len(kept) * share / (1 - share)))
        rng = random.Random(f"{self.seed}-{iteration}-{role}")
        replayed = self.labelled.select(sorted(rng.sample(range(len(self.labelled)), num_labelled)))
        examples = tokenize_examples(
            concatenate_datasets([Dataset.from_list(kept, features=SAMPLE_FEATURES), replayed]),
            role,
            self.processor,
            retriever=self.retriever,
            seed=self.seed + iteration,
            **self.example_options,
        )
        model = MintForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        arguments = {**self.training_arguments, "seed": self.seed + iteration}
        train_stage(model, examples, self.processor, folder, arguments, self.peft_config)
        return folder

    def _judge(self, iteration: int, models: dict[str, Path]) -> dict[str, dict]:
        """Dev scores of both models, by role."""
        path = self._folder(iteration) / "dev_scores.json"
        if not path.is_file():
            scores = {
                role: evaluate_role(
                    self.validation,
                    self.processor,
                    MintForConditionalGeneration.from_pretrained(folder),
                    **self.inference_options,
                )
                for role, folder in models.items()
            }
            write_text(path, json.dumps(scores, indent=1) + "\n")
        scores = json.loads(path.read_text(encoding="utf-8"))
        logger.info("Dev scores after iteration %d: %s", iteration, scores)
        return scores


def read_samples(path: str | os.PathLike) -> list[dict]:
    """Reads the samples that an iteration wrote."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _sample_report(samples: dict[str, list[dict]]) -> dict:
    kept = {role: [sample for sample in written if sample["kept"]] for role, written in samples.items()}

    def precision(chosen: list[dict]) -> float | None:
        right = [sample["docids"][0] == sample["provenance"][0][0] for sample in chosen]
        return sum(right) / len(right) if right else None

    return {
        "samples": {role: len(written) for role, written in samples.items()},
        "kept": {role: len(chosen) for role, chosen in kept.items()},
        "precision": {role: {"written": precision(samples[role]), "kept": precision(kept[role])} for role in samples},
    }
