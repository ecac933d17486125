"""What is calibrated of a row's models on the labels that were held out."""

from data import Data
from datasets import Dataset
from settings import Settings, inference_options

from modeling_mint import StrategyInference
from modeling_mint.query_likelihood import query_log_probs
from trainers.blocks import in_blocks
from trainers.evaluation import predict_role, score_role
from trainers.query_weight import calibrate_query_weight
from trainers.strategy_predictions import BLOCK_SIZE

CALIBRATION = 200
"""Labels, of those held out, to calibrate the temperature on."""


def calibrated(settings: Settings, data: Data, model, name: str, role: str) -> dict[str, float]:
    """
    The temperature of a role's answers, and how much it counts in a ranking what the model reads.

    Args:
        settings ([`Settings`]): where the replies go.
        data ([`Data`]): the labels.
        model ([`MintForConditionalGeneration`]): the model, not calibrated yet.
        name (`str`): name of the row.
        role (`str`): the model's role.

    Returns:
        `dict[str, float]`: settings of [`MintConfig`].
    """
    samples = data.validation.select(range(min(len(data.validation), CALIBRATION)))
    folder = settings.folder / "replies" / name

    def predict(items: range) -> list[dict]:
        return predict_role(samples.select(items), data.processor, model, role, **inference_options(settings))

    replies = in_blocks(len(samples), BLOCK_SIZE, folder / f"validation-{role}", predict)
    found = {"answer_temperature": score_role(samples, replies, data.processor)["answer_temperature"]}

    def read(items: range) -> list[dict]:
        return _readings(settings, data, data.validation.select(items), model, role)

    # All labels held out and all documents found, since few queries find the wrong one.
    readings = in_blocks(len(data.validation), BLOCK_SIZE, folder / f"read-{role}", read)
    columns = ([one[name] for one in readings] for name in ("scores", "log_probs", "relevant"))
    return found | {"query_likelihood_weight": calibrate_query_weight(*columns)}


def _readings(settings: Settings, data: Data, samples: Dataset, model, role: str) -> list[dict]:
    """Of each query the scores of the documents found, what their texts say, and which are relevant."""
    queries = samples["query"][:]
    options = inference_options(settings) | {"query_likelihood_weight": 0.0}
    inference = StrategyInference(queries, data.processor, **{role: model}, **options)
    found = inference.rag_documents if role == "rag" else inference.gar_documents
    log_probs = query_log_probs(model, data.processor, queries, found.rows, batch_size=options["batch_size"])
    return [
        {"scores": scores, "log_probs": read, "relevant": [title in gold for title in titles]}
        for scores, read, titles, gold in zip(found.scores, log_probs, found.docids, samples["docids"], strict=True)
    ]
