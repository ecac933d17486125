"""Index bytes and latency of MINT and of the baselines: the systems of the table, one query at a time, in one run.

python examples/reproduction/costs.py --config examples/configs/reproduction.yaml --collection articles.jsonl \
    --train train.jsonl --dev dev.jsonl --num_labels 0 --json costs.json
"""

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from baselines import BASELINES, Baselines
from calibration import calibrated
from data import Data
from judging import STRATEGY
from rows import Rows
from settings import Settings
from systems import mint_system
from trl import TrlParser

from dataset_builders.quality import QualityArguments
from dataset_builders.writing import write_text
from modeling_mint import STRATEGIES
from trainers.confidence import ConfidenceArguments

MINT_ROW = "co-training-1"
WARM_UP = 3


@dataclass
class CostArguments:
    """
    Args:
        json (`str`): file for the figures.
        num_queries (`int`, *optional*, defaults to 30): dev queries that are timed, evenly spaced.
    """

    json: str = field(metadata={"help": "File for the figures."})
    num_queries: int = field(default=30, metadata={"help": "Dev queries that are timed."})


def measure(system, queries: list[str]) -> dict:
    """
    Times a system.

    Args:
        system ([`System`]): what replies.
        queries (`list[str]`): asked one at a time.

    Returns:
        `dict`: `index_bytes`, and the seconds of a reply: `median`, `worst`.
    """
    for query in queries[:WARM_UP]:
        system.reply([query])
    seconds = []
    for query in queries:
        start = time.perf_counter()
        system.reply([query])
        seconds.append(time.perf_counter() - start)
    return {"index_bytes": system.index_bytes, "median": statistics.median(seconds), "worst": max(seconds)}


def main() -> None:
    """Measures the rows given by `--rows` (all baselines and the first iteration of co-training by default)."""
    parser = TrlParser([Settings, QualityArguments, ConfidenceArguments, CostArguments])
    settings, quality, confidence, arguments = parser.parse_args_and_config()
    data = Data(settings, quality)
    step = max(len(data.judged) // arguments.num_queries, 1)
    queries = data.judged["query"][::step][: arguments.num_queries]
    baselines, figures = Baselines(settings, data), []
    for name in settings.rows or [*BASELINES, MINT_ROW]:
        if name in BASELINES:
            figures.append({"row": name, "strategy": STRATEGY} | measure(baselines.make(name), queries))
            continue
        rows = Rows(settings, data, confidence)
        models = rows.models.load(rows.train(name))
        for role, model in models.items():
            model.calibrate(role, **calibrated(settings, data, model, name, role))
        for strategy in STRATEGIES:
            for mark, options in (("", {}), (", nothing read", {"query_likelihood_weight": 0.0})):
                system = mint_system(models, data.processor, strategy, num_beams=settings.num_beams, **options)
                figures.append({"row": name, "strategy": strategy + mark} | measure(system, queries))
    write_text(Path(arguments.json), json.dumps(figures, indent=1) + "\n")
    print("| row | strategy | index MB | ms a query, median | worst |\n|---|---|---|---|---|")
    for one in figures:
        megabytes, median, worst = one["index_bytes"] / 1e6, 1000 * one["median"], 1000 * one["worst"]
        print(f"| {one['row']} | {one['strategy']} | {megabytes:.2f} | {median:.0f} | {worst:.0f} |")


if __name__ == "__main__":
    main()
