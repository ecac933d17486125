"""Watching a model while it works: what it is given at each step, and the chance to stop it there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def watch_steps(model: PreTrainedModel, on_step: Callable[[torch.LongTensor], None]) -> Iterator[None]:
    """
    Calls a function before every forward pass that this thread makes of a model, whichever way of decoding makes it.

    Greedy decoding hands a model the prompt first and then each token that it has chosen, so that the function sees
    what a streamer of `generate` would see, the last token excepted.

    Args:
        model (`PreTrainedModel`):
            Model of either kind.
        on_step (`Callable[[torch.LongTensor], None]`):
            Given the decoder's input ids, of shape `(rows, tokens)`. What it raises ends the decoding.
    """
    thread = threading.get_ident()

    def before(module, args, kwargs):
        if threading.get_ident() == thread:
            on_step(kwargs["decoder_input_ids" if module.config.is_encoder_decoder else "input_ids"])

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["watch_steps"]
