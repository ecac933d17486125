"""Attention that keeps the keys and values of a prefix shared by all rows once."""

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

SHARED_PREFIX = "shared_prefix"
"""Name of the attention implementation: `from_pretrained(..., attn_implementation=SHARED_PREFIX)`."""


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    shared_prefix: DynamicCache | None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention of a batch whose rows all begin with the same tokens. The keys and values of this prefix are there
    once, not once per row: with a long few-shot prompt that saves most of the memory traffic of decoding (the idea of
    Hydragen, Juravsky et al. 2024). Registered with transformers under the name
    [`SHARED_PREFIX`].

    Args:
        module (`torch.nn.Module`):
            Attention layer that calls; its `layer_idx` picks the layer of the cache.
        query (`torch.Tensor`):
            Shape `(batch, heads, query_length, head_dim)`.
        key (`torch.Tensor`), value (`torch.Tensor`):
            What comes after the prefix, shape `(batch, key_heads, key_length, head_dim)`.
        attention_mask (`torch.Tensor`):
            Added to the scores of `key`, shape `(batch, 1, query_length, key_length)`.
        scaling (`float`):
            Factor of the scores.
        shared_prefix ([`~transformers.DynamicCache`] or `None`):
            Keys and values of the prefix, batch size 1. Every query sees all of it.

    Returns:
        `torch.Tensor`: shape `(batch, query_length, heads, head_dim)`; and `None` for the attention weights.

    Raises:
        `ValueError`: if the model needs what is not computed here: a sliding window, capped scores, or sinks.
    """
    needed = [name for name in ("sliding_window", "softcap", "s_aux") if kwargs.get(name) is not None]
    if needed:
        raise ValueError(
            f"{type(module).__name__} uses {needed}, LocalLLM does not compute it. Serve this model with an "
            "OpenAI-compatible server and pass its URL."
        )
    batch, heads, query_length, head_dim = query.shape
    key_heads, key_length = key.shape[1:3]
    # Heads that share a key are further queries to it.
    query = query.reshape(batch, key_heads, -1, head_dim) * scaling
    mask = attention_mask.repeat(1, 1, heads // key_heads, 1)
    scores = query @ key.transpose(2, 3) + mask
    if shared_prefix is None:
        output = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    else:
        layer = shared_prefix.layers[module.layer_idx]
        all_queries = query.transpose(0, 1).reshape(key_heads, -1, head_dim)
        prefix_scores = (all_queries @ layer.keys[0].transpose(1, 2)).view(key_heads, batch, query.shape[2], -1)
        weights = torch.cat([scores, prefix_scores.transpose(0, 1)], dim=-1).softmax(dim=-1, dtype=torch.float32)
        weights, prefix_weights = weights.to(value.dtype).tensor_split([key_length], dim=-1)
        prefix_weights = prefix_weights.transpose(0, 1).reshape(key_heads, all_queries.shape[1], -1)
        prefix_output = (prefix_weights @ layer.values[0]).view(key_heads, batch, -1, head_dim)
        output = weights @ value + prefix_output.transpose(0, 1)
    return output.reshape(batch, heads, query_length, head_dim).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, eager_mask)
