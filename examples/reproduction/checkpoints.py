"""Writes a row's adapters and what is known of them as the checkpoints that come with the project.

python examples/reproduction/checkpoints.py --config examples/configs/reproduction.yaml --collection articles.jsonl \
    --train train.jsonl --dev dev.jsonl --num_labels 0 --row whole-collection --checkpoints examples/checkpoints
"""

import json
import logging
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from calibration import calibrated
from data import TITLE, Data
from judging import judge
from rows import Rows
from safetensors.torch import load_file, save_file
from settings import NUM_DOCUMENTS, WARM_UP, Settings, adapter_config
from trl import TrlParser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from run_mint import source  # noqa: E402
from warm_up import last_losses  # noqa: E402

from dataset_builders.quality import QualityArguments  # noqa: E402
from dataset_builders.writing import write_text  # noqa: E402
from hub_cards import adapter_card  # noqa: E402
from modeling_mint import STRATEGIES  # noqa: E402
from trainers.adapter_models import ADAPTER_WEIGHTS_NAME  # noqa: E402
from trainers.confidence import ConfidenceArguments  # noqa: E402
from trainers.evaluation import score_predictions  # noqa: E402
from trainers.kilt_predictions import read_predictions  # noqa: E402

logger = logging.getLogger(__name__)


@dataclass
class CheckpointArguments:
    """
    Args:
        row (`str`): the row whose adapters are written.
        checkpoints (`str`): folder for them.
        test_set (`str`): what the dev queries are, for the cards.
    """

    row: str = field(metadata={"help": "Row whose adapters are written."})
    checkpoints: str = field(metadata={"help": "Folder for them."})
    test_set: str = field(metadata={"help": "What the dev queries are, for the cards."})


def evaluation_rows(data: Data, paths: dict[str, Path], stage: str) -> list[dict]:
    """
    Scores as the cards have them.

    Args:
        data ([`Data`]): the dev queries.
        paths (`dict[str, pathlib.Path]`): predictions by strategy.
        stage (`str`): name of the row.

    Returns:
        `list[dict]`: see [`score_predictions`]; with `stage` and `system`.
    """
    samples, rows = data.judged.to_list(), []
    for strategy, path in paths.items():
        found = read_predictions(path, TITLE)
        replies = [found[sample["id"]] for sample in samples]
        scores = score_predictions(samples, [one.docids for one in replies], [one.answer for one in replies])
        rows += [{"stage": stage, "system": strategy} | row for row in scores]
    return rows


def machine_samples(settings: Settings, data: Data, rows: Rows, row: str) -> dict:
    """
    What was trained on beside the labels: of published adapters that were gone on from, their report tells.

    Args:
        settings ([`Settings`]): what was gone on from.
        data ([`Data`]): the auxiliary samples.
        rows ([`Rows`]): the co-training.
        row (`str`): name of the row.

    Returns:
        `dict`: numbers of samples of `auxiliary` and `co_training`.
    """
    if settings.adapters:
        earlier = json.loads((Path(settings.adapters) / "run.json").read_text(encoding="utf-8"))["data"]
    else:
        earlier = {"auxiliary": {"train": len(data.auxiliary)}, "co_training": rows.exchanged(WARM_UP)}
    auxiliary, exchanged = earlier["auxiliary"], earlier["co_training"]
    if row == "co-trained":
        exchanged = {name: exchanged[name] + number for name, number in rows.exchanged("grounded").items()}
    return {"auxiliary": auxiliary, "co_training": exchanged}


def main() -> None:
    """Trains and judges the row if that is not done, then writes `run.json` and the adapters with their cards."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    parser = TrlParser([Settings, QualityArguments, ConfidenceArguments, CheckpointArguments])
    settings, quality, confidence, arguments = parser.parse_args_and_config()
    data = Data(settings, quality)
    rows, target = Rows(settings, data, confidence), Path(arguments.checkpoints)
    folders = rows.train(arguments.row)
    paths = judge(settings, data, rows.models, arguments.row, folders)
    found = {
        role: calibrated(settings, data, rows.models.load({role: folder})[role], arguments.row, role)
        for role, folder in folders.items()
    }
    backbone, collection = source("smollm2-135m-instruct"), source("vital-articles")
    adapter = adapter_config()
    run = {
        "backbone": backbone,
        "llm": backbone,
        "collection": {
            **collection,
            "num_documents": len(data.processor.collection),
            "trie_bytes": data.processor.trie.nbytes,
        },
        "data": {
            "basic": {"train": len(data.train), "validation": len(data.calibration), "test": len(data.judged)},
            **machine_samples(settings, data, rows, arguments.row),
        },
        "training": {
            "arguments": {
                "lora_rank": adapter.r,
                "lora_alpha": adapter.lora_alpha,
                "max_document_chars": data.processor.max_document_chars,
                "num_documents": NUM_DOCUMENTS,
                "num_beams": settings.num_beams,
                **asdict(confidence),
            },
            "calibrated": found,
            "losses": {role: last_losses(folder) for role, folder in folders.items()},
        },
        "evaluation": {
            "rows": evaluation_rows(data, {name: paths[name] for name in STRATEGIES if name in paths}, arguments.row),
            "published_stage": arguments.row,
            "test_set": arguments.test_set,
        },
        "memory": {"title_trie_bytes": data.processor.trie.nbytes},
        "seed": settings.seed,
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "trl", "peft")},
        # The files of whoever runs it: the paths on this machine say nothing to others.
        "command": (
            "python examples/reproduction/checkpoints.py --config examples/configs/reproduction.yaml "
            "--collection ARTICLES --backbone MODEL --train train.jsonl --dev dev.jsonl "
            f"--num_labels {settings.num_labels} --seed {settings.seed} --row {arguments.row} "
            f"{'--adapters EARLIER ' if settings.adapters else ''}"
            f"{'--questions QUESTIONS ' if settings.questions else ''}--checkpoints CHECKPOINTS --test_set NAME"
        ),
        "license_chain": list(dict.fromkeys([backbone["chain"], collection["chain"]])),
    }
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / "run.json", json.dumps(run, indent=1) + "\n")
    for role, folder in folders.items():
        checkpoint = target / f"mint-{role}-adapter"
        rows.models.publish(role, folder, checkpoint, **found[role])
        weights = load_file(checkpoint / ADAPTER_WEIGHTS_NAME)
        weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
        save_file(weights, checkpoint / ADAPTER_WEIGHTS_NAME, metadata={"format": "pt"})
        adapter_card(run, role).save(checkpoint / "README.md")
        logger.info("Wrote %s.", checkpoint)


if __name__ == "__main__":
    main()
