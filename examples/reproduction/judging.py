"""What a row's models reply to the dev queries, in KILT's submission format."""

from pathlib import Path

from data import Data
from settings import NUM_DOCUMENTS, Settings

from modeling_mint import STRATEGIES
from trainers.blocks import in_blocks
from trainers.evaluation import predict_role, score_role
from trainers.kilt_predictions import write_predictions
from trainers.role_models import AdapterModels
from trainers.strategy_predictions import BLOCK_SIZE, kilt_provenance, predict_strategies

# Rows whose models are judged by all strategies; "cascade", which answers once more, takes as long as the others.
BY_ALL_STRATEGIES = "co-training"


def judge(
    settings: Settings, data: Data, models: AdapterModels, name: str, folders: dict[str, Path]
) -> dict[str, Path]:
    """
    Replies to the dev queries by each strategy, block by block.

    Args:
        settings ([`Settings`]): where the predictions go: `<folder>/predictions/<name>.<strategy>.jsonl`.
        data ([`Data`]): dev queries and collection.
        models ([`AdapterModels`]): loads the adapters.
        name (`str`): name of the row.
        folders (`dict[str, pathlib.Path]`): folders of its adapters by role.

    Returns:
        `dict[str, pathlib.Path]`: the files by strategy.
    """
    strategies = STRATEGIES if name.startswith(BY_ALL_STRATEGIES) else ("rag", "gar", "ensemble")
    paths = {strategy: settings.folder / "predictions" / f"{name}.{strategy}.jsonl" for strategy in strategies}
    if all(path.is_file() for path in paths.values()):
        return paths
    options = {"num_beams": settings.num_beams, "num_documents": NUM_DOCUMENTS, "batch_size": 32}
    loaded, replies = models.load(folders), settings.folder / "replies" / name
    for role, model in loaded.items():
        model.answer_temperatures[role] = _temperature(data, model, role, replies / f"validation-{role}", options)
    dev = data.dev
    predicted = predict_strategies(
        dev["query"][:], data.processor, strategies, replies / "dev", **loaded, show_progress=False, **options
    )
    (settings.folder / "predictions").mkdir(exist_ok=True)
    for strategy, path in paths.items():
        answers = [one["answer"] for one in predicted[strategy]]
        provenance = kilt_provenance([one["rows"] for one in predicted[strategy]], data.processor.collection)
        write_predictions(path, dev["id"][:], answers, provenance)
    return paths


def _temperature(data: Data, model, role: str, folder: Path, options: dict) -> float:
    """The temperature of a role's answers, calibrated on the labels that were held out."""
    samples = data.validation

    def predict(items: range) -> list[dict]:
        return predict_role(samples.select(items), data.processor, model, role, **options)

    replies = in_blocks(len(samples), BLOCK_SIZE, folder, predict)
    return score_role(samples, replies, data.processor)["answer_temperature"]
