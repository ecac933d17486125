"""Code that the Hub runs by name: each metric as a Space for `evaluate.load`, the docid search for `generate`."""

from pathlib import Path

from huggingface_hub import SpaceCard
from transformers.dynamic_module_utils import get_relative_import_files

import trainers.metrics
from modeling_mint import custom_generate_mint
from trainers.metrics import METRIC_NAMES

from .artefacts import Artefact
from .cards import docid_search_card
from .demo_space import SPACE

METRICS = Path(trainers.metrics.__file__).parent
METRIC_APP = Path(__file__).parent / "metric_app.py"
METRIC_REQUIREMENTS = {"kilt_retrieval": ["evaluate"], "kilt_downstream": ["evaluate", "rouge"]}
GENERATE_REQUIREMENTS = ["transformers>=5.23.0", "torch>=2.13.0", "numpy", "safetensors"]


def metric_artefacts(org: str) -> list[Artefact]:
    """
    The metrics, each as the Space that `evaluate.load("org/name")` takes its module from, with a page to try it on.

    Args:
        org (`str`):
            User or organization on the Hub.

    Returns:
        `list[Artefact]`: one Space for each metric.
    """
    return [metric_artefact(name, org) for name in METRIC_NAMES]


def metric_artefact(name: str, org: str) -> Artefact:
    """
    One metric as a Space.

    Args:
        name (`str`):
            Name of the metric.
        org (`str`):
            User or organization on the Hub.

    Returns:
        [`Artefact`]: the Space.
    """
    card = SpaceCard.load(METRICS / name / "README.md")
    card.text = card.text.replace(f"trainers/metrics/{name}", f"{org}/{name}")
    card.data.sdk, card.data.app_file = "gradio", "app.py"
    card.data.sdk_version = SpaceCard.load(SPACE / "README.md").data.sdk_version
    files = {
        "README.md": str(card).encode(),
        "app.py": METRIC_APP,
        f"{name}.py": METRICS / name / f"{name}.py",
        "requirements.txt": _lines(METRIC_REQUIREMENTS[name]),
    }
    return Artefact(f"{org}/{name}", "space", files, card.data.to_dict()["description"])


def docid_search_artefact(org: str, model: str) -> Artefact:
    """
    The docid search as a decoding method: `model.generate(..., custom_generate="org/mint-docid-search")`. It is a
    repository of its own, since inside a model's it would take the place of `generate` for every task.

    Args:
        org (`str`):
            User or organization on the Hub.
        model (`str`):
            Name of the account's model that the card shows it with.

    Returns:
        [`Artefact`]: a repository of code without weights.
    """
    source = Path(custom_generate_mint.__file__)
    modules = sorted({Path(path) for path in get_relative_import_files(source)})
    files = {
        "README.md": str(docid_search_card(model, org)).encode(),
        "custom_generate/generate.py": source,
        **{f"custom_generate/{path.name}": path for path in modules},
        "custom_generate/requirements.txt": _lines(GENERATE_REQUIREMENTS),
    }
    note = "Beam search over titles, behind the generate of any model."
    return Artefact(f"{org}/mint-docid-search", "model", files, note)


def _lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
