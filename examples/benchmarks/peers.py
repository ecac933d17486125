"""What the title trie is compared with: other tries over the same token paths, and indexes of vectors."""

from collections.abc import Callable

import faiss
import marisa_trie
import numpy as np

DIMENSIONS = 768
CODE_BYTES = 64
# KILT, as Petroni et al. (2021) cut it: 5.9 million pages, 22.2 million passages of 100 words.
PASSAGES_PER_TITLE = 22.2e6 / 5.9e6


def dict_trie(tokens: np.ndarray, lengths: np.ndarray) -> dict:
    """
    A trie of nested dicts from token to child, what people hand to `prefix_allowed_tokens_fn`.

    Args:
        tokens (`np.ndarray`):
            Tokens of all paths one after another.
        lengths (`np.ndarray`):
            Lengths of the paths.
    """
    root: dict = {}
    end = 0
    for length in lengths.tolist():
        node = root
        for token in tokens[end : end + length].tolist():
            node = node.setdefault(token, {})
        end += length
    return root


def dict_allowed_tokens(root: dict, prompt_length: int, eos_token_id: int) -> Callable:
    """The `prefix_allowed_tokens_fn` of a dict trie; a title that has ended goes on with the end token."""

    def allowed_tokens(batch_id, input_ids):
        node = root
        for token in input_ids[prompt_length:].tolist():
            node = node.get(token, {})
        return list(node) or [eos_token_id]

    return allowed_tokens


def character(token: int) -> str:
    """A token as one character; the surrogates, which no string may hold alone, are left out."""
    return chr(token if token < 0xD800 else token + 0x800)


def token_of(character: str) -> int:
    """The token that a character stands for."""
    code = ord(character)
    return code if code < 0xD800 else code - 0x800


def marisa(tokens: np.ndarray, lengths: np.ndarray) -> marisa_trie.Trie:
    """A MARISA trie of the paths, a token a character: succinct and static, with look-ups by prefix."""
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return marisa_trie.Trie(
        "".join(map(character, tokens[start:end].tolist())) for start, end in zip(starts, ends, strict=True)
    )


def marisa_allowed_tokens(trie: marisa_trie.Trie, prompt_length: int, eos_token_id: int) -> Callable:
    """
    The `prefix_allowed_tokens_fn` of a MARISA trie. It has no look-up of a node's children: they are read off the
    keys that start with the prefix. The root's, which would take all keys every time, are kept.
    """
    first_tokens = sorted({token_of(key[0]) for key in trie.iterkeys()})

    def allowed_tokens(batch_id, input_ids):
        prefix = "".join(map(character, input_ids[prompt_length:].tolist()))
        if not prefix:
            return first_tokens
        longer = {key[len(prefix)] for key in trie.iterkeys(prefix) if len(key) > len(prefix)}
        return sorted(map(token_of, longer)) or [eos_token_id]

    return allowed_tokens


def flat_bytes(num_vectors: float) -> int:
    """Bytes of `num_vectors` float32 vectors of `DIMENSIONS`."""
    return int(num_vectors * DIMENSIONS * 4)


def num_cells(num_vectors: int) -> int:
    """Cells of an inverted file: four times the square root of the number of vectors, as FAISS advises."""
    return int(4 * num_vectors**0.5)


def ivf_pq_bytes(num_vectors: int) -> int:
    """Bytes of a FAISS IVF-PQ index: a code and an 8-byte id a vector, the cells' centres and the codebooks."""
    return num_vectors * (CODE_BYTES + 8) + flat_bytes(num_cells(num_vectors) + 256)


def flat_index(num_vectors: int) -> faiss.Index:
    """FAISS index of float32 vectors as they are; the vectors are random."""
    index = faiss.IndexFlatIP(DIMENSIONS)
    rng = np.random.default_rng(0)
    for start in range(0, num_vectors, 10_000):
        index.add(rng.standard_normal((min(10_000, num_vectors - start), DIMENSIONS), dtype=np.float32))
    return index


def ivf_pq_index(num_vectors: int) -> faiss.Index:
    """FAISS index of inverted lists with product quantisation to `CODE_BYTES` a vector; the vectors are random."""
    # Only the size is of interest: no polysemous training ("np"), one round of k-means on as many points as centres.
    factory = f"IVF{num_cells(num_vectors)},PQ{CODE_BYTES}np"
    index = faiss.index_factory(DIMENSIONS, factory, faiss.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.niter, clustering.min_points_per_centroid = 1, 1
    rng = np.random.default_rng(0)
    index.train(rng.standard_normal((max(num_cells(num_vectors), 256), DIMENSIONS), dtype=np.float32))
    for start in range(0, num_vectors, 10_000):
        index.add(rng.standard_normal((min(10_000, num_vectors - start), DIMENSIONS), dtype=np.float32))
    return index


def index_bytes(build: Callable[[int], faiss.Index], num_vectors: int) -> int:
    """Bytes of a FAISS index, without what training and search allocate on the way."""
    return faiss.serialize_index(build(num_vectors)).nbytes
