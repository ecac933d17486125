"""Scores of models and baselines on labelled samples, apart for queries that contain the gold title and those that do
not."""

from collections.abc import Iterable, Sequence

from datasets import Dataset

from modeling_mint import MintProcessor, StrategyInference
from modeling_mint.processing_mint import collection_granularity, page_titles
from modeling_mint.tasks_mint import without_brackets

from .baselines import longest_title_match
from .confidence import calibrate_temperature
from .metrics import load_metric
from .metrics.kilt_downstream.kilt_downstream import normalize_answer

SUBSETS = ("all", "title_in_query", "title_not_in_query")
SECTION_SUBSET = "section_in_provenance"
METRICS = ("r_precision", "recall@5", "em", "f1", "kilt_em", "kilt_f1")


def title_in_query(sample: dict) -> bool:
    """
    Whether one of the sample's gold titles, with or without its part in brackets, stands word for word in its query:
    where copying is enough to find it.
    """
    names = sample["docids"] + [without_brackets(title) for title in sample["docids"]]
    return bool(longest_title_match([sample["query"]], names, 1)[0])


def score_predictions(
    samples: Sequence[dict], docids: list[list[str]], answers: list[str] | None = None
) -> list[dict]:
    """
    Scores predictions on each of `SUBSETS`.

    Args:
        samples (`Sequence[dict]`):
            Labelled samples in the common schema.
        docids (`list[list[str]]`):
            Ranked titles per sample.
        answers (`list[str]`, *optional*):
            Answer per sample; without them the answer scores are `None`.

    Returns:
        `list[dict]`: one row per subset that is not empty: `subset`, `queries` (their number) and `METRICS`, shares in
        [0, 1].
    """
    retrieval, downstream = load_metric("kilt_retrieval"), load_metric("kilt_downstream")
    contains = [title_in_query(sample) for sample in samples]
    members = {
        "all": list(range(len(samples))),
        "title_in_query": [i for i, inside in enumerate(contains) if inside],
        "title_not_in_query": [i for i, inside in enumerate(contains) if not inside],
    }
    rows = []
    for subset in SUBSETS:
        chosen = members[subset]
        if not chosen:
            continue
        gold = [samples[i] for i in chosen]
        scores = retrieval.compute(
            predictions=[docids[i] for i in chosen], references=[sample["provenance"] for sample in gold], ks=[5]
        )
        if answers is not None:
            scores |= downstream.compute(
                predictions=[{"answer": answers[i], "docids": docids[i]} for i in chosen],
                references=[{"answers": one["answers"], "provenance": one["provenance"]} for one in gold],
            )
        rows.append({"subset": subset, "queries": len(chosen)} | {name: scores.get(name) for name in METRICS})
    return rows


def page_level(samples: Dataset, collection: Dataset) -> Sequence[dict]:
    """
    Labelled samples as KILT scores them: their docids and provenance are pages.

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        collection (`datasets.Dataset`):
            The collection that their rows are of.

    Returns:
        `Sequence[dict]`: the samples. Those about pages are as they were; of those about sections, `docids` and
        `provenance` are changed, and `rows` are not.
    """
    if collection_granularity(collection) == "title":
        return samples
    on_pages = []
    for sample in samples:
        page_of = dict(zip(sample["docids"], page_titles(collection)[sample["rows"]], strict=True))
        provenance = [[page_of[docid] for docid in evidence] for evidence in sample["provenance"]]
        on_pages.append(sample | {"docids": list(dict.fromkeys(page_of.values())), "provenance": provenance})
    return on_pages


def score_rows(
    samples: Dataset, rows: list[list[int]], collection: Dataset, answers: list[str] | None = None
) -> list[dict]:
    """
    Scores retrieved documents, and the answers made from them: by page, as KILT does. Of a collection of sections,
    the samples whose provenance names a section other than the lead are scored by section as well.

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        rows (`list[list[int]]`):
            Ranked rows of the collection per sample.
        collection (`datasets.Dataset`):
            The collection.
        answers (`list[str]`, *optional*):
            Answer per sample.

    Returns:
        `list[dict]`: the rows of [`score_predictions`]; where there are such samples, one more with the subset
        `SECTION_SUBSET`.
    """
    on_pages = page_level(samples, collection)
    scored = score_predictions(on_pages, [page_titles(collection)[ranking] for ranking in rows], answers)
    pairs = enumerate(zip(samples, on_pages, strict=True))
    named = [i for i, (sample, on_page) in pairs if sample["provenance"] != on_page["provenance"]]
    if named:
        by_section = score_predictions(
            samples.select(named),
            [collection[rows[i]]["title"] for i in named],
            answers and [answers[i] for i in named],
        )
        scored.append(by_section[0] | {"subset": SECTION_SUBSET})
    return scored


