"""What an accelerator's title trie does, tried on the CPU."""

import copy

import numpy as np
import torch

from modeling_mint.title_trie import TitleTrie


def on_torch(trie: TitleTrie) -> TitleTrie:
    """The trie as it works on an accelerator: the walker's arrays are torch's."""
    walker = copy.copy(trie.walker)
    walker.xp = torch
    for name, array in vars(walker).items():
        if isinstance(array, np.ndarray):
            setattr(walker, name, torch.from_numpy(array))
    trie = copy.copy(trie)
    trie.walker = walker
    return trie
