"""Stage 5: scores before and after co-training, beside baselines -> evaluation.json, report.md and dev_scores.png.

    python examples/evaluate_mint.py --output_dir outputs/mine

Besides the stage of a run, it scores by any labelled KILT file: models,

    python examples/evaluate_mint.py --labelled dev.jsonl --output_dir outputs/scores --rag_model DIR --gar_model DIR

predictions in KILT's submission format, and one such file against another:

    python examples/evaluate_mint.py --labelled dev.jsonl --predictions guess.jsonl --json scores.json
    python examples/evaluate_mint.py --labelled dev.jsonl --compare guess.jsonl baseline.jsonl --json difference.json
"""

import json
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

import matplotlib
import torch
from accelerate import PartialState
from arguments import Settings, parse_settings
from build_collection import load_processor, resolve
from datasets import Dataset, load_dataset
from evaluation_arguments import EvaluationArguments
from evaluation_modes import compare_prediction_files, evaluate_models, score_predictions_file
from run_folder import RunFolder, plain_errors, set_up_logging
from trl import TrlParser
from warm_up import inference_options, role_models

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.writing import write_text
from modeling_mint import STRATEGIES, MintForConditionalGeneration, MintProcessor
from modeling_mint.compute_dtype import compute_dtype
from modeling_mint.configuration_mint import CALIBRATED
from modeling_mint.processing_mint import page_titles
from trainers.baselines import longest_title_match
from trainers.evaluation import (
    METRICS,
    evaluate_role,
    evaluate_strategies,
    page_level,
    score_predictions,
    score_rows,
)

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

HEADINGS = {
    "r_precision": "R-precision",
    "recall@5": "Recall@5",
    "em": "EM",
    "f1": "F1",
    "kilt_em": "KILT-EM",
    "kilt_f1": "KILT-F1",
}


def evaluate(settings: Settings, folder: RunFolder) -> dict:
    """
    Scores the untuned backbone, the warmed-up and the co-trained models on the test questions, all titles of the
    collection in the trie, beside longest-title match and BM25.

    Returns:
        `dict`: `rows` (one per stage, system and subset of the questions) and `dev_scores` (by role, then by stage).
    """
    processor = load_processor(settings, folder)
    test = load_dataset(str(folder.pseudo), "basic", split="test")
    validation = load_dataset(str(folder.pseudo), "basic", split="validation")
    options = inference_options(settings)
    co_training = folder.facts("co_train")

    rows = baselines(test, processor)
    untuned = {role: untuned_model(settings, role) for role in ("rag", "gar")}
    dev_scores = {
        role: {"untuned": evaluate_role(validation, processor, model, **options)} for role, model in untuned.items()
    }
    for role, model in untuned.items():
        scored, _ = evaluate_strategies(test, processor, [role], **{role: model}, **options)
        rows += [{"stage": "untuned", **row} for row in scored]
    del untuned

    stages = {"warm-up": {role: folder.warm_up / f"mint-{role}" for role in ("rag", "gar")}}
    last = co_training["iterations"][-1]["iteration"]
    if last:
        chosen = co_training["best_iteration"] or last
        trained = folder.co_training / f"iteration-{chosen}"
        stages["co-training"] = {
            role: trained / f"mint-{role}" if (trained / f"mint-{role}").is_dir() else stages["warm-up"][role]
            for role in ("rag", "gar")
        }
    trained_models, predictions = role_models(settings, folder, processor), []
    for stage, folders in stages.items():
        scores = co_training["iterations"][0 if stage == "warm-up" else chosen]["dev_scores"]
        models = trained_models.load(folders)
        for role, model in models.items():
            model.calibrate(role, **{name: scores[role][name] for name in CALIBRATED})
        scored, predictions = evaluate_strategies(test, processor, STRATEGIES, **models, **options)
        rows += [{"stage": stage, **row} for row in scored]
        write_text(
            folder.root / f"predictions-{stage}.jsonl",
            "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in predictions),
        )
    for entry in co_training["iterations"]:
        name = "warm-up" if entry["iteration"] == 0 else f"iteration {entry['iteration']}"
        for role, scores in entry["dev_scores"].items():
            dev_scores[role][name] = scores

    facts = {"rows": rows, "dev_scores": dev_scores, "num_test": len(test)}
    write_text(folder.root / "evaluation.json", json.dumps(facts, indent=1) + "\n")
    plot_dev_scores(dev_scores, settings.co_training.dev_metric, folder.root / "dev_scores.png")
    return facts