def evaluate_strategies(
    samples: Dataset, processor: MintProcessor, strategies: Iterable[str], *, rag=None, gar=None, **options
) -> tuple[list[dict], list[dict]]:
    """
    Answers the samples' queries by each strategy and scores it.

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        strategies (`Iterable[str]`):
            Strategies to run.
        rag, gar ([`MintForConditionalGeneration`], *optional*):
            The models.
        **options:
            As for [`StrategyInference`].

    Returns:
        `tuple[list[dict], list[dict]]`: the rows of [`score_rows`] with `system` added, and the predictions
        (`id`, `system`, `query`, `answer`, `score`, `docids`, `gold_answers`, `gold_docids`).
    """
    inference = StrategyInference(samples["query"], processor, rag=rag, gar=gar, **options)
    rows, predictions = [], []
    for strategy in strategies:
        output = inference.run(strategy)
        docids = [processor.collection[rows_]["title"] for rows_ in output.rows]
        rows += [
            {"system": strategy} | row
            for row in score_rows(samples, output.rows, processor.collection, output.answers)
        ]
        predictions += [
            {
                "id": sample["id"],
                "system": strategy,
                "query": sample["query"],
                "answer": answer,
                "score": score,
                "docids": found,
                "gold_answers": sample["answers"],
                "gold_docids": sample["docids"],
            }
            for sample, answer, score, found in zip(samples, output.answers, output.scores, docids, strict=True)
        ]
    return rows, predictions


def predict_role(samples: Dataset, processor: MintProcessor, model, role: str | None = None, **options) -> list[dict]:
    """
    Asks one model by the strategy of its role.

    Args:
        samples (`datasets.Dataset`):
            Samples in the common schema; their queries are asked.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        model ([`MintForConditionalGeneration`]):
            The model.
        role (`str`, *optional*):
            Role to switch a model to that holds both. Defaults to the one that `model` has.
        **options:
            As for [`StrategyInference`].

    Returns:
        `list[dict]`: one prediction per sample, fit for JSON: `rows` (ranked rows of the collection),
        `document_scores` (theirs), `answer`, and `answer_log_prob` (mean log-probability per token of the answer).
    """
    if role is None:
        role = model.config.role
    else:
        model.set_role(role)
    inference = StrategyInference(samples["query"], processor, **{role: model}, **options)
    found = inference.rag_documents if role == "rag" else inference.gar_documents
    answers = inference.rag_answers if role == "rag" else inference.gar_answers
    columns = {
        "rows": found.rows,
        "document_scores": found.scores,
        "answer": answers.texts,
        "answer_log_prob": answers.log_probs,
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def score_role(samples: Dataset, predictions: list[dict], processor: MintProcessor) -> dict:
    """
    Scores what [`predict_role`] predicted, and calibrates the answers' temperature on it.

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        predictions (`list[dict]`):
            One prediction per sample, in their order.
        processor ([`MintProcessor`]):
            Processor with the collection.

    Returns:
        `dict`: `METRICS` over all samples, and `answer_temperature`.
    """
    answers = [prediction["answer"] for prediction in predictions]
    rows = [prediction["rows"] for prediction in predictions]
    scores = score_rows(samples, rows, processor.collection, answers)[0]
    correct = [
        normalize_answer(answer) in map(normalize_answer, gold)
        for answer, gold in zip(answers, samples["answers"], strict=True)
    ]
    temperature = calibrate_temperature([prediction["answer_log_prob"] for prediction in predictions], correct)
    return {name: scores[name] for name in METRICS} | {"answer_temperature": temperature}


def evaluate_role(samples: Dataset, processor: MintProcessor, model, **options) -> dict:
    """[`score_role`] of [`predict_role`], for one process."""
    return score_role(samples, predict_role(samples, processor, model, **options), processor)
