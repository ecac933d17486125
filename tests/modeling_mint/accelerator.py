"""What an accelerator's title trie does, tried on the CPU."""

import copy

import torch

from modeling_mint.title_trie import TitleTrie
from modeling_mint.trie_walker import TrieWalker


def on_torch(trie: TitleTrie) -> TitleTrie:
    """The trie as it works on an accelerator: the walker's arrays are torch's."""
    there = copy.copy(trie)
    there.walker = TrieWalker(trie, xp=torch)
    return there
