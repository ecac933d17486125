"""What a row's models reply to the dev queries, in KILT's submission format."""

from pathlib import Path

from calibration import calibrated
from data import TITLE, Data, write_titles
from settings import Settings, inference_options

from modeling_mint import STRATEGIES, StrategyInference
from trainers.blocks import in_blocks, this_process
from trainers.kilt_predictions import align_predictions, read_predictions, write_predictions
from trainers.role_models import AdapterModels
from trainers.score_breakdown import group_scores, query_groups, query_scores
from trainers.score_tables import score_table
from trainers.strategy_predictions import BLOCK_SIZE, kilt_provenance, predict_strategies

# Rows whose models are judged by all strategies; "cascade", which answers once more, takes as long as the others.
BY_ALL_STRATEGIES = "co-training"

BY_RETRIEVAL = ("substituted", "no-exchange", "no-filter", "no-auxiliary", "more-labels")
"""Rows that say something of retrieval: RAG is not asked to answer."""

STRATEGY = "baseline"
"""What stands in a strategy's place in the file names and tables of systems other than MINT."""


def prediction_paths(settings: Settings, name: str) -> dict[str, Path]:
    """
    Where a row's replies go.

    Args:
        settings ([`Settings`]): number of labels and seed.
        name (`str`): name of the row.

    Returns:
        `dict[str, pathlib.Path]`: the files by strategy.
    """
    strategies = ("rag", "gar") if name in BY_RETRIEVAL else ("rag", "gar", "ensemble")
    if name.startswith(BY_ALL_STRATEGIES):
        strategies = STRATEGIES
    return {strategy: settings.predictions / f"{name}.{strategy}.jsonl" for strategy in strategies}


def judge(
    settings: Settings, data: Data, models: AdapterModels, name: str, folders: dict[str, Path]
) -> dict[str, Path]:
    """
    Replies to the judged queries by each strategy, block by block.

    Args:
        settings ([`Settings`]): where the predictions go.
        data ([`Data`]): judged queries and collection.
        models ([`AdapterModels`]): loads the adapters.
        name (`str`): name of the row.
        folders (`dict[str, pathlib.Path]`): folders of its adapters by role.

    Returns:
        `dict[str, pathlib.Path]`: the files by strategy.
    """
    paths = prediction_paths(settings, name)
    if all(path.is_file() for path in paths.values()):
        return paths
    loaded = models.load(folders)
    queries, replies = data.judged["query"][:], settings.replies(name)
    for role, model in loaded.items():
        model.calibrate(role, **calibrated(settings, data, model, name, role))
    if name in BY_RETRIEVAL:
        predicted = _retrieved(settings, data, loaded, replies)
    else:
        predicted = predict_strategies(
            queries, data.processor, tuple(paths), replies, **loaded, **inference_options(settings)
        )
    for strategy, path in paths.items():
        write_replies(path, data, predicted[strategy])
    return paths


def _retrieved(settings: Settings, data: Data, models: dict, folder: Path) -> dict[str, list[dict]]:
    """What both roles retrieve, as [`predict_strategies`] gives it; GAR has its answers in any case."""
    queries = data.judged["query"][:]

    def retrieve(items: range) -> list[dict]:
        chosen = [queries[item] for item in items]
        inference = StrategyInference(chosen, data.processor, **models, **inference_options(settings))
        rag = [{"rows": rows, "answer": None} for rows in inference.rag_documents.rows]
        pairs = zip(inference.gar_documents.rows, inference.gar_answers.texts, strict=True)
        gar = [{"rows": rows, "answer": answer} for rows, answer in pairs]
        return [{"rag": one, "gar": other} for one, other in zip(rag, gar, strict=True)]

    replies = in_blocks(len(queries), BLOCK_SIZE, folder, retrieve)
    return {role: [one[role] for one in replies] for role in models}


def write_replies(path: Path, data: Data, replies: list[dict]) -> None:
    """
    Writes replies to the judged queries in KILT's submission format, and beside them the titles of the articles that
    the labels to train on have. All processes call it, and one writes.

    Args:
        path (`pathlib.Path`): file to write, whole or not at all.
        data ([`Data`]): judged queries and collection.
        replies (`list[dict]`): per query, `rows` (ranked rows of the collection) and `answer`.
    """
    process = this_process()
    if process.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        provenance = kilt_provenance([one["rows"] for one in replies], data.processor.collection)
        write_predictions(path, data.judged["id"][:], [one["answer"] for one in replies], provenance)
        write_titles(path.with_name("labelled_titles.json"), data.labelled_titles)
    process.wait_for_everyone()


def print_scores(data: Data, paths: dict[str, Path]) -> None:
    """
    Prints the scores of predictions.

    Args:
        data ([`Data`]): judged queries.
        paths (`dict[str, pathlib.Path]`): files of predictions by name.
    """
    gold = data.judged_gold
    groups = query_groups(gold)
    table = {
        name: group_scores(query_scores(gold, align_predictions(gold, read_predictions(path, TITLE))), groups)
        for name, path in paths.items()
    }
    print(score_table(table), flush=True)
