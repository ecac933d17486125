"""A system that replies to queries, whatever is inside: MINT by one of its strategies, or a baseline."""

from collections.abc import Callable
from typing import NamedTuple

from settings import NUM_DOCUMENTS

from modeling_mint import MintForConditionalGeneration, MintProcessor, StrategyInference

BATCH_SIZE = 32

Reply = tuple[list[int], str | None]
"""Ranked rows of the collection, and the answer; `None` of a system that answers nothing."""


class System(NamedTuple):
    """
    Attributes:
        reply (`Callable[[list[str]], list[Reply]]`): one reply per query.
        index_bytes (`int`): what is held of the collection to search in it; neither the texts nor a model's weights.
    """

    reply: Callable[[list[str]], list[Reply]]
    index_bytes: int


def mint_system(
    models: dict[str, MintForConditionalGeneration], processor: MintProcessor, strategy: str, **options
) -> System:
    """
    MINT by one of its strategies.

    Args:
        models (`dict[str, MintForConditionalGeneration]`): the models by role.
        processor ([`MintProcessor`]): with title trie and collection.
        strategy (`str`): one of `STRATEGIES`.
        **options: as for [`StrategyInference`].

    Returns:
        [`System`]
    """
    options = {"num_documents": NUM_DOCUMENTS, "batch_size": BATCH_SIZE, **options}

    def reply(queries: list[str]) -> list[Reply]:
        output = StrategyInference(queries, processor, **models, **options).run(strategy)
        return list(zip(output.rows, output.answers, strict=True))

    return System(reply, processor.trie.nbytes)
