"""Synthetic titles by the million, with the statistics of Wikipedia's, as text and as token paths.

    python examples/benchmarks/synthetic_titles.py

prints the statistics beside those of 10,033 real titles.

Recipe. A title is a row of *pieces*. A piece is what a byte-level BPE tokenizer cuts a text into before it merges (a
word with the space before it, a comma, a bracket), so a title's tokens are its pieces' tokens one after another: only
the lexicon is tokenized, 330,000 pieces, whatever the number of titles. The kind of title (person, place, work,
year, list, ...) is drawn from `TEMPLATES`, each of its slots from a list of the lexicon:

- common words are the tokenizer's own whole-word tokens, in its order, which is that of their frequency;
- names: whole-word tokens first (one token), then words built of a beginning and an ending of the tokenizer's (two
  tokens, seldom more), which are the tail;
- kinds ("film"), kinds of place ("River"), years and section headings are short lists.

Ranks in a list follow Zipf's law with Mandelbrot's shift, p(rank) ~ 1 / (rank + shift). A title that was drawn before
is dropped, so that titles are distinct. The same seed gives the same titles; the first n of more are the same n.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from modeling_mint.tokenization_mint import encode_targets

sys.path.append(str(Path(__file__).parents[1]))
from assets import smollm2_folder, vital_articles  # noqa: E402

CHUNK = 500_000
NUM_NAMES = 300_000
# Share of titles and their slots. A slot in quotes is a piece of its own.
TEMPLATES = [
    (0.255, "given family"),
    (0.050, "given family '(' kind ')'"),
    (0.060, "given given family"),
    (0.080, "place"),
    (0.130, "place ',' place"),
    (0.060, "word word"),
    (0.050, "word lower"),
    (0.060, "word word word"),
    (0.050, "The word word"),
    (0.030, "word '(' kind ')'"),
    (0.030, "place '(' kind ')'"),
    (0.020, "word word '(' kind ')'"),
    (0.050, "place feature"),
    (0.030, "word of place"),
    (0.020, "year in place"),
    (0.015, "year place feature"),
    (0.010, "List of lower in place"),
]
# The shift that flattens the head of each list's Zipf law.
SHIFTS = {"given": 200, "family": 2500, "place": 2500, "word": 100, "lower": 100}
SHIFTS |= {"kind": 2, "feature": 2, "year": 300}
KINDS = (
    "film album song footballer politician band disambiguation novel river village actor musician series magazine "
    "ship company cricketer journalist painter singer book play game district writer opera horse plant moth genus"
)
FEATURES = (
    "River School Station County District Airport Lake University Park Bridge Island Museum Church Championship "
    "Mountain Hospital Castle Township Street Stadium League Open Institute Valley Railway Festival Highway Creek"
)
SECTIONS = (
    "History Career Life Reception Geography Background Demographics Production Plot Education Legacy Cast Awards "
    "Economy Works Releases Climate Personnel Results Government Description Transport Culture Taxonomy Discography"
)


class SyntheticTitles:
    """
    A source of distinct titles for one tokenizer.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Byte-level BPE tokenizer, such as SmolLM2's.
        seed (`int`, *optional*, defaults to 0):
            Seed of lexicon and titles.
        num_names (`int`, *optional*, defaults to 300,000):
            Names of the lexicon, fewer where the vocabulary's beginnings and endings do not make as many.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int = 0, num_names: int = NUM_NAMES):
        self.seed = seed
        self.eos_token_id = tokenizer.eos_token_id
        rng = np.random.default_rng(seed)
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        capitalised = [f" {token[1:]}" for token, _ in vocabulary if re.fullmatch("Ġ[A-Z][a-z]{2,}", token)]
        endings = [token for token, _ in vocabulary if re.fullmatch("[a-z]{2,4}", token)]
        begins, ends = (rng.choice(part, 2 * num_names).tolist() for part in (capitalised, endings))
        built = map("".join, zip(begins, ends, strict=True))
        names = list(dict.fromkeys([*rng.permutation(capitalised).tolist(), *built]))[:num_names]
        lists = {
            "word": capitalised,
            "lower": [f" {token[1:]}" for token, _ in vocabulary if re.fullmatch("Ġ[a-z]{3,}", token)],
            "given": names[: len(names) // 10 + 1],
            "family": names,
            "place": [names[i] for i in rng.permutation(len(names))],
            "kind": KINDS.split(),
            "feature": [f" {word}" for word in FEATURES.split()],
            "year": [f" {year}" for year in range(2026, 1400, -1)],
            "section": [f" {word}" for word in SECTIONS.split()],
        }
        literals = {"'('": " (", "')'": ")", "','": ",", "The": " The", "of": " of", "in": " in", "List": " List"}
        pieces = list(dict.fromkeys([*literals.values(), *(piece for items in lists.values() for piece in items)]))
        index = {piece: i for i, piece in enumerate(pieces)}
        self.pieces = np.array(pieces, dtype=object)
        self.lists = {name: np.array([index[piece] for piece in items]) for name, items in lists.items()}
        self.literals = {slot: index[piece] for slot, piece in literals.items()}
        token_ids = tokenizer(pieces, add_special_tokens=False)["input_ids"]
        self.piece_length = np.array([len(ids) for ids in token_ids])
        self.piece_start = np.cumsum(self.piece_length) - self.piece_length
        self.piece_token = np.concatenate([np.array(ids, np.uint32) for ids in token_ids])

    def _draw(self, rng: np.random.Generator, slot: str, count: int) -> np.ndarray:
        """Pieces (int64, `(count,)`) of one slot of a template."""
        if slot in self.literals:
            return np.full(count, self.literals[slot])
        items, shift = self.lists[slot], SHIFTS[slot]
        # Inverts the distribution function of p(rank) ~ 1 / (rank + shift).
        rank = shift * ((len(items) / shift + 1) ** rng.random(count) - 1)
        return items[np.minimum(rank.astype(np.int64), len(items) - 1)]

    def _draw_titles(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Pieces (int64, `(count, slots)`) of titles in random order, -1 beyond each title's end."""
        width = max(len(slots.split()) for _, slots in TEMPLATES)
        titles = np.full((count, width), -1)
        order = rng.permutation(count)
        ends = np.round(np.cumsum([share for share, _ in TEMPLATES]) * count).astype(int)
        for (_, slots), rows in zip(TEMPLATES, np.split(order, ends[:-1]), strict=True):
            for column, slot in enumerate(slots.split()):
                titles[rows, column] = self._draw(rng, slot, len(rows))
        return titles

    def chunks(self, count: int) -> Iterator[np.ndarray]:
        """
        Distinct titles as pieces.

        Args:
            count (`int`):
                Titles in all.

        Yields:
            `np.ndarray` of shape `(n, slots)`, int64: pieces of up to `CHUNK` titles, -1 beyond each title's end.

        Raises:
            `ValueError`: if the lexicon does not make as many titles.
        """
        rng = np.random.default_rng(self.seed + 1)
        multipliers = rng.integers(1, 2**63, max(len(slots.split()) for _, slots in TEMPLATES)).astype(np.uint64) | 1
        seen, left = np.empty(0, np.uint64), count
        while left:
            titles = self._draw_titles(rng, CHUNK)
            # Titles are told apart by 64-bit hashes: a collision, one in a million million, costs one title.
            hashed = ((titles + 2).astype(np.uint64) * multipliers).sum(1)
            hashed ^= hashed >> np.uint64(29)
            _, first = np.unique(hashed, return_index=True)
            first.sort()
            place = np.minimum(np.searchsorted(seen, hashed[first]), max(len(seen) - 1, 0))
            new = first if len(seen) == 0 else first[seen[place] != hashed[first]]
            new = new[:left]
            seen = np.sort(np.concatenate([seen, hashed[new]]), kind="stable")
            left -= len(new)
            if len(new) == 0:
                raise ValueError(f"The lexicon of {len(self.pieces)} pieces makes no more than {len(seen)} titles.")
            yield titles[new]

    def texts(self, count: int) -> Iterator[str]:
        """Distinct titles (`str`), without leading space."""
        for titles in self.chunks(count):
            for row in titles.tolist():
                yield "".join(self.pieces[[piece for piece in row if piece >= 0]])[1:]

    def paths(self, count: int, num_sections: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """
        The same titles as token paths, closed by the end token.

        Args:
            count (`int`):
                Titles in all.
            num_sections (`int`, *optional*, defaults to 0):
                Give docids "title, section" instead, that many for each title (CorpusLM's docids).

        Returns:
            `tuple` of `np.ndarray`: the tokens of all paths one after another (uint16, or uint32 where a token needs
            it) and the paths' lengths (int32).
        """
        width = np.uint16 if max(int(self.piece_token.max()), self.eos_token_id) < 65536 else np.uint32
        tokens, lengths = [], []
        rng = np.random.default_rng(self.seed + 2)
        for titles in self.chunks(count):
            if num_sections:
                titles = self._with_sections(rng, titles, num_sections)
            pieces = titles[titles >= 0]
            length = self.piece_length[pieces]
            title_length = np.where(titles >= 0, self.piece_length[titles], 0).sum(1)
            before = np.cumsum(length) - length
            position = np.arange(length.sum()) + np.repeat(self.piece_start[pieces] - before, length)
            ends = np.cumsum(title_length)
            tokens.append(np.insert(self.piece_token[position], ends, self.eos_token_id).astype(width))
            lengths.append((title_length + 1).astype(np.int32))
        return np.concatenate(tokens), np.concatenate(lengths)

    def _with_sections(self, rng: np.random.Generator, titles: np.ndarray, num_sections: int) -> np.ndarray:
        """Repeats each title once per section and appends a comma and the section's heading."""
        sections = self.lists["section"]
        first = rng.integers(0, len(sections), len(titles))
        heading = sections[(first[:, None] + np.arange(num_sections)) % len(sections)].reshape(-1, 1)
        titles = np.repeat(titles, num_sections, axis=0)
        return np.hstack([titles, np.full_like(heading, self.literals["','"]), heading])


def in_order(paths: tuple[np.ndarray, np.ndarray], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths in another order."""
    tokens, lengths = paths
    start = np.cumsum(lengths, dtype=np.int64) - lengths
    ordered = lengths[order]
    before = np.cumsum(ordered, dtype=np.int64) - ordered
    return tokens[np.arange(len(tokens)) + np.repeat(start[order] - before, ordered)], ordered


def statistics(tokens: np.ndarray, lengths: np.ndarray) -> dict[str, float | list[float]]:
    """
    What a trie's size and speed depend on.

    Args:
        tokens (`np.ndarray`):
            Tokens of all paths one after another.
        lengths (`np.ndarray`):
            Their lengths, end token included.

    Returns:
        `dict`: `titles`; `tokens_per_title` (mean); `length_shares` (share of titles of 2, 3, ... tokens);
        `first_tokens` (distinct); `edges_per_title`; `depth_shares` (share of the trie's edges at depth 1, 2, ...);
        `branching` (mean children of inner nodes); `branching_nodes` (share of inner nodes with several children).
    """
    start = np.cumsum(lengths) - lengths
    node, active, depth, num_nodes = np.zeros(len(lengths), np.int64), np.arange(len(lengths)), 0, 1
    edges, parents = [], []
    while len(active):
        pair = (node[active] << 32) | tokens[start[active] + depth]
        distinct, rank = np.unique(pair, return_inverse=True)
        node[active] = num_nodes + rank
        num_nodes += len(distinct)
        edges.append(len(distinct))
        parents.append(np.unique(distinct >> 32, return_counts=True)[1])
        depth += 1
        active = active[lengths[active] > depth]
    children = np.concatenate(parents)
    return {
        "titles": len(lengths),
        "tokens_per_title": float(lengths.mean()),
        "length_shares": (np.bincount(lengths)[2:10] / len(lengths)).tolist(),
        "first_tokens": edges[0],
        "edges_per_title": sum(edges) / len(lengths),
        "depth_shares": (np.array(edges[:8]) / sum(edges)).tolist(),
        "branching": float(children.mean()),
        "branching_nodes": float((children > 1).mean()),
    }


def main() -> None:
    """Prints the statistics of real and synthetic titles side by side, and a few synthetic titles."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    real = list(json.loads(vital_articles().read_text(encoding="utf-8")))
    real_paths = encode_targets(tokenizer, real)
    source = SyntheticTitles(tokenizer)
    columns = {"real": (np.concatenate(real_paths), np.array([len(path) for path in real_paths]))}
    columns |= {"synthetic": source.paths(len(real)), "synthetic, a million": source.paths(1_000_000)}
    found = {name: statistics(*paths) for name, paths in columns.items()}
    print("| | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for key in found["real"]:
        values = [column[key] for column in found.values()]
        shown = [
            " ".join(f"{share:.2f}" for share in value)
            if isinstance(value, list)
            else (f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
            for value in values
        ]
        print(f"| {key.replace('_', ' ')} | " + " | ".join(shown) + " |")
    print("\n" + "; ".join(source.texts(25)))


if __name__ == "__main__":
    main()
