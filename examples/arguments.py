"""The settings of a run: one set for `run_mint.py` and for the script of every stage."""

from dataclasses import dataclass, field, fields

from training_settings import TrainingSettings
from trl import TrlParser

from dataset_builders.quality import QualityArguments
from modeling_mint import STRATEGIES
from modeling_mint.configuration_mint import DOCID_GRANULARITIES
from trainers.co_training_arguments import CoTrainingArguments
from trainers.confidence import ConfidenceArguments


@dataclass
class RunArguments:
    """
    What to build and from what.

    Args:
        output_dir (`str`, *optional*, defaults to `"outputs/run"`): folder of the run. A run that was interrupted
            goes on where it was when it is started again with the same folder and settings.
        collection (`str`, *optional*): the documents: JSONL or Parquet with title and text, a folder or Hub id of a
            dataset; or `vital-articles` (the demo's).
        docid_granularity (`str`, *optional*, defaults to `"title"`): what is retrieved: `"title"`, pages; or
            `"section"`, their sections, for documents that come with "sections".
        leaf_order (`bool`, *optional*, defaults to `True`): store documents read from a file in the order of the title
            trie's leaves, so that the trie needs no map from leaves to rows; a written collection keeps its order.
        labelled (`str`, *optional*): labelled questions: KILT JSONL, or a folder or Hub id of a dataset with the
            splits train, validation and test.
        backbone (`str`, *optional*, defaults to `"smollm2-135m-instruct"`): folder or Hub id of a Seq2SeqLM or
            CausalLM.
        llm (`str`, *optional*): the external LLM that writes auxiliary data: folder or Hub id, or the URL of an
            OpenAI-compatible server. Defaults to the backbone.
        seed (`int`, *optional*, defaults to 42): seed of all draws.
        num_index_documents (`int`, *optional*, defaults to 1000): documents of the slice that `document_to_docid`
            learns and that auxiliary data and co-training draw from: those that labelled questions are about, and
            random others. 0 takes the whole collection.
        num_auxiliary_documents (`int`, *optional*, defaults to 500): documents of the slice that the LLM writes for.
        num_related (`int`, *optional*, defaults to 2): related docids in a ranked list, behind the source document.
        max_document_chars (`int`, *optional*, defaults to 320): characters of a document's text that a prompt holds.
        num_documents (`int`, *optional*, defaults to 2): documents that RAG's generator reads.
        retrieved_share (`float`, *optional*, defaults to 0.5): share of `grounded_answer` examples that read what BM25
            really returns, gold or not.
        title_substitutions (`int`, *optional*, defaults to 0): samples to make of each query that names its article,
            labelled or its partner's, by putting the title of a related article there; see [`substitute_titles`].
        sentence_queries (`int`, *optional*, defaults to 0): sentences to take of each document of the slice as queries
            that lead to it; see [`~dataset_builders.sentence_queries.sentence_queries`].
        sentence_answer (`str`, *optional*): the answer that GAR has beside such a query: `"SUPPORTS"` where queries
            are claims. Without it GAR learns nothing from them.
        num_beams (`int`, *optional*, defaults to 10): beams of the docid search.
        strategy (`str`, *optional*, defaults to `"ensemble"`): how `ask.py` and the web page answer.
        inference_batch_size (`int`, *optional*, defaults to 16): queries worked on at a time.
        serve (`bool`, *optional*, defaults to `True`): serve the web page on 127.0.0.1:7860 at the end.
    """

    output_dir: str = field(default="outputs/run", metadata={"help": "Folder of the run."})
    collection: str = field(
        default="", metadata={"help": "Documents: JSONL, Parquet, folder, Hub id, vital-articles."}
    )
    docid_granularity: str = field(
        default="title",
        metadata={"help": "What is retrieved: pages or their sections.", "choices": ["title", "section"]},
    )
    leaf_order: bool = field(
        default=True, metadata={"help": "Store documents read from a file in the order of the trie's leaves."}
    )
    labelled: str = field(default="", metadata={"help": "Labelled questions: KILT JSONL, folder or Hub id."})
    backbone: str = field(default="smollm2-135m-instruct", metadata={"help": "Backbone: folder or Hub id."})
    llm: str = field(default="", metadata={"help": "External LLM: folder, Hub id or URL (default: the backbone)."})
    seed: int = field(default=42, metadata={"help": "Seed of all draws."})
    num_index_documents: int = field(
        default=1000, metadata={"help": "Documents of the slice to train on (0: the whole collection)."}
    )
    num_auxiliary_documents: int = field(default=500, metadata={"help": "Documents that the LLM writes for."})
    num_related: int = field(default=2, metadata={"help": "Related docids in a ranked list."})
    max_document_chars: int = field(default=320, metadata={"help": "Characters of a document in a prompt."})
    num_documents: int = field(default=2, metadata={"help": "Documents that RAG's generator reads."})
    retrieved_share: float = field(
        default=0.5, metadata={"help": "Share of grounded_answer examples that read what BM25 returns."}
    )
    title_substitutions: int = field(
        default=0, metadata={"help": "Samples to make of each query by putting another title there."}
    )
    sentence_queries: int = field(default=0, metadata={"help": "Sentences of each document to take as queries."})
    sentence_answer: str = field(default="", metadata={"help": "GAR's answer to them: SUPPORTS, if they are claims."})
    num_beams: int = field(default=10, metadata={"help": "Beams of the docid search."})
    strategy: str = field(
        default="ensemble",
        metadata={"help": "How questions are answered.", "choices": ["rag", "gar", "ensemble", "cascade"]},
    )
    inference_batch_size: int = field(default=16, metadata={"help": "Queries worked on at a time."})
    serve: bool = field(default=True, metadata={"help": "Serve the web page at the end."})

    def __post_init__(self):
        self.llm = self.llm or self.backbone
        # argparse checks choices on the command line only, not in the file that --config names.
        for name, allowed in (("strategy", STRATEGIES), ("docid_granularity", DOCID_GRANULARITIES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
        for name in ("title_substitutions", "sentence_queries"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 (none).")
        if self.num_beams < 5:
            raise ValueError(f"num_beams is {self.num_beams}; a search for 5 documents takes at least 5 beams.")


@dataclass
class SourceSettings:
    """
    How raw documents and labelled questions are read.

    Args:
        collection_format (`str`, *optional*, defaults to `"documents"`): `"documents"`, titles and texts; `"kilt"`,
            KILT's knowledge source or a file of its form.
        redirects (`str`, *optional*): titles by their aliases (JSON object, or JSONL or Parquet of title and
            redirect), for provenance and, of KILT's pages, links.
        on_missing_provenance (`str`, *optional*, defaults to `"error"`): what to do about evidence that the collection
            does not hold: `"error"` or `"drop"`.
        max_malformed (`int`, *optional*, defaults to 0): malformed lines or records that may be left out of each file
            read; their places are logged.
        num_proc (`int`, *optional*): processes that read the documents; one by default.
    """

    collection_format: str = field(
        default="documents", metadata={"help": "What the documents' file holds.", "choices": ["documents", "kilt"]}
    )
    redirects: str | None = field(default=None, metadata={"help": "Titles by their aliases: JSON, JSONL, Parquet."})
    on_missing_provenance: str = field(
        default="error",
        metadata={"help": "What to do about evidence not in the collection.", "choices": ["error", "drop"]},
    )
    max_malformed: int = field(default=0, metadata={"help": "Malformed lines that may be left out."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that read the documents."})


@dataclass
class AuxiliarySettings:
    """
    How the external LLM is asked for auxiliary data.

    Args:
        queries_per_document (`int`, *optional*, defaults to 1): most questions for one document, each about another
            passage of it.
        prompt_file (`str`, *optional*): Jinja template with the variable `passage` that asks for a question and its
            answer. Defaults to one of `dataset_builders/prompts/`.
        ranker (`str`, *optional*, defaults to `"source"`): order of the documents behind the source document:
            `"source"`, as the corpus links to them or BM25 finds them near; `"llm"`, as the LLM ranks them.
        llm_chat (`bool`, *optional*, defaults to `False`): the local LLM is asked by instruction, through its chat
            template, instead of by examples to continue. A server is always asked by instruction.
        llm_batch_size (`int`, *optional*, defaults to 32): prompts that the local LLM works on together.
        llm_concurrency (`int`, *optional*, defaults to 8): requests under way at the same time at a server.
        requests_per_minute (`float`, *optional*): most requests sent to a server in a minute; no limit by default.
        prompt_price, completion_price (`float`, *optional*, defaults to 0.0): price of a million tokens of prompts and
            of replies, for the cost in the report.
    """

    queries_per_document: int = field(default=1, metadata={"help": "Most questions for one document."})
    prompt_file: str | None = field(default=None, metadata={"help": "Jinja template that asks for a question."})
    ranker: str = field(
        default="source",
        metadata={"help": "Who orders the documents behind the source document.", "choices": ["source", "llm"]},
    )
    llm_chat: bool = field(default=False, metadata={"help": "Ask the local LLM by instruction."})
    llm_batch_size: int = field(default=32, metadata={"help": "Prompts that the local LLM works on together."})
    llm_concurrency: int = field(default=8, metadata={"help": "Requests under way at the same time at a server."})
    requests_per_minute: float | None = field(default=None, metadata={"help": "Most requests in a minute."})
    prompt_price: float = field(default=0.0, metadata={"help": "Price of a million tokens of prompts."})
    completion_price: float = field(default=0.0, metadata={"help": "Price of a million tokens of replies."})


@dataclass
class ShardArguments:
    """
    Which share of the LLM's replies `generate_auxiliary.py` asks for.

    Args:
        num_shards (`int`, *optional*, defaults to 1): shares that the work is cut into.
        shard_index (`int`, *optional*, defaults to 0): the share to work on, counted from 0.
    """

    num_shards: int = field(default=1, metadata={"help": "Shares that the work is cut into."})
    shard_index: int = field(default=0, metadata={"help": "The share to work on, counted from 0."})

    def __post_init__(self):
        if not 0 <= self.shard_index < self.num_shards:
            raise ValueError(
                f"shard_index is {self.shard_index}; of {self.num_shards} shards the indices are 0 to "
                f"{self.num_shards - 1}."
            )


@dataclass
class Settings:
    """All settings of a run."""

    run: RunArguments
    source: SourceSettings
    auxiliary: AuxiliarySettings
    quality: QualityArguments
    training: TrainingSettings
    co_training: CoTrainingArguments
    confidence: ConfidenceArguments


def parse_settings(arguments: list[str] | None = None, also: type | None = None):
    """
    Reads the settings from the command line and from the YAML file that `--config` names (the command line wins).

    Args:
        arguments (`list[str]`, *optional*): instead of the command line.
        also (`type`, *optional*): one more dataclass of arguments that a script takes.

    Returns:
        [`Settings`], or with `also` a tuple of [`Settings`] and an instance of it.
    """
    classes = [group.type for group in fields(Settings)]
    parser = TrlParser(classes + ([also] if also else []))
    parsed = parser.parse_args_and_config(arguments)
    settings = Settings(*parsed[: len(classes)])
    return (settings, parsed[-1]) if also else settings
