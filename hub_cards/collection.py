"""The Collection: the page of the account that ties all artefacts of a run together."""

from collections.abc import Iterable

from huggingface_hub import Collection, HfApi

from .artefacts import Artefact
from .hub_calls import call_hub

TITLE = "MINT"
DESCRIPTION = "Two models that retrieve by writing titles and teach each other: models, data, metrics, demo."


def tie_together(artefacts: Iterable[Artefact], org: str, private: bool = False) -> Collection:
    """
    Puts artefacts into the account's Collection, which is made where there is none. What is in it stays.

    Args:
        artefacts (`Iterable[Artefact]`):
            What to put in; their repositories exist.
        org (`str`):
            User or organization on the Hub.
        private (`bool`, *optional*, defaults to `False`):
            Whether a new Collection is private.

    Returns:
        [`~huggingface_hub.Collection`]: the Collection with all its items.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the Hub refused.
    """
    api = HfApi()
    collection = call_hub(
        api.create_collection, TITLE, namespace=org, description=DESCRIPTION, private=private, exists_ok=True
    )
    for artefact in artefacts:
        collection = call_hub(
            api.add_collection_item,
            collection.slug,
            artefact.repo_id,
            artefact.repo_type,
            note=artefact.note,
            exists_ok=True,
        )
    return collection
