"""Predictions and models that belong to no run, scored by any labelled KILT file: modes of `evaluate_mint.py`."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState
from build_collection import resolve
from evaluation_arguments import EvaluationArguments

from dataset_builders.kilt import read_record
from dataset_builders.writing import file_fingerprint, write_text
from modeling_mint import MintForConditionalGeneration, MintProcessor
from modeling_mint.compute_dtype import compute_dtype
from modeling_mint.processing_mint import page_titles
from trainers.kilt_predictions import (
    TITLE,
    WIKIPEDIA_ID,
    GoldQuery,
    align_predictions,
    read_gold,
    read_predictions,
    write_predictions,
)
from trainers.score_breakdown import compare_groups, group_scores, kilt_result, query_groups, query_scores
from trainers.score_tables import comparison_table, examples_text, score_table
from trainers.strategy_predictions import kilt_provenance, predict_strategies

logger = logging.getLogger(__name__)

# Arguments that change nothing in what the models reply.
_NOT_PART_OF_REPLIES = {"output_dir", "json", "train", "rank_keys", "ks", "num_resamples", "seed"}
_NOT_PART_OF_REPLIES |= {"inference_batch_size", "predictions", "compare"}


def score_predictions_file(arguments: EvaluationArguments) -> None:
    """Scores a prediction file: KILT's own figures, and a table by group of queries."""
    keys = arguments.keys()
    gold = read_gold(arguments.labelled, keys)
    predictions = align_predictions(gold, read_predictions(arguments.predictions, keys))
    scores = query_scores(gold, predictions, arguments.cut_offs)
    result = _result(arguments, scores, _groups(arguments, gold))
    _write_json(arguments.json, result)
    print(score_table({Path(arguments.predictions).stem: result["groups"]}))


def compare_prediction_files(arguments: EvaluationArguments) -> None:
    """Compares two prediction files by the paired bootstrap."""
    keys = arguments.keys()
    gold = read_gold(arguments.labelled, keys)
    first, second = (
        query_scores(gold, align_predictions(gold, read_predictions(path, keys)), arguments.cut_offs)
        for path in arguments.compare
    )
    options = {"num_resamples": arguments.num_resamples, "seed": arguments.seed}
    compared = compare_groups(first, second, _groups(arguments, gold), **options)
    names = dict(zip(("first", "second"), arguments.compare, strict=True))
    _write_json(arguments.json, names | options | {"queries": len(gold), "groups": compared})
    print(f"First: {names['first']}. Second: {names['second']}.\n")
    print(comparison_table(compared))


