"""Unlabelled documents + the external LLM -> auxiliary data."""

import hashlib
import json
import logging
import os
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import datasets
from tqdm.auto import tqdm

from modeling_mint.processing_mint import page_titles

from .bm25 import related_rows
from .features import SAMPLE_FEATURES, new_sample
from .filters import answer_failure, query_failure
from .llm import EndpointLLM, LocalLLM, load_llm
from .writing import collection_fingerprint, file_fingerprint, load_collection, write_text

logger = logging.getLogger(__name__)

PROMPT_FILE = Path(__file__).parent / "prompts" / "query_and_answer.txt"


@dataclass
class AuxiliaryConfig(datasets.BuilderConfig):
    """
    Configuration of [`AuxiliaryBuilder`]. What the collection and the prompt file hold counts for the cache.

    Args:
        collection (`str`):
            Folder or Hub id of the collection.
        llm (`str`):
            Folder or Hub id of a causal language model, or URL of an OpenAI-compatible server.
        journal (`str`):
            JSONL file to which each reply goes as it comes. A run that finds replies there does not ask for them
            again. The report goes beside it, with the suffix `.report.json`.
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
            Few-shot prompt in front of every passage. Defaults to `prompts/query_and_answer.txt`.
        batch_size (`int`, *optional*, defaults to `32`):
            Prompts that a local LLM works on together.
    """

    collection: str = ""
    llm: str = ""
    journal: str = ""
    rows: list[int] | None = None
    num_documents: int = 1000
    seed: int = 42
    queries_per_document: int = 1
    num_related: int = 4
    passage_chars: int = 450
    prompt_file: str = str(PROMPT_FILE)
    batch_size: int = 32

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if not (self.collection and self.llm and self.journal):
            raise ValueError("Auxiliary data needs collection=..., llm=... (folder, Hub id or URL) and journal=...")
        content = [collection_fingerprint(load_collection(self.collection)), file_fingerprint(self.prompt_file)]
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class AuxiliaryBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds auxiliary data (MINT, SIGIR 2025: samples that an instruction-tuned LLM writes from unlabelled documents):
    per document a pseudo-query and its pseudo-answer, and as docids the source document and, behind it, its nearest
    related documents. Replies that do not parse or that one of [`~dataset_builders.filters.FILTERS`] drops yield no
    sample; the report counts them.

    Example:

    ```python
    >>> builder = AuxiliaryBuilder(
    ...     cache_dir="cache", collection="outputs/mint-collection", llm="HuggingFaceTB/SmolLM2-135M-Instruct",
    ...     journal="outputs/auxiliary.jsonl", num_documents=300
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
        rows = config.rows
        if rows is None:
            num_documents = min(config.num_documents, len(collection))
            rows = random.Random(config.seed).sample(range(len(collection)), num_documents)
        documents = collection.select(rows)
        columns = (documents["title"], documents["text"], page_titles(documents))
        requests = [
            (i, passage)
            for i, (title, text, page) in enumerate(zip(*columns, strict=True))
            for passage in split_passages(title, text, config.passage_chars, title == page)[
                : config.queries_per_document
            ]
        ]
        llm_options = {} if config.llm.startswith(("http://", "https://")) else {"batch_size": config.batch_size}
        llm = load_llm(config.llm, **llm_options)
        prompt = Path(config.prompt_file).read_text(encoding="utf-8").rstrip() + "\n\n"
        replies = ask_with_journal(
            llm, prompt, [f"Passage: {passage}\nQuestion:" for _, passage in requests], Path(config.journal)
        )
        related = related_rows(collection, rows, config.num_related)
        counts = Counter(requests=len(requests))
        for number, ((i, _), reply) in enumerate(zip(requests, replies, strict=True)):
            query, answer = parse_reply(reply)
            title, text = documents[i]["title"], documents[i]["text"]
            dropped = query_failure(query, title, text)
            if dropped is not None:
                counts[f"dropped: {dropped}"] += 1
                continue
            answer_dropped = answer_failure(query, answer, text)
            counts["kept" if answer_dropped is None else f"kept without answer: {answer_dropped}"] += 1
            docid_rows = [rows[i], *related[i]]
            docids = collection.select(docid_rows)["title"][:]
            yield (
                number,
                new_sample(
                    id=f"llm-{rows[i]}-{number}",
                    query=query,
                    answers=[] if answer_dropped else [answer],
                    docids=docids,
                    rows=docid_rows,
                    provenance=[docids[:1]],
                    source="llm",
                    model=llm.name,
                ),
            )
        logger.info("Auxiliary data, samples by what became of them: %s", dict(counts))
        report = Path(config.journal).with_suffix(".report.json")
        write_text(report, json.dumps(counts, indent=2) + "\n")
        if not any(outcome.startswith("kept") for outcome in counts):
            raise ValueError(
                f"None of {len(requests)} replies of the LLM could be used; {report} says why, {config.journal} holds "
                "them. Try another LLM, another prompt file or more documents."
            )


def split_passages(title: str, text: str, max_chars: int, opens_page: bool = True) -> list[str]:
    """
    Cuts a text into consecutive passages that end where a sentence ends. A sentence that is longer than a passage
    is cut at its last space that fits.

    Args:
        title (`str`):
            Title of the document. It goes in front of every passage after the first, which would not say otherwise
            what it is about.
        text (`str`):
            Text of the document.
        max_chars (`int`):
            Longest passage, in characters, the title not counted.
        opens_page (`bool`, *optional*, defaults to `True`):
            Whether the text is the beginning of a page, which says itself what it is about. A later section does not:
            its first passage has the title in front of it, too.

    Returns:
        `list[str]`: the passages, whitespace in them collapsed, so that no reply format can hide in a document.
    """
    text = " ".join(text.split())
    passages = []
    while text:
        end = len(text)
        if end > max_chars:
            sentence_ends = [match.end() for match in re.finditer(r"[.!?](?= )", text[: max_chars + 1])]
            end = sentence_ends[-1] if sentence_ends else text.rfind(" ", 0, max_chars + 1)
            if end <= 0:
                end = max_chars
        says_its_subject = opens_page and not passages
        passages.append(text[:end] if says_its_subject else f"{title}: {text[:end]}")
        text = text[end:].lstrip()
    return passages


def ask_with_journal(llm: LocalLLM | EndpointLLM, prefix: str, prompts: list[str], journal: Path) -> list[str]:
    """
    Has prompts completed, each reply written to a journal as it comes, and takes from the journal what is there.

    Args:
        llm ([`LocalLLM`] or [`EndpointLLM`]):
            Whom to ask.
        prefix (`str`):
            Few-shot part that all prompts share.
        prompts (`list[str]`):
            The prompts.
        journal (`Path`):
            Append-only JSONL file of {"key", "reply"}; the key hashes model and whole prompt. A last line torn by an
            interruption is cut off.

    Returns:
        `list[str]`: the replies, in the order of the prompts.

    Raises:
        `ValueError`: if another line than the last is malformed.
    """
    keys = [hashlib.sha256(f"{llm.name}\0{prefix}{prompt}".encode()).hexdigest() for prompt in prompts]
    replies = read_journal(journal)
    prompt_of_key = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in replies}
    missing = list(prompt_of_key)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "a", encoding="utf-8") as file:
        answers = llm.complete(list(prompt_of_key.values()), shared_prefix=prefix)
        for index, reply in tqdm(answers, total=len(missing), desc="Asking the LLM", unit="document"):
            replies[missing[index]] = reply
            file.write(json.dumps({"key": missing[index], "reply": reply}) + "\n")
            file.flush()
    return [replies[key] for key in keys]


def read_journal(journal: Path) -> dict[str, str]:
    """
    Reads the replies of earlier runs; see [`ask_with_journal`].

    Args:
        journal (`Path`):
            The file; it need not exist.

    Returns:
        `dict[str, str]`: reply by key.
    """
    if not journal.exists():
        return {}
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        logger.warning("%s ends in a torn line (an interrupted run): cutting it off.", journal)
        os.truncate(journal, len(whole))
    replies = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            replies[entry["key"]] = entry["reply"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{journal}, line {number}: not an entry of the journal. Delete this line.") from error
    return replies


def parse_reply(reply: str) -> tuple[str, str]:
    r"""
    Reads a reply of the form "Question: ...\nAnswer: ...", where the prompt may have said "Question:" already.

    Args:
        reply (`str`):
            The reply.

    Returns:
        `tuple[str, str]`: query and answer; both empty if the reply has another form. A full stop behind an answer
        that is no sentence is dropped.
    """
    match = re.fullmatch(r"\s*(?:Question:)?[ ]*([^\n]+?)[ ]*\nAnswer:[ ]*([^\n]+?)\s*", reply)
    if match is None:
        return "", ""
    query, answer = match.groups()
    return query, answer.removesuffix(".").strip("\"' ")
