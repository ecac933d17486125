"""What is calibrated of a row's models on labels that were held out, and on further queries."""

from data import Data
from settings import Settings, inference_options

from modeling_mint.configuration_mint import CALIBRATED
from trainers.dev_scores import dev_scores


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
    folder = settings.folder / "replies" / name / f"{'questions' if settings.questions else 'validation'}-{role}"
    scores = dev_scores(data.calibration, data.processor, model, role, folder, **inference_options(settings))
    return {name: scores[name] for name in CALIBRATED}
