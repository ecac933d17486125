"""What an accelerator's title trie does, tried on the CPU."""

import copy

import torch

from modeling_mint.title_trie import TitleTrie
from modeling_mint.trie_walker import TrieWalker


def on_torch(trie: TitleTrie) -> TitleTrie:
    """The trie as it works on an accelerator: the walker's arrays are torch's."""
    names = ("node_token", "first_child", "internal_node", "tail_token", "tail_start", "tail_offset", "eos_token_id")
    there = copy.copy(trie)
    there.walker = TrieWalker(**{name: getattr(trie, name) for name in names}, xp=torch)
    return there
