"""The type that this machine computes fastest in."""

import torch


def compute_dtype() -> torch.dtype:
    """
    The type to run models in, and whether mixed precision pays: bfloat16 where the machine multiplies in it. Most CPUs
    without AVX-512 do not, and run a bfloat16 model several times slower than a float32 one.

    Returns:
        `torch.dtype`: `torch.bfloat16` or `torch.float32`.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if torch.accelerator.is_available():
        return torch.bfloat16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
