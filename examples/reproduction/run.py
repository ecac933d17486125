"""Trains the rows of the table for one number of labels and one seed, and has them answer the dev queries.

python examples/reproduction/run.py --config examples/configs/reproduction.yaml --collection articles.jsonl \
    --train train.jsonl --dev dev.jsonl --num_labels 250 --seed 0
"""

import logging

from data import Data
from judging import judge
from rows import ROWS, Rows
from settings import Settings
from trl import TrlParser

from dataset_builders.quality import QualityArguments
from trainers.confidence import ConfidenceArguments
from trainers.kilt_predictions import align_predictions, read_gold, read_predictions
from trainers.score_breakdown import group_scores, query_groups, query_scores
from trainers.score_tables import score_table

TITLE = ("title",)


def main() -> None:
    """Computes the rows in order and prints the scores of each."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    parser = TrlParser([Settings, QualityArguments, ConfidenceArguments])
    settings, quality, confidence = parser.parse_args_and_config()
    data = Data(settings, quality)
    rows, gold = Rows(settings, data, confidence), read_gold(settings.dev, TITLE)
    groups = query_groups(gold)
    after = [f"co-training-{iteration + 1}" for iteration in range(settings.iterations)]
    for name in settings.rows or [*list(ROWS)[:2], *after, *list(ROWS)[2:]]:
        paths = judge(settings, data, rows.models, name, rows.train(name))
        predictions = {strategy: read_predictions(path, TITLE) for strategy, path in paths.items()}
        table = {
            f"{name} {strategy}": group_scores(query_scores(gold, align_predictions(gold, one)), groups)
            for strategy, one in predictions.items()
        }
        print(score_table(table), flush=True)


if __name__ == "__main__":
    main()