def evaluate_models(arguments: EvaluationArguments) -> None:
    """
    Has models answer the queries of a labelled file, and scores them. Writes to `output_dir`, by strategy,
    `predictions-*.jsonl` (KILT's submission format) and `examples-*.md`; and `scores.json` and `scores.md`.
    """
    folder, is_main_process = Path(arguments.output_dir), PartialState().is_main_process
    processor, models = _load(arguments)
    gold = read_gold(arguments.labelled, (), blind=True)
    places = range(len(gold))
    if arguments.limit and arguments.limit < len(gold):
        places = [number * len(gold) // arguments.limit for number in range(arguments.limit)]
    queries = [_prompt_query(gold[place]) for place in places]
    _check_same_work(arguments, folder, queries)
    top_k = arguments.top_k or max(arguments.cut_offs)
    replies = predict_strategies(
        queries,
        processor,
        arguments.strategies(),
        folder / "blocks",
        **models,
        k=top_k,
        num_beams=arguments.num_beams,
        num_documents=arguments.num_documents,
        query_likelihood_weight=arguments.query_likelihood_weight,
        max_new_tokens=arguments.max_new_tokens,
        batch_size=arguments.inference_batch_size,
        show_progress=is_main_process,
    )
    if not is_main_process:
        return
    ids, provenance = [gold[place].id for place in places], {}
    for strategy, written in replies.items():
        provenance[strategy] = kilt_provenance([one["rows"] for one in written], processor.collection)
        answers = [one["answer"] for one in written]
        write_predictions(folder / f"predictions-{strategy}.jsonl", ids, answers, provenance[strategy])
    if not any(one.answers or one.provenance for one in gold):
        logger.info("%s has no labels: predictions are written, and there is nothing to score.", arguments.labelled)
        return

    keys = arguments.keys(_keys_of(gold, provenance, arguments.labelled))
    gold = [read_gold(arguments.labelled, keys, blind=True)[place] for place in places]
    _warn_of_missing_pages(gold, processor)
    groups, systems = _groups(arguments, gold), {}
    for strategy, found in provenance.items():
        predictions = align_predictions(gold, read_predictions(folder / f"predictions-{strategy}.jsonl", keys))
        scores = query_scores(gold, predictions, arguments.cut_offs)
        systems[strategy] = _result(arguments, scores, groups)
        titles = [[piece["title"] for piece in ranking] for ranking in found]
        text = examples_text(gold, predictions, titles, scores, seed=arguments.seed)
        write_text(folder / f"examples-{strategy}.md", f"# Examples of {strategy}\n\n{text}")
    table = score_table({strategy: result["groups"] for strategy, result in systems.items()})
    for path in (folder / "scores.json", arguments.json):
        _write_json(path, {"rank_keys": list(keys), "strategies": systems})
    write_text(folder / "scores.md", table)
    print(table)


def _result(arguments: EvaluationArguments, scores: dict, groups: dict) -> dict:
    options = {"num_resamples": arguments.num_resamples, "seed": arguments.seed}
    broken_down = group_scores(scores, groups, **options)
    return kilt_result(scores) | {"queries": broken_down["all"]["queries"], **options, "groups": broken_down}


def _groups(arguments: EvaluationArguments, gold: list[GoldQuery]) -> dict:
    return query_groups(gold, read_gold(arguments.train, TITLE) if arguments.train else None)


def _write_json(path: str | Path, content: dict) -> None:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _load(arguments: EvaluationArguments) -> tuple[MintProcessor, dict[str, MintForConditionalGeneration]]:
    """The processor, and the models by role: two full ones, or one that holds both as adapters."""
    device = PartialState().device
    if arguments.base:
        adapters = {role: resolve(getattr(arguments, f"{role}_adapter")) for role in sorted(arguments.roles())}
        model = MintForConditionalGeneration.from_pretrained(resolve(arguments.base), dtype=compute_dtype())
        model.load_roles(adapters)
        return MintProcessor.from_pretrained(arguments.base), dict.fromkeys(adapters, model.to(device))
    models = {}
    for role in sorted(arguments.roles(), reverse=True):
        name = resolve(getattr(arguments, f"{role}_model"))
        models[role] = MintForConditionalGeneration.from_pretrained(name, dtype=compute_dtype()).to(device)
        if models[role].config.role != role:
            raise ValueError(f"{name} is a {models[role].config.role.upper()} model, given as --{role}_model.")
    return MintProcessor.from_pretrained(arguments.rag_model or arguments.gar_model), models


def _prompt_query(one: GoldQuery) -> str:
    """The query as the builders of training data read it."""
    try:
        return read_record({"id": one.id, "input": one.query}, one.task or "open_qa").query
    except ValueError as error:
        raise ValueError(f"query '{one.id}': {error}") from error


def _check_same_work(arguments: EvaluationArguments, folder: Path, queries: list[str]) -> None:
    """Refuses a folder whose blocks other models, queries or options have made."""
    fixed = {name: value for name, value in asdict(arguments).items() if name not in _NOT_PART_OF_REPLIES}
    fixed |= {"top_k": arguments.top_k or max(arguments.cut_offs), "labelled": file_fingerprint(arguments.labelled)}
    fixed |= {name: _model_fingerprint(value) for name, value in arguments.models.items()} | {"queries": len(queries)}
    path = folder / "evaluation-settings.json"
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name, value in fixed.items() if value != earlier.get(name))
        if changed:
            raise ValueError(
                f"{folder} holds an evaluation with other settings ({', '.join(changed)}). Choose another "
                "--output_dir, or delete that folder."
            )
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        _write_json(path, fixed)


def _model_fingerprint(name: str) -> str:
    files = sorted(Path(name).glob("*.safetensors")) + sorted(Path(name).glob("config.json"))
    return file_fingerprint(*files) if files else name


def _keys_of(gold: list[GoldQuery], provenance: dict, labelled: str) -> tuple[str, ...]:
    """`WIKIPEDIA_ID` where both the collection and the labels have page ids, else `TITLE`."""
    found = [piece for rankings in provenance.values() for ranking in rankings for piece in ranking]
    if not all("wikipedia_id" in piece for piece in found):
        return TITLE
    try:
        read_gold(labelled, WIKIPEDIA_ID, blind=True)
    except ValueError:
        return TITLE
    return WIKIPEDIA_ID


def _warn_of_missing_pages(gold: list[GoldQuery], processor: MintProcessor) -> None:
    titles = {title for one in gold for title in one.titles}
    missing = sorted(titles - set(page_titles(processor.collection)[:]))
    if missing:
        logger.warning(
            "%d of %d gold pages are not in the collection, such as '%s': they cannot be found.",
            len(missing),
            len(titles),
            missing[0],
        )
