"""Unlabelled documents + the external LLM -> auxiliary data."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import datasets
from datasets import Dataset

from modeling_mint.processing_mint import page_titles

from .bm25 import Bm25Retriever, related_rows
from .features import SAMPLE_FEATURES, new_sample
from .journal import Journal
from .llm import load_llm
from .passages import split_passages
from .prompt_template import PROMPT_FOLDER, PromptTemplate
from .quality import NOT_IN_FORM, Candidate, QualityArguments, Verdict, judge
from .quality_report import write_quality_report
from .ranking import rank_related
from .replies import QUERY_AND_ANSWER
from .writing import collection_fingerprint, file_fingerprint, load_collection

# Options that change how the LLM is asked or what that costs, not what it replies.
_NOT_IN_CONFIG_ID = {"journal", "prompt_price", "completion_price"}
_LLM_OPTIONS_IN_CONFIG_ID = {"model", "chat"}


@dataclass
class AuxiliaryConfig(datasets.BuilderConfig):
    """
    Configuration of [`AuxiliaryBuilder`]. What the collection and the prompt files hold counts for the cache; where
    the journal is, what tokens cost and how fast the LLM is asked does not.

    Args:
        collection (`str`):
            Folder or Hub id of the collection.
        llm (`str`):
            Folder or Hub id of a causal language model, or URL of an OpenAI-compatible server, or several URLs with
            commas between them.
        journal (`str`):
            Folder to which each reply goes as it comes, see [`~dataset_builders.journal.Journal`]. A run that finds
            replies there does not ask for them again. The report goes there, too: `report.md`, `.json` and `.png`
            (`report-unfiltered` with `filter=False`).
        llm_options (`dict`, *optional*, defaults to `{}`):
            Arguments of [`~dataset_builders.llm.load_llm`], such as `{"batch_size": 64}`.
        rows (`list[int]`, *optional*):
            Rows of the documents to ask about. Defaults to a random choice of `num_documents`.
        num_documents (`int`, *optional*, defaults to `1000`):
            Documents to choose where `rows` are not given.
        seed (`int`, *optional*, defaults to `42`):
            Seed of that choice.
        queries_per_document (`int`, *optional*, defaults to `1`):
            Most queries for one document, each from another passage of it.
        num_related (`int`, *optional*, defaults to `4`):
            Related documents in a docid list, behind the source document.
        passage_chars (`int`, *optional*, defaults to `450`):
            Longest passage shown to the LLM, in characters; it ends where a sentence ends.
        prompt_file (`str`, *optional*):
            Jinja template with the variable `passage` that asks for a question and its answer. Defaults to
            `prompts/query_and_answer_chat.jinja` for an LLM that chats, else to `prompts/query_and_answer.jinja`.
        ranker (`str`, *optional*, defaults to `"source"`):
            Order of the documents behind the source document: `"source"`, as the corpus links to them or else as
            BM25 finds them near; or `"llm"`, as the LLM ranks them for the query.
        ranking_prompt_file (`str`, *optional*):
            Jinja template with the variables `query` and `documents` that asks for a ranking. Defaults to
            `prompts/ranking_chat.jinja` or `prompts/ranking.jinja`.
        quality ([`QualityArguments`] or `dict`, *optional*):
            Settings of the filters.
        filter (`bool`, *optional*, defaults to `True`):
            Whether the filters are applied. Without them every reply in the form asked for becomes a sample.
        prompt_price (`float`, *optional*, defaults to `0.0`):
            Price of a million tokens of prompts, for the cost in the report.
        completion_price (`float`, *optional*, defaults to `0.0`):
            Price of a million tokens of replies.

    Raises:
        `ValueError`: if `ranker` is neither of the two.
    """

    collection: str = ""
    llm: str = ""
    journal: str = ""
    llm_options: dict = field(default_factory=dict)
    rows: list[int] | None = None
    num_documents: int = 1000
    seed: int = 42
    queries_per_document: int = 1
    num_related: int = 4
    passage_chars: int = 450
    prompt_file: str | None = None
    ranker: str = "source"
    ranking_prompt_file: str | None = None
    quality: QualityArguments | dict = field(default_factory=QualityArguments)
    filter: bool = True
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.ranker not in ("source", "llm"):
            raise ValueError(f"ranker is {self.ranker!r}; it must be 'source' or 'llm'.")
        if isinstance(self.quality, dict):
            self.quality = QualityArguments(**self.quality)

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if not (self.collection and self.llm and self.journal):
            raise ValueError("Auxiliary data needs collection=..., llm=... (folder, Hub id or URL) and journal=...")
        given = {name: value for name, value in config_kwargs.items() if name not in _NOT_IN_CONFIG_ID}
        given["quality"] = asdict(self.quality)
        given["llm_options"] = {
            name: value for name, value in self.llm_options.items() if name in _LLM_OPTIONS_IN_CONFIG_ID
        }
        prompts = [path for path in (self.prompt_file, self.ranking_prompt_file) if path]
        prompts += sorted(PROMPT_FOLDER.glob("*.jinja"))
        given["content"] = [collection_fingerprint(load_collection(self.collection)), file_fingerprint(*prompts)]
        return super().create_config_id(given, custom_features)

    def query_prompt(self, chat: bool) -> PromptTemplate:
        """The prompt that asks for a question and its answer, for an LLM that chats or that continues a text."""
        default = PROMPT_FOLDER / f"query_and_answer{'_chat' if chat else ''}.jinja"
        return PromptTemplate(self.prompt_file or default, {"passage"})

    def ranking_prompt(self, chat: bool) -> PromptTemplate:
        """The prompt that asks for a ranking, for an LLM that chats or that continues a text."""
        default = PROMPT_FOLDER / f"ranking{'_chat' if chat else ''}.jinja"
        return PromptTemplate(self.ranking_prompt_file or default, {"query", "documents"})


class Request(NamedTuple):
    """A passage that the LLM is to write a question about, and the document that it is from."""

    row: int
    title: str
    text: str
    passage: str


def requests_for(config: AuxiliaryConfig, collection: Dataset) -> Iterator[Request]:
    """
    Says what the LLM is asked.

    Args:
        config ([`AuxiliaryConfig`]):
            Documents, passages and their number.
        collection ([`~datasets.Dataset`]):
            The documents.

    Yields:
        [`Request`]: one for each passage, in an order that depends on the arguments alone.
    """
    rows = config.rows
    if rows is None:
        num_documents = min(config.num_documents, len(collection))
        rows = random.Random(config.seed).sample(range(len(collection)), num_documents)
    documents = collection.select(rows)
    columns = (rows, documents["title"], documents["text"], page_titles(documents))
    for row, title, text, page in zip(*columns, strict=True):
        for passage in split_passages(title, text, config.passage_chars, title == page)[: config.queries_per_document]:
            yield Request(row, title, text, passage)


def generate_replies(config: AuxiliaryConfig, num_shards: int = 1, shard_index: int = 0) -> int:
    """
    Asks the LLM for one share of the replies and writes them into the journal, nothing else. Shards may run at the
    same time, on one machine or on many; [`AuxiliaryBuilder`] finds their replies in the journal and asks for those
    that are missing (and for the rankings, with `ranker="llm"`).

    Args:
        config ([`AuxiliaryConfig`]):
            The same for all shards.
        num_shards (`int`, *optional*, defaults to `1`):
            Number of shares.
        shard_index (`int`, *optional*, defaults to `0`):
            Which one, counted from 0: the requests `shard_index`, `shard_index + num_shards`, and so on.

    Returns:
        `int`: number of replies asked for now; the others were in the journal.
    """
    requests = requests_for(config, load_collection(config.collection))
    llm = load_llm(config.llm, **config.llm_options)
    journal = Journal(config.journal, writer=f"replies-{shard_index:05}-of-{num_shards:05}")
    _ask_for_queries(config, llm, journal, islice(requests, shard_index, None, num_shards))
    return journal.written


def _ask_for_queries(config, llm, journal, requests):
    template = config.query_prompt(llm.chat)
    prefix = template.shared_prefix
    prompts = [template.render(passage=request.passage).removeprefix(prefix) for request in requests]
    # A chat model may spell its reply as JSON, which takes more tokens.
    return journal.ask(llm, prefix, prompts, QUERY_AND_ANSWER, max_new_tokens=96 if llm.chat else 48)


class AuxiliaryBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds auxiliary data (MINT, SIGIR 2025: samples that an instruction-tuned LLM writes from unlabelled documents):
    per passage of a document a pseudo-query and its pseudo-answer, and as docids the source document and, behind it,
    its nearest related documents. Replies that do not parse or that a quality filter drops yield no sample, an answer
    that one drops leaves its query; the report counts them.

    Example:

    ```python
    >>> builder = AuxiliaryBuilder(
    ...     cache_dir="cache", collection="outputs/mint-collection", llm="HuggingFaceTB/SmolLM2-135M-Instruct",
    ...     journal="outputs/auxiliary", num_documents=300
    ... )
    >>> write_config(build(builder), "outputs/mint-pseudo", "auxiliary")
    ```
    """

    BUILDER_CONFIG_CLASS = AuxiliaryConfig

    def _info(self):
        return datasets.DatasetInfo(features=SAMPLE_FEATURES)

    def _split_generators(self, dl_manager):
        return [datasets.SplitGenerator(name="train")]

    def _generate_examples(self):
        config = self.config
        collection = load_collection(config.collection)
        requests = list(requests_for(config, collection))
        llm = load_llm(config.llm, **config.llm_options)
        ranking_prompt = config.ranking_prompt(llm.chat)  # a wrong file must show before anybody is asked
        journal = Journal(config.journal)
        replies = _ask_for_queries(config, llm, journal, requests)
        parsed = [QUERY_AND_ANSWER.parse(reply.text) or {"Question": "", "Answer": ""} for reply in replies]
        candidates = [
            Candidate(**request._asdict(), query=fields["Question"], answer=fields["Answer"])
            for request, fields in zip(requests, parsed, strict=True)
        ]
        titles = collection["title"][:]
        if config.filter:
            retriever = Bm25Retriever(titles, collection["text"][:])
            verdicts = judge(candidates, config.quality, retriever)
        else:
            retriever = None
            verdicts = [Verdict(None if candidate.query else NOT_IN_FORM, None) for candidate in candidates]
        kept = [number for number, verdict in enumerate(verdicts) if verdict.query_failure is None]
        related = related_rows(collection, [requests[number].row for number in kept], config.num_related, retriever)
        facts = {"model": llm.name, "requests": len(requests), "parsed": sum(bool(c.query) for c in candidates)}
        if config.ranker == "llm":
            queries = [candidates[number].query for number in kept]
            related, facts["not_ranked"] = rank_related(
                llm, ranking_prompt, journal, queries, related, collection, config.passage_chars
            )
        facts |= journal.usage(config.prompt_price, config.completion_price)
        report = Path(config.journal) / ("report" if config.filter else "report-unfiltered")
        write_quality_report(candidates, verdicts, report, facts)
        if not kept:
            raise ValueError(
                f"None of {len(requests)} replies of the LLM could be used; {report}.md says why, {config.journal} "
                "holds them. Try another LLM, another prompt file or more documents."
            )
        for number, related_to_source in zip(kept, related, strict=True):
            candidate, verdict = candidates[number], verdicts[number]
            rows = [candidate.row, *related_to_source]
            docids = [titles[row] for row in rows]
            yield (
                number,
                new_sample(
                    id=f"llm-{candidate.row}-{number}",
                    query=candidate.query,
                    answers=[candidate.answer] if verdict.answer_failure is None else [],
                    docids=docids,
                    rows=rows,
                    provenance=[docids[:1]],
                    passage=candidate.passage,
                    source="llm",
                    model=llm.name,
                ),
            )
