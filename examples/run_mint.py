"""The whole of MINT, from raw documents to a web page that answers questions.

    python examples/run_mint.py --config examples/configs/demo.yaml
    python examples/run_mint.py --output_dir outputs/mine --collection documents.jsonl --labelled questions.jsonl

Interrupted and started again with the same folder and settings, it goes on where it was. Each stage has a script of
its own beside this one. Several GPUs train and write samples together with

    accelerate launch --config_file examples/accelerate_configs/ddp.yaml examples/run_mint.py --output_dir outputs/mine
"""

import json
import logging
import shlex
import sys
from importlib.metadata import version

from accelerate import PartialState
from arguments import Settings, parse_settings
from assets import SMOLLM2, VITAL_ARTICLES
from build_collection import build_collection, load_processor
from co_train import co_train
from evaluate_mint import evaluate, results_table
from generate_auxiliary import generate_auxiliary
from run_folder import RunFolder, plain_errors, set_up_logging
from transformers import set_seed
from warm_up import last_losses, warm_up

from dataset_builders.writing import write_text
from hub_cards import write_cards

logger = logging.getLogger(__name__)

STAGES = {
    "build_collection": build_collection,
    "generate_auxiliary": generate_auxiliary,
    "warm_up": warm_up,
    "co_train": co_train,
    "evaluate_mint": evaluate,
}

# In the other stages the main process works and the others wait.
ON_ALL_PROCESSES = {"generate_auxiliary", "warm_up", "co_train"}

# Where the demo's named assets come from; a user's own data has a licence that only the user knows.
KNOWN_SOURCES = {
    "smollm2-135m-instruct": {
        "name": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
        "revision": f"GGUF Q4_1 of {SMOLLM2.name} {SMOLLM2.version}",
        "chain": "SmolLM2-135M-Instruct, Hugging Face: Apache-2.0",
    },
    "vital-articles": {
        "name": "Wikipedia vital articles (lead texts)",
        "license": "cc-by-sa-4.0",
        "attribution": f"Text by Wikipedia's authors, as packed in {VITAL_ARTICLES.name} {VITAL_ARTICLES.version}.",
        "chain": f"Wikipedia text: CC BY-SA; packed by {VITAL_ARTICLES.name} (GPL-3.0-or-later code, not used)",
        # For the demo page.
        "language": "en",
        "article_url": "https://en.wikipedia.org/wiki/{title}",
    },
}


def run_mint(settings: Settings) -> RunFolder:
    """
    Runs all stages that are not done yet, and writes `run.json`, `report.md` and the cards.

    Returns:
        [`RunFolder`]: the finished run.
    """
    folder = RunFolder(settings)
    facts = {}
    for name, stage in STAGES.items():
        set_seed(settings.run.seed)
        facts[name] = folder.run_stage(
            name, lambda stage=stage: stage(settings, folder), on_all_processes=name in ON_ALL_PROCESSES
        )
    if PartialState().is_main_process:
        write_report(settings, folder, facts)
    return folder


def write_report(settings: Settings, folder: RunFolder, facts: dict) -> None:
    """Writes what the run did and found: `run.json` (which the cards are filled from), `report.md` and the cards."""
    run, training = settings.run, settings.training
    co_training, evaluation = facts["co_train"], facts["evaluate_mint"]
    backbone, llm, collection = (source(name) for name in (run.backbone, run.llm, run.collection))
    written = sum(sum(entry.get("samples", {}).values()) for entry in co_training["iterations"])
    kept = sum(sum(entry.get("kept", {}).values()) for entry in co_training["iterations"])
    arguments = {**vars(training), **vars(settings.co_training), **vars(settings.confidence)}
    report = {
        "backbone": backbone,
        "llm": llm,
        "collection": {
            **collection,
            "num_documents": facts["build_collection"]["num_documents"],
            "trie_bytes": load_processor(settings, folder).trie.nbytes,
        },
        "data": {
            "basic": facts["build_collection"]["basic"],
            "auxiliary": {"train": facts["generate_auxiliary"]["samples"]},
            "co_training": {"train": written, "kept": kept},
        },
        "training": {
            "arguments": {name: "default" if value is None else value for name, value in arguments.items()},
            "losses": {role: last_losses(folder.trained[role]) for role in ("rag", "gar")},
        },
        "evaluation": {
            "rows": evaluation["rows"],
            "dev_scores": evaluation["dev_scores"],
            "published_stage": "co-training" if co_training["best_iteration"] else "warm-up",
        },
        "co_training": co_training["iterations"],
        "best_iteration": co_training["best_iteration"],
        "seconds": {name: facts[name]["seconds"] for name in STAGES},
        "memory": {"peak_memory_mb": max(facts[name]["peak_memory_mb"] for name in STAGES)},
        "seed": run.seed,
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "trl", "peft")},
        "command": shlex.join(["python", "examples/run_mint.py", *sys.argv[1:]]),
        "license_chain": list(dict.fromkeys(one["chain"] for one in (backbone, llm, collection))),
    }
    write_text(folder.root / "run.json", json.dumps(report, indent=1) + "\n")
    write_text(folder.root / "report.md", report_text(report))
    write_cards(folder.root)
    print((folder.root / "report.md").read_text(encoding="utf-8"))


def source(name: str) -> dict:
    """Name, licence and origin of a backbone, LLM or collection."""
    unknown = {
        "name": name,
        "license": "unknown",
        "revision": "main",
        "attribution": "See where it comes from.",
        "chain": f"{name}: licence unknown, see where it comes from",
    }
    return unknown | KNOWN_SOURCES.get(name, {})


def report_text(report: dict) -> str:
    """The run in Markdown: results, co-training, cost."""
    lines = [
        "# MINT run",
        "",
        f"{report['collection']['num_documents']} titles in the trie ({report['collection']['trie_bytes']} bytes), "
        f"{report['data']['basic']['test']} test questions, seed {report['seed']}. Scores in percent.",
        "",
        results_table(report["evaluation"]["rows"]),
        "## Co-training",
        "",
        f"Best iteration by dev score: {report['best_iteration']} (0: the warmed-up models); the run's models "
        "hold its weights.",
        "",
        "| iteration | RAG dev R-precision | GAR dev R-precision | kept of RAG's | kept of GAR's "
        "| precision of RAG's kept | precision of GAR's kept |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for entry in report["co_training"]:
        dev = [f"{100 * entry['dev_scores'][role]['r_precision']:.1f}" for role in ("rag", "gar")]
        made = ["–"] * 4
        if "kept" in entry:
            made = [f"{entry['kept'][role]} of {entry['samples'][role]}" for role in ("rag", "gar")]
            for role in ("rag", "gar"):
                precision = entry["precision"][role]["kept"]
                made.append("–" if precision is None else f"{100 * precision:.0f}")
        lines.append(f"| {entry['iteration']} | " + " | ".join(dev + made) + " |")
    lines += ["", "![Dev scores](dev_scores.png)", "", "## Cost", "", "| stage | seconds |", "|---|---:|"]
    lines += [f"| {name} | {seconds} |" for name, seconds in report["seconds"].items()]
    lines += ["", f"Peak memory: {report['memory']['peak_memory_mb']} MB."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs everything, then serves the web page."""
    set_up_logging()
    settings = parse_settings()
    folder = run_mint(settings)
    if settings.run.serve and PartialState().is_main_process:
        from hub_cards.serve import launch_app

        print("Serving the demo on http://127.0.0.1:7860 (Ctrl+C ends it; --no-serve leaves it out).")
        launch_app(folder.root)


if __name__ == "__main__":
    with plain_errors():
        main()
