"""Samples of the common schema -> tokenized training examples of one role."""

import random
from collections.abc import Sequence

from datasets import Dataset, Features, Value, concatenate_datasets
from datasets import List as ListFeature

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.title_substitution import substitute_titles
from modeling_mint import MintProcessor, training_examples
from modeling_mint.tasks_mint import COMPONENTS

from .task_sampling import TaskSampling

EXAMPLE_FEATURES = Features(
    {
        "prompt_ids": ListFeature(Value("int32")),
        "target_ids": ListFeature(Value("int32")),
        "task": Value("string"),
        "component": Value("int32"),  # index into COMPONENTS
        "weight": Value("float32"),
        "length": Value("int32"),  # tokens of prompt and target: what batches are grouped by
    }
)


def grounding_rows(
    gold_rows: list[int], retrieved_rows: Sequence[int], num_documents: int, as_retrieved: bool, rng: random.Random
) -> list[int]:
    """
    The documents that one `grounded_answer` example reads (`mint.md`, Stage 1).

    A generator that only ever sees gold documents learns to trust whatever it is given, so a share of the examples
    carries what the retriever really returned, gold among it or not; the others have a gold document among retrieved
    ones, at a random place.

    Args:
        gold_rows (`list[int]`): rows of the relevant documents; empty for a record without provenance, which reads the
            retriever's list in any case.
        retrieved_rows (`Sequence[int]`): rows that a retriever returned for the query, best first.
        num_documents (`int`): documents to read.
        as_retrieved (`bool`): whether to take the retriever's list as it is.
        rng (`random.Random`): places the gold document.

    Returns:
        `list[int]`: `num_documents` rows (fewer if the retriever returned fewer).
    """
    if as_retrieved or not gold_rows:
        return [int(row) for row in retrieved_rows[:num_documents]]
    gold = gold_rows[:1]
    context = [int(row) for row in retrieved_rows if row not in gold][: num_documents - 1]
    context.insert(rng.randrange(len(context) + 1), gold[0])
    return context


def tokenize_examples(
    samples: Dataset,
    role: str,
    processor: MintProcessor,
    *,
    retriever: Bm25Retriever | None = None,
    retrieved_share: float = 0.5,
    num_documents: int = 2,
    title_substitutions: int = 0,
    task_sampling: str = "proportional",
    sampling_temperature: float = 2.0,
    task_rates: dict[str, float] | None = None,
    seed: int = 42,
) -> Dataset:
    """
    Derives and tokenizes the training examples of `samples` for one role.

    Args:
        samples (`datasets.Dataset`):
            Samples in the common schema.
        role (`str`):
            `"rag"` or `"gar"`.
        processor ([`MintProcessor`]):
            Processor with the collection.
        retriever ([`Bm25Retriever`], *optional*):
            Finds the documents that `grounded_answer` reads beside the gold one; without it, the gold document is read
            alone. Samples that a model wrote are read with the documents that it retrieved itself in any case.
        retrieved_share (`float`, *optional*, defaults to 0.5):
            Share of `grounded_answer` examples that read the retriever's list as it is, see [`grounding_rows`].
        num_documents (`int`, *optional*, defaults to 2):
            Documents that `grounded_answer` reads.
        title_substitutions (`int`, *optional*, defaults to 0):
            Samples to make of each query that names its article by putting another title there, see
            [`~dataset_builders.title_substitution.substitute_titles`].
        task_sampling (`str`, *optional*, defaults to `"proportional"`):
            How many examples of each task are taken, see [`TaskSampling`]: `"proportional"` as they come,
            `"temperature"` more evenly, `"explicit"` by `task_rates`.
        sampling_temperature (`float`, *optional*, defaults to 2.0):
            Of `"temperature"`, at least 1.
        task_rates (`dict[str, float]`, *optional*):
            How often a task's examples are taken: 0.5 takes half of them, 3 takes each three times; tasks that are not
            named are taken once. Giving them is enough, `task_sampling` need not say `"explicit"`.
        seed (`int`, *optional*, defaults to 42):
            Seed of all draws.

    Returns:
        `datasets.Dataset` with `EXAMPLE_FEATURES`.

    Raises:
        ValueError: if the task sampling is not possible, see [`TaskSampling`].
    """
    sampling = TaskSampling(task_sampling, sampling_temperature, task_rates)
    if title_substitutions:
        made = substitute_titles(samples, processor.collection, title_substitutions, retriever=retriever, seed=seed)
        samples = concatenate_datasets([samples, made])
    rng = random.Random(seed)
    retrieved = _retrieve_contexts(samples, retriever, num_documents) if role == "rag" else {}

    derived = []
    for index, sample in enumerate(samples):
        context = []
        if index in retrieved:
            as_retrieved = rng.random() < retrieved_share
            context = grounding_rows(sample["rows"], retrieved[index], num_documents, as_retrieved, rng)
        elif sample["source"] in ("rag", "gar"):
            context = sample["rows"][:num_documents]
        derived += training_examples(
            sample,
            role,
            processor.document,
            page=processor.page,
            max_document_chars=processor.max_document_chars,
            context_rows=context,
        )

    examples = []
    for example, copies in zip(derived, sampling.copies([one.task for one in derived], seed), strict=True):
        if copies == 0:
            continue
        prompt_ids, target_ids = processor.encode_example(example.prompt, example.target)
        examples += copies * [
            {
                "prompt_ids": prompt_ids,
                "target_ids": target_ids,
                "task": example.task,
                "component": COMPONENTS.index(example.component),
                "weight": example.weight,
                "length": len(prompt_ids) + len(target_ids),
            }
        ]
    # By columns: `from_list` knows none when there is no example.
    columns = {name: [example[name] for example in examples] for name in EXAMPLE_FEATURES}
    return Dataset.from_dict(columns, features=EXAMPLE_FEATURES)


def _retrieve_contexts(samples: Dataset, retriever: Bm25Retriever | None, num_documents: int) -> dict[int, list[int]]:
    """Rows that the retriever returns for each sample a human or the external LLM wrote, by the sample's index."""
    if retriever is None:
        return {}
    wanted = [i for i, source in enumerate(samples["source"]) if source in ("labelled", "llm")]
    if not wanted:
        return {}
    rows, _ = retriever.retrieve(samples.select(wanted)["query"], num_documents)
    return dict(zip(wanted, rows.tolist(), strict=True))
