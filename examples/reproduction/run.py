"""Trains the rows of the table for one number of labels and one seed, and has them answer the dev queries, or others.

python examples/reproduction/run.py --config examples/configs/reproduction.yaml --collection articles.jsonl \
    --train train.jsonl --dev dev.jsonl --num_labels 250 --seed 0
"""

import logging

from controls import CONTROLS
from data import Data
from judging import judge, prediction_paths, print_scores
from rows import Rows
from settings import Settings
from trl import TrlParser

from dataset_builders.quality import QualityArguments
from trainers.confidence import ConfidenceArguments


def main() -> None:
    """Computes the rows in order and prints the scores of each."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    parser = TrlParser([Settings, QualityArguments, ConfidenceArguments])
    settings, quality, confidence = parser.parse_args_and_config()
    data = Data(settings, quality)
    rows = Rows(settings, data, confidence)
    after = [f"co-training-{iteration + 1}" for iteration in range(settings.iterations)]
    for name in settings.rows or ["basic", "auxiliary", "substituted", *after, *CONTROLS]:
        paths = prediction_paths(settings, name)
        if not all(path.is_file() for path in paths.values()):
            judge(settings, data, rows.models, name, rows.train(name))
        print_scores(data, {f"{name} {strategy}": path for strategy, path in paths.items()})


if __name__ == "__main__":
    main()
