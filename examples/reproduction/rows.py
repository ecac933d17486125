"""The rows of the table: how each pair of models is trained, from what, and from which other pair on."""

import shutil
from collections.abc import Callable
from pathlib import Path

from data import Data
from datasets import Dataset, concatenate_datasets
from settings import (
    AUXILIARY_RATES,
    EXCHANGE,
    EXCHANGE_LEARNING_RATE,
    NUM_DOCUMENTS,
    RATES_OF_BRIEF_READING,
    RATES_OF_QUERIES,
    RATES_OF_READING,
    RATES_OF_REMEMBERING,
    RATES_OF_REPETITION,
    RATES_OF_SUBSTITUTION,
    WARM_UP,
    Settings,
    adapter_config,
    co_training,
    labelled_rates,
    title_substitutions,
    training_arguments,
)

from modeling_mint import MintConfig, MintProcessor
from modeling_mint.configuration_mint import ROLES
from trainers.blocks import load_json_lines
from trainers.co_trainer import CoTrainer
from trainers.confidence import ConfidenceArguments
from trainers.exchange import exchange_samples
from trainers.pseudo_samples import PARTNER
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
        return self._train(
            "basic", self.index(), lambda role: self._examples(samples, role, self.labelled_rates), 5e-4
        )

    def auxiliary(self) -> dict[str, Path]:
        """Warm-up on the labels and on what the external LLM wrote."""
        return self._train("auxiliary", self.index(), self._warm_up_examples, 5e-4)

    def _warm_up_examples(self, role: str) -> Dataset:
        labelled = concatenate_datasets([self.data.train, self.data.index_samples])
        parts = [
            self._examples(labelled, role, self.labelled_rates),
            self._examples(self.data.auxiliary, role, AUXILIARY_RATES),
        ]
        return concatenate_datasets(parts)

    def substituted(self) -> dict[str, Path]:
        """
        The warm-up's last stage, or that of published adapters: the labels, and copies of them that ask about other
        articles.
        """
        return self._train("substituted", self._start("auxiliary"), self._substituted_examples, 5e-4)

    def _substituted_examples(self, role: str) -> Dataset:
        copies = title_substitutions(len(self.data.train))
        labels = self._examples(self.data.train, role, RATES_OF_SUBSTITUTION, title_substitutions=copies)
        brief = self._examples(self.data.train, role, RATES_OF_BRIEF_READING, self.data.brief_processor)
        return concatenate_datasets([labels, self._reading_examples(role), brief])

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

    def whole_collection(self) -> dict[str, Path]:
        """
        What the checkpoints are: the first iteration, or what `adapters` names, gone on with the articles that the
        other rows know of by their titles only, and the labels again.
        """
        known = set(self.data.index_rows)
        others = [row for row in range(len(self.data.processor.collection)) if row not in known]

        def examples(role: str) -> Dataset:
            articles = tokenize_examples(self.data.bare_articles(others), role, self.data.brief_processor)
            labels = self._examples(self.data.train, role, RATES_OF_REPETITION)
            return concatenate_datasets([articles, labels, self._reading_examples(role)])

        return self._train("whole-collection", self._start("co-training-1"), examples, 5e-4)

    def query_likelihood(self) -> dict[str, Path]:
        """
        The whole collection's models, or published adapters, gone on with the queries of all labels, to rank by them
        too (`document_to_query`), and some of the labels again: others than in the stages before.
        """

        def examples(role: str) -> Dataset:
            return self._examples(self.data.train, role, RATES_OF_QUERIES, seed=self.settings.seed + 1)

        return self._train("query-likelihood", self._start("whole-collection"), examples, 5e-4)

    def grounded(self) -> dict[str, Path]:
        """
        The models that read before they rank, or published adapters, RAG's gone on with the answers of all labels,
        which the stages before gave it a third of; GAR, which has seen them several times, is as it was.
        """

        def examples(role: str) -> Dataset:
            seed = self.settings.seed + 2
            retrieval = self._examples(self.data.train, role, RATES_OF_REMEMBERING, seed=seed)
            answers = self._examples(
                self.data.train, role, RATES_OF_READING, self.data.brief_processor, retrieved_share=0.2, seed=seed
            )
            return concatenate_datasets([retrieval, answers, self._reading_examples(role)])

        start = self._start("query-likelihood")
        return start | self._train("grounded", {"rag": start["rag"]}, examples, 5e-4)

    def co_trained(self) -> dict[str, Path]:
        """The models that were trained longest, or published adapters, after one iteration of co-training."""
        return self.co_training("grounded", self._start("grounded"), 1)

    def no_auxiliary(self) -> dict[str, Path]:
        """One iteration of co-training after the warm-up on the labels alone."""
        return self.co_training("basic", self.train("basic"), 1)

    def no_exchange(self) -> dict[str, Path]:
        """As the first iteration, but each model learns from its own kept samples."""
        self.train("co-training-1")
        return self._instead_of_the_first_iteration("no-exchange", lambda role: self._kept(role))

    def no_filter(self) -> dict[str, Path]:
        """As the first iteration, but each model learns from as many of its partner's samples as came, unfiltered."""
        self.train("co-training-1")

        def samples(role: str) -> list[dict]:
            written, number = self._written(PARTNER[role]), len(self._kept(PARTNER[role]))
            return [self._with_source(written[place * len(written) // number]) for place in range(number)]

        return self._instead_of_the_first_iteration("no-filter", samples)

    def _with_source(self, sample: dict) -> dict:
        """The sample with the article that its query asks about among its docids, where the writer did not find it."""
        if sample["confidence"]["round_trip_rank"]:
            return sample
        row = int(sample["id"].rsplit("-", 1)[1])
        title, _ = self.data.processor.document(row)
        found = {"docids": [title, *sample["docids"]], "rows": [row, *sample["rows"]]}
        return sample | found | {"confidence": sample["confidence"] | {"round_trip_rank": 1}}

    def continued(self) -> dict[str, Path]:
        """
        The warm-up simply goes on, on its own data, with as many samples and optimizer steps as one iteration has.
        """
        self.train("co-training-1")

        def examples(role: str) -> Dataset:
            pool = self._warm_up_examples(role).shuffle(self.settings.seed)
            number = len(self._exchange_examples(role, self._kept(PARTNER[role])))
            return concatenate_datasets([pool] * -(-number // len(pool))).select(range(number))

        return self._train("continued", self.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)

    def more_labels(self) -> dict[str, Path]:
        """
        Not a control but a bound: in the place of the partner's kept samples as many labels, which this number of
        labels does not have.
        """
        self.train("co-training-1")

        def examples(role: str) -> Dataset:
            labels = self.data.more_labels
            number = min(len(self._kept(PARTNER[role])), len(labels))
            more = concatenate_datasets([labels.select(range(number)), self.data.train])
            return self._examples(more, role, **EXCHANGE)

        return self._train("more-labels", self.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)

    def _instead_of_the_first_iteration(self, name: str, samples: Callable[[str], list[dict]]) -> dict[str, Path]:
        def examples(role: str) -> Dataset:
            return self._exchange_examples(role, samples(role))

        return self._train(name, self.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)

    def _exchange_examples(self, role: str, samples: list[dict]) -> Dataset:
        """What a model trains on in the first iteration, were these its partner's kept samples."""
        arguments = co_training(self.settings, 1)
        exchanged = exchange_samples(
            samples,
            self.data.train,
            labelled_share=arguments.labelled_share,
            max_pseudo_ratio=arguments.max_pseudo_ratio,
            weighting=arguments.weighting,
            docid_target=arguments.docid_target,
            query_source=arguments.query_source,
            seed=f"{self.settings.seed}-1-{role}",
        )
        return self._examples(exchanged, role, **EXCHANGE)

    def exchanged(self, start: str) -> dict[str, int]:
        """
        How many samples (`dict[str, int]`) the first iteration after the row `start` wrote, `"train"`, and of them
        `"kept"`; none before it.
        """
        if not self._co_training_folder(start).is_dir():
            return {"train": 0, "kept": 0}
        samples = [sample for role in ROLES for sample in self._written(role, start)]
        return {"train": len(samples), "kept": sum(sample["kept"] for sample in samples)}

    def _train(
        self, name: str, start: dict[str, Path], examples: Callable[[str], Dataset], learning_rate: float
    ) -> dict[str, Path]:
        folders = {role: self.settings.folder / name / f"mint-{role}" for role in start}
        for role, folder in folders.items():
            if not (folder / TRAINING_LOG_NAME).is_file():
                arguments = training_arguments(learning_rate, self.settings.seed)
                self.models.train(role, start[role], examples(role), folder, arguments)
        return folders

    def _start(self, row: str) -> dict[str, Path]:
        """The published adapters to go on from if `adapters` names them, else those of a row."""
        if not self.settings.adapters:
            return self.train(row)
        self._save_base()
        return {role: Path(self.settings.adapters) / f"mint-{role}-adapter" for role in ROLES}

    def _reading_examples(self, role: str) -> Dataset:
        return self._examples(self.data.readable, role, RATES_OF_READING, retrieved_share=0)

    def _save_base(self) -> None:
        AdapterModels.save_base(self.settings.backbone, self.data.processor, self.settings.root / "mint-base")

    def _examples(
        self,
        samples: Dataset,
        role: str,
        task_rates: dict[str, float],
        processor: MintProcessor | None = None,
        **options,
    ) -> Dataset:
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

    def _written(self, role: str, start: str = WARM_UP) -> list[dict]:
        return load_json_lines(self._co_training_folder(start) / "iteration-1" / f"{role}_samples.jsonl")

    def _kept(self, role: str) -> list[dict]:
        return [sample for sample in self._written(role) if sample["kept"]]


CONTROLS = {
    "continued": Rows.continued,
    "no-exchange": Rows.no_exchange,
    "no-filter": Rows.no_filter,
    "no-auxiliary": Rows.no_auxiliary,
}
ROWS = CONTROLS | {
    "basic": Rows.basic,
    "auxiliary": Rows.auxiliary,
    "substituted": Rows.substituted,
    "more-labels": Rows.more_labels,
    "whole-collection": Rows.whole_collection,
    "query-likelihood": Rows.query_likelihood,
    "grounded": Rows.grounded,
    "co-trained": Rows.co_trained,
}
