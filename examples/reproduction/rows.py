"""The rows of the table: how each pair of models is trained, from what, and from which other pair on."""

import shutil
from collections.abc import Callable
from pathlib import Path

from controls import BOUNDS, CONTROLS
from data import Data
from datasets import Dataset, concatenate_datasets
from later_stages import LATER_STAGES
from settings import (
    AUXILIARY_RATES,
    EXCHANGE,
    EXCHANGE_LEARNING_RATE,
    NUM_DOCUMENTS,
    RATES_OF_READING,
    WARM_UP,
    Settings,
    adapter_config,
    co_training,
    labelled_rates,
    training_arguments,
)

from modeling_mint import MintConfig, MintProcessor
from modeling_mint.configuration_mint import ROLES
from trainers.blocks import load_json_lines
from trainers.co_trainer import CoTrainer
from trainers.confidence import ConfidenceArguments
from trainers.role_models import AdapterModels
from trainers.task_examples import tokenize_examples
from trainers.training_stage import TRAINING_LOG_NAME, whole_folder

INFERENCE = {"num_beams": 5, "num_documents": NUM_DOCUMENTS, "batch_size": 32, "show_progress": False}


class Rows:
    """
    Trains the models of the table's rows. A row is a folder with `mint-rag/` and `mint-gar/`, LoRA adapters on one
    base; what is there already is not trained again.

    Args:
        settings ([`Settings`]): number of labels and seed.
        data ([`Data`]): what to train on.
        confidence ([`ConfidenceArguments`]): which samples are exchanged.
    """

    def __init__(self, settings: Settings, data: Data, confidence: ConfidenceArguments):
        self.settings, self.data, self.confidence = settings, data, confidence
        self.models = AdapterModels(settings.root / "mint-base", data.processor, adapter_config())
        self.labelled_rates = labelled_rates(len(data.train))

    def train(self, name: str) -> dict[str, Path]:
        """
        Trains a row, and the rows that it goes on from.

        Args:
            name (`str`): a key of `ROWS`, or `"co-training-<t>"`.

        Returns:
            `dict[str, pathlib.Path]`: folders of the adapters by role.
        """
        if name.startswith("co-training-"):
            iterations = int(name.removeprefix("co-training-"))
            return self.co_training(WARM_UP, self.train(WARM_UP), iterations)
        return ROWS[name](self)

    def index(self) -> dict[str, Path]:
        """
        Both models know the articles (`document_to_docid`): trained once for all rows, since the task is the same for
        both roles and needs no labels.
        """
        self._save_base()
        folders = {role: self.settings.root / "index" / f"mint-{role}" for role in ROLES}
        if not (folders["rag"] / TRAINING_LOG_NAME).is_file():
            examples = tokenize_examples(self.data.index_samples, "rag", self.data.index_processor)
            self.models.train("rag", None, examples, folders["rag"], training_arguments(1e-3, 0))
        if not folders["gar"].is_dir():
            with whole_folder(folders["gar"]) as partial:
                shutil.copytree(folders["rag"], partial, dirs_exist_ok=True)
                config = MintConfig.from_pretrained(partial)
                config.role = "gar"
                config.save_pretrained(partial)
        return folders

    def basic(self) -> dict[str, Path]:
        """Warm-up on the labels alone."""
        samples = concatenate_datasets([self.data.train, self.data.index_samples])
        return self.train_roles(
            "basic", self.index(), lambda role: self.examples(samples, role, self.labelled_rates), 5e-4
        )

    def auxiliary(self) -> dict[str, Path]:
        """Warm-up on the labels and on what the external LLM wrote."""
        return self.train_roles("auxiliary", self.index(), self.warm_up_examples, 5e-4)

    def warm_up_examples(self, role: str) -> Dataset:
        """What a role (`str`) learns in the warm-up `auxiliary` ([`datasets.Dataset`])."""
        labelled = concatenate_datasets([self.data.train, self.data.index_samples])
        parts = [
            self.examples(labelled, role, self.labelled_rates),
            self.examples(self.data.auxiliary, role, AUXILIARY_RATES),
        ]
        return concatenate_datasets(parts)

    def co_training(self, start: str, folders: dict[str, Path], iterations: int) -> dict[str, Path]:
        """Co-training after the row `start`, whose adapters are in these folders."""
        trainer = CoTrainer(
            self.models,
            folders,
            self.data.processor,
            labelled=self.data.train,
            validation=self.data.validation,
            unlabelled_rows=self.data.unlabelled_rows,
            output_dir=self._co_training_folder(start),
            training_arguments=training_arguments(EXCHANGE_LEARNING_RATE, self.settings.seed),
            arguments=co_training(self.settings, iterations),
            confidence=self.confidence,
            retriever=self.data.retriever,
            example_options={"num_documents": NUM_DOCUMENTS, **EXCHANGE},
            inference_options=INFERENCE,
            seed=self.settings.seed,
        )
        done = trainer.run()["iterations"][iterations]
        if start == WARM_UP:
            self.settings.reports.mkdir(parents=True, exist_ok=True)
            for iteration in range(1, iterations + 1):
                report = self._co_training_folder(start) / f"iteration-{iteration}" / "report.json"
                shutil.copyfile(report, self.settings.reports / f"iteration-{iteration}.json")
        return {role: Path(folder) for role, folder in done["models"].items()}

    def exchanged(self, start: str) -> dict[str, int]:
        """
        How many samples (`dict[str, int]`) the first iteration after the row `start` wrote, `"train"`, and of them
        `"kept"`; none before it.
        """
        if not self._co_training_folder(start).is_dir():
            return {"train": 0, "kept": 0}
        samples = [sample for role in ROLES for sample in self.written(role, start)]
        return {"train": len(samples), "kept": sum(sample["kept"] for sample in samples)}

    def train_roles(
        self, name: str, start: dict[str, Path], examples: Callable[[str], Dataset], learning_rate: float
    ) -> dict[str, Path]:
        """
        Trains the roles of a row for one pass.

        Args:
            name (`str`): name of the row.
            start (`dict[str, pathlib.Path]`): folders of the adapters to go on from, by the roles to train.
            examples (`Callable[[str], datasets.Dataset]`): gives what a role is trained on.
            learning_rate (`float`): the highest one.

        Returns:
            `dict[str, pathlib.Path]`: folders of the adapters by role.
        """
        folders = {role: self.settings.folder / name / f"mint-{role}" for role in start}
        for role, folder in folders.items():
            if not (folder / TRAINING_LOG_NAME).is_file():
                arguments = training_arguments(learning_rate, self.settings.seed)
                self.models.train(role, start[role], examples(role), folder, arguments)
        return folders

    def started_from(self, row: str) -> dict[str, Path]:
        """
        Folders of the adapters to go on from by role (`dict[str, pathlib.Path]`): the published ones if `adapters`
        names them, else those of a row.
        """
        if not self.settings.adapters:
            return self.train(row)
        self._save_base()
        return {role: Path(self.settings.adapters) / f"mint-{role}-adapter" for role in ROLES}

    def reading_examples(self, role: str) -> Dataset:
        """Examples of reading what is there to be read ([`datasets.Dataset`])."""
        return self.examples(self.data.readable, role, RATES_OF_READING, retrieved_share=0)

    def _save_base(self) -> None:
        AdapterModels.save_base(self.settings.backbone, self.data.processor, self.settings.root / "mint-base")

    def examples(
        self,
        samples: Dataset,
        role: str,
        task_rates: dict[str, float],
        processor: MintProcessor | None = None,
        **options,
    ) -> Dataset:
        """[`tokenize_examples`] with what all rows have in common ([`datasets.Dataset`])."""
        return tokenize_examples(
            samples,
            role,
            processor or self.data.processor,
            retriever=self.data.retriever,
            num_documents=NUM_DOCUMENTS,
            task_rates=task_rates,
            **{"seed": self.settings.seed} | options,
        )

    def _co_training_folder(self, start: str) -> Path:
        return self.settings.folder / f"co-training-after-{start}"

    def written(self, role: str, start: str = WARM_UP) -> list[dict]:
        """What a role (`str`) wrote in the first iteration after the row `start` (`list[dict]`)."""
        return load_json_lines(self._co_training_folder(start) / "iteration-1" / f"{role}_samples.jsonl")

    def kept(self, role: str) -> list[dict]:
        """What the filter kept of what a role (`str`) wrote in the first iteration (`list[dict]`)."""
        return [sample for sample in self.written(role) if sample["kept"]]


ROWS = {"basic": Rows.basic, "auxiliary": Rows.auxiliary} | CONTROLS | BOUNDS | LATER_STAGES
