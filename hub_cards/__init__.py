"""How each artefact of a MINT run stands on the Hub: its card, its push, and the page to try it on."""

from .cards import adapter_card, base_card, collection_card, model_card, pseudo_card, write_cards

__all__ = ["adapter_card", "base_card", "collection_card", "model_card", "pseudo_card", "write_cards"]
