"""How each artefact of a MINT run stands on the Hub: its card, its push, and the page to try it on."""

from .cards import collection_card, model_card, pseudo_card, write_cards

__all__ = ["collection_card", "model_card", "pseudo_card", "write_cards"]
