"""The settings of the reproduction: what it trains on, and how much."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig

from modeling_mint.compute_dtype import compute_dtype
from trainers.blocks import this_process
from trainers.co_training_arguments import CoTrainingArguments


@dataclass
class Settings:
    """
    One setting of the reproduction: a number of labels and a seed.

    Args:
        collection (`str`): JSON or JSONL of the articles.
        train (`str`): KILT JSONL of the labelled queries that labels are drawn from.
        dev (`str`): KILT JSONL of the queries that every system is judged by, and nothing else.
        backbone (`str`): folder or Hub id of the language model.
        llm (`str`, *optional*): folder or Hub id of the external LLM that writes the auxiliary data. Defaults to the
            backbone.
        encoder (`str`, *optional*): folder or Hub id of the sentence-transformers model of dense retrieval. Defaults
            to all-MiniLM-L6-v2, fetched when it is needed.
        output_dir (`str`, *optional*, defaults to `"outputs/reproduction"`): folder of what was computed; a run that
            was interrupted goes on from there.
        results (`str`, *optional*): folder of what is worth keeping: predictions, co-training's reports, the titles of
            the articles trained on. What was judged is not trained again, on another machine either. Defaults to
            `output_dir`.
        num_labels (`int`, *optional*, defaults to 250): labels drawn from `train`, a fifth of which (400 at most) is
            kept to select models and calibrate by; 0 takes all.
        seed (`int`, *optional*, defaults to 0): seed of the draw of labels and of all that follows.
        rows (`list[str]`, *optional*): rows of the table to compute, in order; all by default.
        judged_on (`str`, *optional*, defaults to `"dev"`): the queries that systems are judged by: `"dev"`; or of the
            labels in `train` that were not drawn, `"held_out"`, 700 or half of them, to choose a method by, or
            `"answers"`, the open questions whose answer stands in their article, since `dev` has few.
        questions (`str`, *optional*): KILT JSONL of further queries to calibrate by, beside the labels held out; where
            they have splits, those of `train`.
        adapters (`str`, *optional*): folder of published adapters, `mint-<role>-adapter/`, that `substituted`,
            `whole-collection`, `query-likelihood`, `grounded`, `sentences`, `recalibrated` and `co-trained` go on
            from. Defaults to `auxiliary`, to the first iteration of co-training, and to the one before in this order,
            but for `co-trained`, which goes on from `grounded` too, and for `grounded` itself, which with few labels
            goes on from the first iteration.
        num_index_documents (`int`, *optional*, defaults to 2500): unlabelled articles to train on.
        iterations (`int`, *optional*, defaults to 2): co-training iterations.
        documents_per_iteration (`int`, *optional*, defaults to 1280): articles that each model writes for in one.
        num_beams (`int`, *optional*, defaults to 10): beams of the docid search that is judged.
    """

    collection: str = field(metadata={"help": "JSON or JSONL of the articles."})
    train: str = field(metadata={"help": "KILT JSONL that labels are drawn from."})
    dev: str = field(metadata={"help": "KILT JSONL that systems are judged by."})
    backbone: str = field(metadata={"help": "Folder or Hub id of the language model."})
    llm: str = field(default="", metadata={"help": "External LLM (default: the backbone)."})
    encoder: str = field(default="", metadata={"help": "Encoder of dense retrieval (default: all-MiniLM-L6-v2)."})
    output_dir: str = field(default="outputs/reproduction", metadata={"help": "Folder of what was computed."})
    results: str = field(default="", metadata={"help": "Folder of what is worth keeping (default: output_dir)."})
    num_labels: int = field(default=250, metadata={"help": "Labels drawn from train (0: all)."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of labels and of training."})
    rows: list[str] = field(default_factory=list, metadata={"help": "Rows of the table to compute (default: all)."})
    judged_on: str = field(
        default="dev", metadata={"help": "Queries to judge by.", "choices": ["dev", "held_out", "answers"]}
    )
    questions: str = field(default="", metadata={"help": "KILT JSONL of further queries to calibrate by."})
    adapters: str = field(default="", metadata={"help": "Published adapters to go on from (default: another row's)."})
    num_index_documents: int = field(default=2500, metadata={"help": "Unlabelled articles to train on."})
    iterations: int = field(default=2, metadata={"help": "Co-training iterations."})
    documents_per_iteration: int = field(default=1280, metadata={"help": "Articles that each model writes for."})
    num_beams: int = field(default=10, metadata={"help": "Beams of the docid search that is judged."})

    @property
    def root(self) -> Path:
        """Folder (`pathlib.Path`) of what all settings share."""
        return Path(self.output_dir)

    @property
    def folder(self) -> Path:
        """Folder (`pathlib.Path`) of this number of labels and this seed."""
        return self.root / self._name

    @property
    def kept(self) -> Path:
        """Folder (`pathlib.Path`) of what is worth keeping."""
        return Path(self.results or self.output_dir)

    @property
    def predictions(self) -> Path:
        """Folder (`pathlib.Path`) of the replies that are judged: `<row>.<strategy>.jsonl`."""
        return self.kept / ("predictions" if self.judged_on == "dev" else self.judged_on) / self._name

    def replies(self, name: str) -> Path:
        """Folder (`pathlib.Path`) of the replies of a row (`str`) that are being made."""
        return self.folder / "replies" / name / self.judged_on

    @property
    def reports(self) -> Path:
        """Folder (`pathlib.Path`) of co-training's reports: `iteration-<t>.json`."""
        return self.kept / "reports" / self._name

    @property
    def _name(self) -> str:
        return f"labels-{self.num_labels or 'all'}-seed-{self.seed}"


