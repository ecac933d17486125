"""Co-training: RAG and GAR write samples for each other, iteration by iteration (`mint.md`, Stage 2)."""

import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import TrainingArguments

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.title_substitution import ask_of_others
from dataset_builders.writing import write_text
from modeling_mint import MintProcessor

from .blocks import in_blocks, load_json_lines, this_process, write_json_lines
from .co_training_arguments import CoTrainingArguments
from .confidence import ConfidenceArguments, calibrate_threshold, filter_samples
from .dev_scores import dev_scores
from .exchange import exchange_samples
from .guards import best_before_collapse, is_finite, said
from .iteration_report import write_iteration_report
from .pseudo_samples import PARTNER, labelled_signals, write_samples
from .role_models import AdapterModels, FullModels
from .run_state import RunState, model_digest, samples_digest
from .task_examples import tokenize_examples
from .training_stage import TRAINING_LOG_NAME

logger = logging.getLogger(__name__)

LAST_STEP = "report"


class CoTrainer:
    """
    Runs the exchange (MINT, SIGIR 2025; `mint.md`, Stage 2):
    `theta(t+1) <- train theta(t) on the kept D_GAR`, `psi(t+1) <- train psi(t) on the kept D_RAG`.

    It is a state machine: an iteration is a row of steps, and `state.json` holds the results of those that are done. A
    run that was killed at any moment goes on from there, when it is started again, and ends as if it had been left
    alone. Each iteration has a folder `iteration-<t>/` in `output_dir` (`rag_samples.jsonl`, `gar_samples.jsonl`,
    `mint-rag/`, `mint-gar/`, `dev_scores.json` and the report); each file and folder there is whole or not there.

    Under `accelerate launch` all processes run the same steps: they share generation and judging block by block, train
    together, and the main process writes. They must share `output_dir`.

    What goes wrong is said in the log and in the report, and the run goes on: a model whose partner kept no sample
    stays as it is, and so does one whose training went to NaN; one whose dev score collapsed is rolled back to its
    best so far.

    Args:
        models ([`FullModels`] or [`AdapterModels`]):
            Loads and trains the two models.
        warm_up (`dict[str, str | os.PathLike]`):
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
            Finds what labelled `grounded_answer` examples read, see [`tokenize_examples`], and the related documents
            that labelled queries are asked of, see [`ask_of_others`].
        example_options (`dict`, *optional*):
            Options of [`tokenize_examples`], such as `task_rates` and `num_documents`.
        inference_options (`dict`, *optional*):
            Options of [`StrategyInference`].
        seed (`int`, *optional*, defaults to 42):
            Seed of all draws.
    """

    def __init__(
        self,
        models: FullModels | AdapterModels,
        warm_up: Mapping[str, str | os.PathLike],
        processor: MintProcessor,
        labelled: Dataset,
        validation: Dataset,
        unlabelled_rows: list[int],
        output_dir: str | os.PathLike,
        training_arguments: dict,
        arguments: CoTrainingArguments | None = None,
        confidence: ConfidenceArguments | None = None,
        retriever: Bm25Retriever | None = None,
        example_options: dict | None = None,
        inference_options: dict | None = None,
        seed: int = 42,
    ):
        self.models = models
        self.warm_up = {role: Path(folder) for role, folder in warm_up.items()}
        self.processor = processor
        self.labelled = labelled
        self.validation = validation
        self.unlabelled_rows = unlabelled_rows
        self.output_dir = Path(output_dir)
        self.training_arguments = training_arguments
        self.arguments = arguments or CoTrainingArguments()
        self.confidence = confidence or ConfidenceArguments()
        self.retriever = retriever
        self.example_options = example_options or {}
        self.inference_options = inference_options or {}
        self.seed = seed

    def run(self) -> dict:
        """
        Co-trains until converged: at most `max_iterations`, less when the dev score stops rising.

        Returns:
            `dict`: `best_iteration` (0: the warmed-up models), `models` (folders of the best ones by role), and
            `iterations`, one report each: what [`write_iteration_report`] gives (but for iteration 0), with
            `iteration`, `models` and `dev_scores` by role (of the models that the iteration ended with) and
            `warnings`.

        Raises:
            ValueError: if `output_dir` belongs to a run with other settings or other warmed-up models.
        """
        self.state = RunState(self.output_dir, self.settings())
        while not self._is_over():
            iteration = len(self.state.results_of(LAST_STEP))
            for name, step in self._steps(iteration).items():
                if name not in self.state.results(iteration):
                    logger.info("Co-training, iteration %d: %s.", iteration, name)
                    self.state.finish(iteration, name, step(iteration))
        reports = [
            report | {"models": {role: str(self._model(model, role)) for role, model in report["models"].items()}}
            for report in self.state.results_of(LAST_STEP)
        ]
        best = self._best_iteration()
        return {"best_iteration": best, "models": reports[best]["models"], "iterations": reports}

    def _steps(self, iteration: int) -> dict[str, Callable[[int], dict]]:
        """The steps of an iteration in order. Each gives what later ones need of it beside its files."""
        judge_and_report = {"judge": self._judge, LAST_STEP: self._report}
        if iteration == 0:
            return judge_and_report
        return {
            "generate_rag": partial(self._generate, role="rag"),
            "generate_gar": partial(self._generate, role="gar"),
            "calibrate": self._calibrate,
            "filter": self._filter,
            "train_rag": partial(self._train, role="rag"),
            "train_gar": partial(self._train, role="gar"),
            **judge_and_report,
        }

    def _is_over(self) -> bool:
        last = len(self.state.results_of(LAST_STEP)) - 1
        if last < 0:
            return False
        if last - self._best_iteration() >= self.arguments.patience:
            logger.info("Converged: no better dev score in %d iterations.", self.arguments.patience)
            return True
        return last >= self.arguments.max_iterations

    def _best_iteration(self) -> int:
        """The iteration with the highest mean dev score, the first of equals."""
        means = [sum(map(self._dev_score, judged["dev_scores"].values())) for judged in self.state.results_of("judge")]
        return means.index(max(means))

    def _dev_score(self, scores: dict) -> float:
        return scores[self.arguments.dev_metric]

    def _generate(self, iteration: int, role: str) -> dict:
        """A sample for each of the iteration's documents, which are the same for both writers."""
        rows, queries = self._documents(iteration)
        models = self._load(iteration)

        def write(items: range) -> list[dict]:
            return write_samples(
                models[role],
                self._partner(models, role),
                [rows[item] for item in items],
                self.processor,
                iteration,
                role=role,
                queries=queries and [queries[item] for item in items],
                temperature=self.arguments.query_temperature,
                seed=random.Random(f"{self.seed}-{iteration}-{role}-{items.start}").getrandbits(32),
                **self.inference_options,
            )

        in_blocks(len(rows), self.arguments.block_size, self._written(iteration, role), write)
        return {"samples": len(rows)}

    def _documents(self, iteration: int) -> tuple[list[int], list[str] | None]:
        """Rows of the documents to write for, and what to ask of them if that is not to be written too."""
        seed, number = f"{self.seed}-{iteration}", self.arguments.documents_per_iteration
        if self.arguments.query_source == "labelled":
            asked = ask_of_others(
                self.labelled, self.processor.collection, self.unlabelled_rows, number, self.retriever, seed
            )
            return list(asked), list(asked.values())
        number = min(number, len(self.unlabelled_rows))
        return sorted(random.Random(seed).sample(self.unlabelled_rows, number)), None

    def _partner(self, models: dict, role: str):
        """The model that is asked whether it agrees; none where no agreement counts."""
        agreement = self.confidence.weight_docid_agreement or self.confidence.weight_answer_agreement
        return models[PARTNER[role]] if agreement else None

    def _calibrate(self, iteration: int) -> dict:
        """Thresholds by role, from the replies to labelled queries; only the rule "calibrated" asks for them."""
        if self.confidence.keep != "calibrated":
            return {}
        models, thresholds = self._load(iteration), {}
        for role in PARTNER:
            pair = models[role], self._partner(models, role)

            def signals_of(items: range, pair=pair, role=role) -> list[dict]:
                samples = self.validation.select(items)
                return labelled_signals(*pair, samples, self.processor, role=role, **self.inference_options)

            folder = self._folder(iteration) / f"{role}_calibration"
            signals = in_blocks(len(self.validation), self.arguments.block_size, folder, signals_of)
            thresholds[role] = calibrate_threshold(signals, self.confidence)
        return thresholds

    def _filter(self, iteration: int) -> dict:
        warnings = []
        thresholds = self.state.results(iteration)["calibrate"]
        for role in PARTNER:
            blocks = sorted(self._written(iteration, role).glob("block-*.jsonl"))
            written = [sample for block in blocks for sample in load_json_lines(block)]
            samples = filter_samples(written, self.confidence, thresholds.get(role))
            if all(sample["kept"] for sample in samples):
                warnings.append(f"All {len(samples)} samples of {role} were kept: the filter told nothing apart.")
            if this_process().is_main_process:
                write_json_lines(self._samples(iteration, role), samples)
        return {"warnings": said(iteration, warnings)}

    def _train(self, iteration: int, role: str) -> dict:
        """
        The next model of a role, trained on its partner's kept samples and some labelled ones. `model` is the
        iteration that the role's model is of from here on, 0 for the warmed-up one.
        """
        partner = PARTNER[role]
        before = self.state.results_of("judge")[-1]["models"][role]
        kept = self._kept(iteration, partner)
        if not kept:
            warning = f"No sample of {partner} was kept: {role} stays as it is."
            return {"model": before, "losses": {}, "warnings": said(iteration, [warning])}
        start = before
        if self.arguments.restart_from_warm_up:
            start = 0
            kept = [sample for earlier in range(1, iteration) for sample in self._kept(earlier, partner)] + kept

        folder = self._model(iteration, role)
        log = folder / TRAINING_LOG_NAME
        if not log.is_file():
            samples = exchange_samples(
                kept,
                self.labelled,
                labelled_share=self.arguments.labelled_share,
                max_pseudo_ratio=self.arguments.max_pseudo_ratio,
                weighting=self.arguments.weighting,
                docid_target=self.arguments.docid_target,
                query_source=self.arguments.query_source,
                seed=f"{self.seed}-{iteration}-{role}",
            )
            seed = self.seed + iteration
            examples = tokenize_examples(
                samples, role, self.processor, retriever=self.retriever, seed=seed, **self.example_options
            )
            arguments = {**self.training_arguments, "seed": seed}
            self.models.train(role, self._model(start, role), examples, folder, arguments)
        history = json.loads(log.read_text(encoding="utf-8"))
        last = {name: loss for entry in history for name, loss in entry.items() if name.startswith("loss")}
        # A log that went through a checkpoint has its names in another order.
        losses = dict(sorted(last.items()))
        if is_finite(folder, history):
            return {"model": iteration, "losses": losses, "warnings": []}
        warning = f"The training of {role} went to NaN or infinity: {role} is rolled back to where it was before."
        return {"model": before, "losses": {}, "warnings": said(iteration, [warning])}

    def _judge(self, iteration: int) -> dict:
        """Models and dev scores by role, after those that collapsed are rolled back."""
        earlier, results, warnings = self.state.results_of("judge"), self.state.results(iteration), []
        models = {role: results[f"train_{role}"]["model"] if iteration else 0 for role in PARTNER}
        scores = {
            role: self._dev_scores(iteration, role) if model == iteration else earlier[-1]["dev_scores"][role]
            for role, model in models.items()
        }
        for role in PARTNER:
            best = best_before_collapse(role, scores[role], earlier, self.arguments)
            if best is not None:
                warnings.append(
                    f"The dev score of {role} collapsed from {self._dev_score(best['dev_scores'][role]):.3f} to "
                    f"{self._dev_score(scores[role]):.3f}: {role} is rolled back to iteration {best['models'][role]}."
                )
                models[role], scores[role] = best["models"][role], best["dev_scores"][role]
        if this_process().is_main_process:
            write_text(self._folder(iteration) / "dev_scores.json", json.dumps(scores, indent=1) + "\n")
        logger.info("Dev scores after iteration %d: %s", iteration, scores)
        return {"models": models, "dev_scores": scores, "warnings": said(iteration, warnings)}

    def _dev_scores(self, iteration: int, role: str) -> dict:
        model = self.models.load({role: self._model(iteration, role)})[role]
        return dev_scores(
            self.validation,
            self.processor,
            model,
            role,
            self._folder(iteration) / f"{role}_predictions",
            block_size=self.arguments.block_size,
            **self.inference_options,
        )

    def _report(self, iteration: int) -> dict:
        results = self.state.results(iteration)
        models, scores = results["judge"]["models"], results["judge"]["dev_scores"]
        warnings = [warning for result in results.values() for warning in result.get("warnings", [])]
        report = {"iteration": iteration, "models": models, "dev_scores": scores, "warnings": warnings}
        if iteration and this_process().is_main_process:
            samples = {role: load_json_lines(self._samples(iteration, role)) for role in PARTNER}
            losses = {role: results[f"train_{role}"]["losses"] for role in PARTNER}
            folder, thresholds = self._folder(iteration), results["calibrate"]
            report |= write_iteration_report(folder, iteration, samples, scores, losses, thresholds, warnings)
        return report

    def _load(self, iteration: int) -> dict:
        """The models that an iteration starts with, ready for inference."""
        models = self.state.results_of("judge")[iteration - 1]["models"]
        return self.models.load({role: self._model(model, role) for role, model in models.items()})

    def _folder(self, iteration: int) -> Path:
        folder = self.output_dir / f"iteration-{iteration}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _model(self, iteration: int, role: str) -> Path:
        return self._folder(iteration) / f"mint-{role}" if iteration else self.warm_up[role]

    def _written(self, iteration: int, role: str) -> Path:
        return self._folder(iteration) / f"{role}_written"

    def _samples(self, iteration: int, role: str) -> Path:
        return self._folder(iteration) / f"{role}_samples.jsonl"

    def _kept(self, iteration: int, role: str) -> list[dict]:
        return [sample for sample in load_json_lines(self._samples(iteration, role)) if sample["kept"]]

    def settings(self) -> dict:
        """All that decides how the run ends, fit for JSON; a converged run may still be given more iterations."""
        arguments = asdict(self.arguments)
        del arguments["max_iterations"], arguments["patience"]
        inference = {name: value for name, value in self.inference_options.items() if name != "show_progress"}
        # A step is the same on two processes as on one that accumulates two micro-batches.
        training = dict(self.training_arguments)
        per_device = training.pop("per_device_train_batch_size", TrainingArguments.per_device_train_batch_size)
        accumulated = training.pop("gradient_accumulation_steps", 1)
        groups = {
            "arguments": arguments,
            "confidence": asdict(self.confidence),
            "training": training | {"examples_per_step": per_device * accumulated * this_process().num_processes},
            "examples": self.example_options,
            "inference": inference,
            "warm_up": {role: model_digest(folder) for role, folder in self.warm_up.items()},
            "data": {
                "documents": len(self.processor.collection),
                "labelled": samples_digest(self.labelled),
                "validation": samples_digest(self.validation),
                "unlabelled": len(self.unlabelled_rows),
            },
            "run": {"models": type(self.models).__name__, "seed": self.seed},
        }
        return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
