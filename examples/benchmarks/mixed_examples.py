"""What the benchmarks of training train and train on: examples of mixed tasks and lengths, a collection, a model."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets, load_dataset
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, new_sample
from modeling_mint import MintProcessor
from modeling_mint.tasks_mint import COMPONENTS
from trainers.task_examples import EXAMPLE_FEATURES, tokenize_examples

# What RAG learned from in a run of the demo, before tasks are sampled (220 characters of a document, two documents to
# read, SmolLM2's tokenizer): task, component, examples, and minimum, quartiles and maximum of the tokens of prompts
# and of targets.
DEMO_LENGTHS = (
    ("query_to_docid", "retrieval", 165, (8, 16, 20, 22, 31), (2, 2, 3, 4, 8)),
    ("document_to_docid", "retrieval", 280, (26, 47, 51, 56, 74), (2, 3, 3, 5, 10)),
    ("grounded_answer", "generation", 165, (99, 113, 121, 132, 172), (2, 3, 4, 5, 10)),
    ("grounded_answer", "auxiliary", 78, (92, 111, 121, 130, 161), (2, 2, 4, 5, 17)),
    ("query_to_docid_list", "auxiliary", 144, (11, 13, 15, 19, 34), (6, 9, 11, 13, 21)),
    ("docid_to_docid_list", "auxiliary", 144, (7, 7, 8, 9, 15), (4, 6, 8, 9, 18)),
    ("document_to_query", "auxiliary", 309, (38, 49, 53, 58, 73), (4, 10, 13, 17, 29)),
)


def made_up_examples(number: int, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Dataset:
    """`number` examples of random tokens, in tasks and lengths like those of `DEMO_LENGTHS`."""
    rng = np.random.default_rng(seed)
    shares = np.array([examples for _, _, examples, _, _ in DEMO_LENGTHS])

    def ids(quartiles: tuple[int, ...]) -> list[int]:
        length = round(np.interp(rng.random(), np.linspace(0, 1, len(quartiles)), quartiles))
        return rng.integers(len(tokenizer) // 2, len(tokenizer), length).tolist()

    rows = []
    for kind in rng.choice(len(DEMO_LENGTHS), number, p=shares / shares.sum()):
        task, component, _, prompt_quartiles, target_quartiles = DEMO_LENGTHS[kind]
        prompt_ids, target_ids = ids(prompt_quartiles), [*ids(target_quartiles)[1:], tokenizer.eos_token_id]
        rows.append(
            {
                "prompt_ids": prompt_ids,
                "target_ids": target_ids,
                "task": task,
                "component": COMPONENTS.index(component),
                "weight": 1.0,
                "length": len(prompt_ids) + len(target_ids),
            }
        )
    return Dataset.from_list(rows, features=EXAMPLE_FEATURES)


def run_examples(
    run: str, number: int, tokenizer: PreTrainedTokenizerBase, max_document_chars: int, seed: int = 0
) -> Dataset:
    """
    At most `number` examples of what a finished run trained RAG on: its labelled and auxiliary samples, and as many
    documents of its collection.
    """
    processor = MintProcessor(
        tokenizer, collection=str(Path(run) / "mint-collection"), max_document_chars=max_document_chars
    )
    titles, texts = processor.collection["title"][:], processor.collection["text"][:]
    samples = [load_dataset(str(Path(run) / "mint-pseudo"), name, split="train") for name in ("basic", "auxiliary")]
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(titles), min(len(titles), sum(map(len, samples))), replace=False).tolist()
    documents = [new_sample(id=f"collection-{i}", docids=[titles[i]], rows=[i], source="collection") for i in rows]
    examples = tokenize_examples(
        concatenate_datasets([*samples, Dataset.from_list(documents, features=SAMPLE_FEATURES)]),
        "rag",
        processor,
        retriever=Bm25Retriever(titles, texts),
        seed=seed,
    )
    return examples.shuffle(seed).select(range(min(number, len(examples))))


def made_up_collection(number: int, seed: int = 0) -> Dataset:
    """`number` documents with distinct titles and texts of 60 numbers."""
    numbers = np.random.default_rng(seed).integers(1000, size=(number, 60))
    documents = [
        {"title": f"Number {row}", "text": " ".join(map(str, text)), "related": [], "metadata": "{}"}
        for row, text in enumerate(numbers)
    ]
    return Dataset.from_list(documents, features=COLLECTION_FEATURES)


def two_orders(pool: Dataset, batch_size: int, warmup_steps: int, num_steps: int) -> tuple[Dataset, Dataset]:
    """
    The same examples in two orders: batches of an epoch over `pool` that is grouped by length, at even distances;
    and their examples shuffled. The first `warmup_steps` batches are the same in both.
    """
    generator = torch.Generator().manual_seed(0)
    order = get_length_grouped_indices(pool["length"][:], batch_size, generator=generator)
    batches = [order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size)]
    number = warmup_steps + num_steps
    if len(batches) < number:
        raise ValueError(
            f"{len(pool)} examples make {len(batches)} batches of {batch_size}, fewer than {number} steps."
        )
    # The longest batch of the epoch comes first: it falls to the warm-up.
    chosen = [index for i in range(number) for index in batches[i * len(batches) // number]]
    warm_up, timed = chosen[: warmup_steps * batch_size], chosen[warmup_steps * batch_size :]
    shuffled = [timed[i] for i in torch.randperm(len(timed), generator=generator).tolist()]
    return pool.select(warm_up + timed), pool.select(warm_up + shuffled)


def save_random_t5(tokenizer_folder: str, folder: Path) -> str:
    """A random T5 of t5-small's size, with a tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    set_seed(0)
    pad_token_id, eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=pad_token_id,
        decoder_start_token_id=pad_token_id,
        eos_token_id=eos_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