WARM_UP = "auxiliary"
"""The row that co-training and its controls go on from."""

MAX_DOCUMENT_CHARS = 400
BRIEF_DOCUMENT_CHARS = 200  # to have all articles in the time, and where labels are too few to learn reading from
NUM_DOCUMENTS = 2
HELD_OUT = 700  # labels that were not drawn, to choose a method by

# How often the examples of a task are taken. What few labels teach comes several times; of the articles, which the
# index stage taught already, some come again.
RATES_OF_FEW_LABELS = {
    "query_to_docid": 4,
    "query_answer_to_docid": 4,
    "closed_book_answer": 4,
    "grounded_answer": 1,
    "document_to_query": 1,
    "document_to_docid": 0.1,
}
RATES_OF_MANY_LABELS = {
    "query_to_docid": 1.5,
    "query_answer_to_docid": 1.5,
    "closed_book_answer": 1.5,
    "grounded_answer": 0.25,
    "document_to_query": 0.1,
    "document_to_docid": 0.1,
}
RATES_OF_REPETITION = {
    "query_to_docid": 2,
    "query_answer_to_docid": 1.5,
    "closed_book_answer": 1,
    "grounded_answer": 0.08,
    "document_to_query": 0.05,
}
# A short stage after the warm-up: the labels once more, and copies that ask about other articles.
RATES_OF_SUBSTITUTION = {
    "query_to_docid": 1,
    "query_answer_to_docid": 1,
    "closed_book_answer": 0.3,
    "grounded_answer": 0,
    "document_to_query": 0.02,
}
# To rank by what documents say: how people ask is learnt from all labels, and retrieval is not forgotten.
RATES_OF_QUERIES = {
    "document_to_query": 1,
    "query_to_docid": 0.5,
    "query_answer_to_docid": 0.5,
    "closed_book_answer": 0.25,
    "grounded_answer": 0,
}
# A reader learns to read from what it can read, questions whose answer stands in their article, and from some of all
# labels, with less of the articles: without these RAG forgets how claims are judged (examples/results/README.md).
RATES_OF_READING = dict.fromkeys(RATES_OF_SUBSTITUTION, 0) | {"grounded_answer": 1}
RATES_OF_BRIEF_READING = RATES_OF_READING | {"grounded_answer": 0.25}
# What a stage of other tasks must not make RAG forget.
RATES_OF_REMEMBERING = {"query_to_docid": 0.5, "document_to_query": 0.2, "grounded_answer": 0}
REPETITIONS_OF_FEW_LABELS = 4  # in a stage that many labels pass once
# Of the labels, beside the sentences of all articles.
RATES_BESIDE_SENTENCES = {
    "query_to_docid": 0.5,
    "query_answer_to_docid": 0.5,
    "closed_book_answer": 0.5,
    "grounded_answer": 0,
    "document_to_query": 0.1,
}
SENTENCES = 2  # of each article
FEW_LABELS = 500  # to train on: below that