def untuned_model(settings: Settings, role: str) -> MintForConditionalGeneration:
    """The backbone as it comes, in a MINT role."""
    dtype = compute_dtype() if settings.training.bf16 else torch.float32
    model = MintForConditionalGeneration.from_backbone_pretrained(
        resolve(settings.run.backbone), role=role, docid_granularity=settings.run.docid_granularity, dtype=dtype
    )
    return model.to(PartialState().device)


def baselines(test: Dataset, processor: MintProcessor) -> list[dict]:
    """Rows of the baselines that need no training."""
    collection, queries = processor.collection, test["query"][:]
    titles, texts = collection["title"][:], collection["text"][:]
    bm25_rows, _ = Bm25Retriever(titles, texts).retrieve(queries, 5)
    scored = {
        "longest title": score_predictions(
            page_level(test, collection), longest_title_match(queries, page_titles(collection)[:], 5)
        ),
        "BM25": score_rows(test, bm25_rows.tolist(), collection),
    }
    return [{"stage": "baseline", "system": name, **row} for name, rows in scored.items() for row in rows]


def results_table(rows: list[dict]) -> str:
    """The rows as a Markdown table; scores in percent."""
    lines = [
        "| stage | system | questions | n | " + " | ".join(HEADINGS.values()) + " |",
        "|---|---|---|---:|" + "---:|" * len(HEADINGS),
    ]
    for row in rows:
        scores = ["–" if row[name] is None else f"{100 * row[name]:.1f}" for name in METRICS]
        subset = row["subset"].replace("_", " ")
        lines.append(
            f"| {row['stage']} | {row['system']} | {subset} | {row['queries']} | " + " | ".join(scores) + " |"
        )
    return "\n".join(lines) + "\n"


def plot_dev_scores(dev_scores: dict[str, dict[str, dict]], metric: str, path: Path) -> None:
    """Both models' dev score over the stages, as a PNG."""
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for role, style in (("rag", "o-"), ("gar", "s--")):
        stages = list(dev_scores[role])
        axes.plot(stages, [dev_scores[role][stage][metric] for stage in stages], style, label=role.upper())
    axes.set_ylim(0, 1)
    axes.set_ylabel(f"{HEADINGS[metric]} on validation")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def parse_mode() -> EvaluationArguments | None:
    """
    Reads the arguments of a mode; `None` where none is chosen, and the stage of a run is meant.

    Raises:
        ValueError: if they do not go together.
    """
    parser = TrlParser(
        EvaluationArguments,
        description=__doc__,
        epilog="For the stage of a run give --output_dir and the options of run_mint.py (see its --help) alone.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments, rest = parser.parse_args_and_config(return_remaining_strings=True)
    if not arguments.chosen:
        return None
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.check()
    return arguments


def main() -> None:
    """Runs the mode that the arguments choose."""
    set_up_logging()
    arguments = parse_mode()
    if arguments is None:
        settings = parse_settings()
        folder = RunFolder(settings)
        facts = folder.run_stage("evaluate_mint", lambda: evaluate(settings, folder))
        if PartialState().is_main_process:
            print(results_table(facts["rows"]))
    elif arguments.predictions:
        score_predictions_file(arguments)
    elif arguments.compare:
        compare_prediction_files(arguments)
    else:
        evaluate_models(arguments)


if __name__ == "__main__":
    with plain_errors():
        main()
