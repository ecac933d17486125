"""What labelled samples tell of a model: its scores, and the settings that are calibrated on them."""

import os

from datasets import Dataset

from modeling_mint import MintProcessor
from modeling_mint.query_likelihood import query_log_probs

from .blocks import in_blocks
from .evaluation import predict_role, score_role
from .query_weight import calibrate_query_weight


def dev_scores(
    samples: Dataset,
    processor: MintProcessor,
    model,
    role: str,
    folder: str | os.PathLike,
    *,
    block_size: int = 64,
    batch_size: int = 16,
    show_progress: bool = False,
    **options,
) -> dict[str, float]:
    """
    Scores a model by the strategy of its role, ranking by docids alone, and calibrates it: how far its answers are to
    be trusted, and how much the texts of the documents found are to count in a ranking. For the latter, where one of
    the documents found is relevant, all are read, not those alone that may change places, since few queries find the
    wrong one first.

    Work that was interrupted goes on where it was, and processes share it, see [`~trainers.blocks.in_blocks`].

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        model ([`MintForConditionalGeneration`]):
            The model, of this role or of both.
        role (`str`):
            `"rag"` or `"gar"`.
        folder (`str` or `os.PathLike`):
            Folder of the finished blocks. It must belong to the same samples, model, role and options.
        block_size (`int`, *optional*, defaults to 64):
            Samples of a block.
        batch_size, show_progress, **options:
            As for [`StrategyInference`].

    Returns:
        `dict[str, float]`: what [`score_role`] gives, `answer_temperature` among it, and `query_likelihood_weight`
        (see [`calibrate_query_weight`]).
    """
    batching = {"batch_size": batch_size, "show_progress": show_progress}
    options |= batching | {"query_likelihood_weight": 0.0}

    def predict(items: range) -> list[dict]:
        chosen = samples.select(items)
        predictions = predict_role(chosen, processor, model, role, **options)
        for one, right in zip(predictions, chosen["rows"][:], strict=True):
            one["relevant"] = [row in right for row in one["rows"]]
        rows = [one["rows"] if any(one["relevant"]) else [] for one in predictions]
        read = query_log_probs(model, processor, chosen["query"][:], rows, **batching)
        return [one | {"query_log_probs": log_probs} for one, log_probs in zip(predictions, read, strict=True)]

    predictions = in_blocks(len(samples), block_size, folder, predict)
    columns = ([one[name] for one in predictions] for name in ("document_scores", "query_log_probs", "relevant"))
    weight = calibrate_query_weight(*columns)
    return score_role(samples, predictions, processor) | {"query_likelihood_weight": weight}
