"""
A baseline in the manner of CorpusLM (Li et al., SIGIR 2024): one model writes a ranked list of docids, is given their
documents, and writes the reference that it relies on and its answer, all in one decode.

Docids are titles here: the collection is of lead texts, which have no sections to name.
"""

import random
import re

import torch
from datasets import Dataset

from dataset_builders.bm25 import Bm25Retriever
from modeling_mint import MintProcessor
from modeling_mint.logits_process_mint import TitleTrieLogitsProcessor
from modeling_mint.tasks_mint import COMPONENTS, DOCID_SEPARATOR, docid_list, format_prompt, one_line
from trainers.task_examples import EXAMPLE_FEATURES, grounding_rows

NUM_LISTED = 5
MAX_REFERENCE_TOKENS = 64
ANSWER = " Answer: "


def reference(query: str, answer: str, documents: list[tuple[str, str]]) -> str:
    """The sentence (`str`) that shares most words with query and answer, those of the answer counted double."""
    wanted, decisive = set(_words(query)), set(_words(answer))
    sentences = [one for _, text in documents for one in re.split(r"(?<=[.!?])\s+", one_line(text)) if one]

    def overlap(sentence: str) -> int:
        words = set(_words(sentence))
        return len(words & wanted) + 2 * len(words & decisive)

    return max(sentences, key=overlap, default="")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def list_prompt(query: str) -> str:
    """Prompt of the ranked list."""
    return format_prompt("query_to_docid_list", query=query)


def answer_prompt(query: str, docids: list[str], documents: list[tuple[str, str]]) -> str:
    """The list's prompt gone on: the list that was written, and its documents."""
    blocks = "".join(f"{title}: {one_line(text)}\n" for title, text in documents)
    return f"{list_prompt(query)} {f' {DOCID_SEPARATOR} '.join(docids)}\n{blocks}Reference:"


def corpus_lm_examples(
    samples: Dataset,
    processor: MintProcessor,
    retriever: Bm25Retriever,
    *,
    num_documents: int,
    list_rate: float,
    answer_rate: float,
    seed: int,
) -> Dataset:
    """
    Training examples: the list (gold documents, then BM25's best), and the end of the decode (reference and answer),
    for which half of the examples read what BM25 returns, as `grounded_answer` does.

    Args:
        samples (`datasets.Dataset`): labelled samples in the common schema.
        processor ([`MintProcessor`]): with the collection.
        retriever ([`Bm25Retriever`]): over the collection.
        num_documents (`int`): documents to read.
        list_rate, answer_rate (`float`): how often each kind of example is taken.
        seed (`int`): of all draws.

    Returns:
        `datasets.Dataset` with `EXAMPLE_FEATURES`.
    """
    rng = random.Random(seed)
    found, _ = retriever.retrieve(samples["query"][:], 2 * NUM_LISTED)
    titles = processor.collection["title"][:]
    examples = []
    for sample, retrieved in zip(samples, found.tolist(), strict=True):
        query, answer = sample["query"], sample["answers"][0]
        listed = list(dict.fromkeys([*sample["docids"], *(titles[row] for row in retrieved)]))[:NUM_LISTED]
        rows = grounding_rows(sample["rows"], retrieved, num_documents, rng.random() < 0.5, rng)
        documents = processor.context(rows)
        kinds = [
            (list_rate, "query_to_docid_list", "retrieval", list_prompt(query), docid_list(listed)),
            (
                answer_rate,
                "grounded_answer",
                "generation",
                answer_prompt(query, listed, documents),
                (reference(query, answer, documents) + ANSWER + answer,),
            ),
        ]
        for rate, task, component, prompt, target in kinds:
            prompt_ids, target_ids = processor.encode_example(prompt, target)
            copies = int(rate) + (rng.random() < rate % 1)
            examples += copies * [
                {
                    "prompt_ids": prompt_ids,
                    "target_ids": target_ids,
                    "task": task,
                    "component": COMPONENTS.index(component),
                    "weight": 1.0,
                    "length": len(prompt_ids) + len(target_ids),
                }
            ]
    return Dataset.from_list(examples, features=EXAMPLE_FEATURES)


@torch.no_grad()
def corpus_lm_replies(
    model, processor: MintProcessor, queries: list[str], *, num_documents: int, batch_size: int
) -> tuple[list[list[int]], list[str]]:
    """
    Decodes greedily: list under the title trie, documents read, reference and answer.

    Args:
        model ([`MintForConditionalGeneration`]): trained on [`corpus_lm_examples`].
        processor ([`MintProcessor`]): with title trie and collection.
        queries (`list[str]`): the queries.
        num_documents (`int`): documents to read.
        batch_size (`int`): queries at a time.

    Returns:
        `tuple[list[list[int]], list[str]]`: per query, the ranked rows of the collection, and the answer (empty where
        none was written).
    """
    rankings, answers = [], []
    for start in range(0, len(queries), batch_size):
        batch = queries[start : start + batch_size]
        inputs = processor([list_prompt(query) for query in batch])
        length = inputs["input_ids"].shape[1]
        constraint = TitleTrieLogitsProcessor(
            processor.trie,
            prompt_length=length,
            mode="list",
            separator_ids=processor.separator_ids,
            min_docids=NUM_LISTED,
            max_docids=NUM_LISTED,
        )
        longest = NUM_LISTED * (processor.trie.max_depth + len(processor.separator_ids))
        written = _generate(model, processor, inputs, longest, [constraint])
        lists = [_listed_rows(processor, row) for row in written.tolist()]
        titles = processor.collection["title"][:]
        prompts = [
            answer_prompt(query, [titles[row] for row in rows], processor.context(rows[:num_documents]))
            for query, rows in zip(batch, lists, strict=True)
        ]
        texts = processor.decode_text(_generate(model, processor, processor(prompts), MAX_REFERENCE_TOKENS + 24))
        answers += [text.rpartition(ANSWER.strip())[2].strip() if ANSWER.strip() in text else "" for text in texts]
        rankings += lists
    return rankings, answers


def _generate(model, processor: MintProcessor, inputs, max_new_tokens: int, constraints=None) -> torch.LongTensor:
    tokenizer = processor.tokenizer
    sequences = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        logits_processor=constraints,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return sequences[:, inputs["input_ids"].shape[1] :]


def _listed_rows(processor: MintProcessor, tokens: list[int]) -> list[int]:
    """Rows of the docids of a list, in order; of documents that share one, all."""
    separator, end = processor.separator_ids, processor.tokenizer.eos_token_id
    tokens = tokens[: tokens.index(end)] if end in tokens else tokens
    titles, place = [[]], 0
    while place < len(tokens):
        # The first token of the separator stands in no title.
        if tokens[place] == separator[0]:
            titles.append([])
            place += len(separator)
        else:
            titles[-1].append(tokens[place])
            place += 1
    leaves = [processor.trie.walk(torch.tensor([[*title, end]])).item() for title in titles]
    return [row for leaf in leaves for row in processor.trie.rows(leaf)]
