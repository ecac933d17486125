"""Filters the models' own samples again, without generating any: another filter for the `co_training` config.

python examples/refilter.py --samples outputs/mine/mint-pseudo --output_dir outputs/mine/refiltered --keep_fraction 0.3

A run with --keep calibrated is filtered again by --keep threshold --weight_round_trip 0, with the threshold that its
report has in --keep_threshold: to calibrate one takes the models.
"""

import json
from dataclasses import dataclass, field

from build_collection import resolve
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from run_folder import plain_errors, set_up_logging
from trl import TrlParser

from dataset_builders.writing import write_config, write_text
from trainers.confidence import ConfidenceArguments, first_docid_is_right, refilter, rows_by_writer
from trainers.iteration_report import source_in_query

CONFIG = "co_training"


@dataclass
class RefilterArguments:
    """
    What to filter.

    Args:
        samples (`str`): folder or Hub id of the dataset with the `co_training` config, a run's `mint-pseudo`.
        output_dir (`str`): folder to write the config to, filtered anew.
        json (`str`, *optional*): file for the figures.
    """

    samples: str = field(metadata={"help": "Folder or Hub id of the dataset with the co_training config."})
    output_dir: str = field(metadata={"help": "Folder to write the config to, filtered anew."})
    json: str = field(default="", metadata={"help": "File for the figures."})


def load_samples(name_or_path: str) -> Dataset:
    """
    Loads co-training data.

    Raises:
        OSError: if there is no such folder or dataset.
        ValueError: if it has no `co_training` config.
    """
    configs = get_dataset_config_names(resolve(name_or_path))
    if CONFIG not in configs:
        raise ValueError(
            f"{name_or_path} has no config {CONFIG!r}, only {', '.join(configs)}: run examples/co_train.py first."
        )
    return load_dataset(name_or_path, CONFIG, split="train")


def compare(before: Dataset, now: Dataset) -> list[dict]:
    """
    What two filters kept of what each model wrote in each iteration.

    Args:
        before, now (`datasets.Dataset`): the same samples in the same order, filtered.

    Returns:
        `list[dict]`: one row for each iteration and writer: `iteration`, `role`, `written`, and for what was kept
        `before` and `now` the number (`kept_...`), the share whose first docid is the document that the query was
        written from (`precision_...`) and the share whose query holds that document's title (`title_in_query_...`).
        A share of no samples is `None`.
    """
    rows = []
    for (iteration, role), numbers in rows_by_writer(now).items():
        row = {"iteration": iteration, "role": role, "written": len(numbers)}
        for name, samples in (("before", before), ("now", now)):
            kept = [sample for sample in samples.select(numbers) if sample["kept"]]
            row[f"kept_{name}"] = len(kept)
            row[f"precision_{name}"] = share([first_docid_is_right(sample) for sample in kept])
            row[f"title_in_query_{name}"] = share([source_in_query(sample) for sample in kept])
        rows.append(row)
    return rows


def share(found: list[bool]) -> float | None:
    """Share of those that are true; `None` of none."""
    return sum(found) / len(found) if found else None


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: str | int | float | None) -> str:
    """A value as a cell of the table."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(command_line: list[str] | None = None) -> None:
    """Filters, prints the table and writes the config, and the figures where `--json` says."""
    arguments, confidence = TrlParser((RefilterArguments, ConfidenceArguments)).parse_args_and_config(command_line)
    before = load_samples(arguments.samples)
    now = refilter(before, confidence)
    write_config(DatasetDict(train=now), arguments.output_dir, CONFIG)
    rows = compare(before, now)
    print(table(rows))
    if arguments.json:
        write_text(arguments.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        main()