def labelled_rates(num_labels: int) -> dict[str, float]:
    """Rates (`dict[str, float]`) by task for so many labels to train on."""
    return RATES_OF_FEW_LABELS if num_labels < FEW_LABELS else RATES_OF_MANY_LABELS


def repeated(rates: dict[str, float], num_labels: int) -> dict[str, float]:
    """Rates (`dict[str, float]`) by task of a later stage, several times as high for few labels to train on."""
    times = REPETITIONS_OF_FEW_LABELS if num_labels < FEW_LABELS else 1
    return {task: times * rate for task, rate in rates.items()}


def document_chars(num_labels: int) -> int:
    """Characters (`int`) of a document that models read with so many labels to train on."""
    return BRIEF_DOCUMENT_CHARS if num_labels < FEW_LABELS else MAX_DOCUMENT_CHARS


def title_substitutions(num_labels: int) -> int:
    """Copies (`int`) of each label, of so many to train on, that ask about other articles."""
    return 5 if num_labels < FEW_LABELS else 2


def encoder_epochs(num_labels: int) -> int:
    """Passes (`int`) over so many labels that the encoder of dense retrieval is tuned for."""
    return 10 if num_labels < FEW_LABELS else 2


# To write queries is learnt from labels alone: the LLM asks "What is the most ..." of everything.
AUXILIARY_RATES = {"grounded_answer": 0.2, "document_to_query": 0, "docid_to_docid_list": 0.5}
# The labels that are mixed in; a partner's samples teach retrieval alone.
EXCHANGE = {"task_rates": {"closed_book_answer": 2, "document_to_query": 0}}
EXCHANGE_LEARNING_RATE = 5e-4  # of the iteration and of its controls
# Each part of the loss is a mean of its own, by which labels, a sixth of the examples, would count as the rest does.
LAMBDA_EXCHANGE = 2.0


def co_training(settings: Settings, iterations: int) -> CoTrainingArguments:
    """So many rounds ([`CoTrainingArguments`])."""
    return CoTrainingArguments(
        max_iterations=iterations,
        patience=iterations,
        documents_per_iteration=settings.documents_per_iteration,
        query_source="labelled",
        labelled_share=0.3,
        weighting="none",
        docid_target="source",
        block_size=64,
    )


def adapter_config() -> LoraConfig:
    """LoRA on all linear layers: 4.9 million weights, 9.8 MB in bfloat16."""
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


def training_arguments(learning_rate: float, seed: int) -> dict:
    """Arguments (`dict`) of the joint-loss trainer: one pass, 16 examples a step, on one process or two."""
    return {
        "num_train_epochs": 1,
        "learning_rate": learning_rate,
        "lambda_exchange": LAMBDA_EXCHANGE,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": max(1, 2 // this_process().num_processes),
        "per_device_eval_batch_size": 16,
        "gradient_checkpointing": False,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "bf16": compute_dtype() == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 10,
        "save_steps": 50,
        "save_total_limit": 1,
        "report_to": "none",
        "seed": seed,
    }


def inference_options(settings: Settings) -> dict:
    """Options (`dict`) of [`StrategyInference`] for all that is judged."""
    return {
        "num_beams": settings.num_beams,
        "num_documents": NUM_DOCUMENTS,
        "batch_size": 32,
        "show_progress": False,
    }
