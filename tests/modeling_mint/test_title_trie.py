import json
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modeling_mint.title_trie import TITLE_TRIE_NAME, TitleTrie
from modeling_mint.tokenization_mint import encode_targets
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_unigram_tokenizer

EOS = 1
# Few tokens, so that equal paths and prefixes of each other are frequent.
PATHS = st.lists(
    st.lists(st.sampled_from([0, 2, 3, 4, 5]), min_size=1, max_size=6).map(lambda path: path + [EOS]),
    min_size=1,
    max_size=30,
)
VOCAB_SIZES = st.sampled_from([6, 65536, 65537, 262144])


def naive_trie(paths):
    """Nested dicts; a leaf holds its rows under the key "rows"."""
    root = {}
    for row, path in enumerate(paths):
        node = root
        for token in path:
            node = node.setdefault(token, {})
        node.setdefault("rows", []).append(row)
    return root


def naive_leaves(node):
    return 1 if "rows" in node else sum(naive_leaves(child) for child in node.values())


def assert_equal_to_naive(trie, paths):
    """Compares all nodes of both tries, level by level."""
    level = [(0, naive_trie(paths))]
    num_nodes = 0
    while level:
        num_nodes += len(level)
        nodes = torch.tensor([node for node, _ in level])
        is_leaf = ["rows" in naive for _, naive in level]
        assert trie.is_leaf(nodes).tolist() == is_leaf
        assert trie.num_leaves_below(nodes).tolist() == [naive_leaves(naive) for _, naive in level]
        for (node, naive), leaf in zip(level, is_leaf, strict=True):
            if leaf:
                assert trie.rows(node) == naive["rows"]
        row, token, child = trie.children(nodes)
        expected = [
            (index, token)
            for index, (_, naive) in enumerate(level)
            for token in sorted(key for key in naive if key != "rows")
        ]
        assert list(zip(row.tolist(), token.tolist(), strict=True)) == expected
        assert torch.equal(trie.step(nodes[row], token), child)
        every_token = torch.arange(-1, 7).repeat(len(level))
        stepped = trie.step(nodes.repeat_interleave(8), every_token).reshape(-1, 8) >= 0
        assert stepped.tolist() == [[token in naive for token in range(-1, 7)] for _, naive in level]
        level = [
            (node, level[index][1][token])
            for node, index, token in zip(child.tolist(), row.tolist(), token.tolist(), strict=True)
        ]
    assert num_nodes == len(trie.edge_token) + 1


@settings(max_examples=1000, deadline=None)
@given(PATHS, VOCAB_SIZES)
def test_trie_equals_naive_dict_trie(paths, vocab_size):
    trie = TitleTrie.from_token_ids(paths, EOS, vocab_size)
    assert_equal_to_naive(trie, paths)
    assert len(trie) == len({tuple(path) for path in paths})
    assert trie.num_rows == len(paths)
    assert trie.max_depth == max(map(len, paths))
    assert trie.edge_token.dtype == (torch.uint16 if vocab_size <= 65536 else torch.uint32)


@settings(max_examples=300, deadline=None)
@given(PATHS, st.lists(st.lists(st.integers(0, 5), max_size=7), max_size=10))
def test_walk_equals_naive_dict_trie(paths, others):
    trie = TitleTrie.from_token_ids(paths, EOS, 6)
    walks = paths + others
    lengths = torch.tensor([len(walk) for walk in walks])
    padded = torch.tensor([walk + [0] * (7 - len(walk)) for walk in walks])
    for walk, node in zip(walks, trie.walk(padded, lengths).tolist(), strict=True):
        naive = naive_trie(paths)
        for token in walk:
            if "rows" not in naive and naive is not None:
                naive = naive.get(token)
            if naive is None:
                break
        if naive is None:
            assert node == -1
        elif "rows" in naive:
            assert trie.rows(node) == naive["rows"]
        else:
            row, token, _ = trie.children(torch.tensor([node]))
            assert token.tolist() == sorted(naive)


def test_walk_stays_at_a_leaf_through_padding_of_any_kind():
    trie = TitleTrie.from_token_ids([[5, 1], [5, 7, 1]], EOS, 8)
    assert trie.rows(int(trie.walk(torch.tensor([[5, 1, 7, 0]]))[0])) == [0]


def test_tokens_above_the_signed_16_bit_range_are_found():
    paths = [[65535, 40000, EOS], [32768, EOS], [7, EOS]]
    trie = TitleTrie.from_token_ids(paths, EOS, 65536)
    assert trie.children(torch.tensor([0]))[1].tolist() == [7, 32768, 65535]
    assert trie.rows(int(trie.walk(torch.tensor([paths[0]]))[0])) == [0]


@pytest.mark.parametrize("make", [tiny_byte_level_tokenizer, tiny_unigram_tokenizer])
def test_every_title_leads_to_its_row(make):
    tokenizer = make()
    titles = TITLES + ["</s>", "a </s> b", "<pad>"]
    trie = TitleTrie.from_titles(titles, tokenizer)
    for row, path in enumerate(encode_targets(tokenizer, titles)):
        assert row in trie.rows(int(trie.walk(torch.tensor([path]))[0]))


def test_equal_titles_and_titles_that_tokenize_alike_keep_all_rows_and_are_counted(caplog):
    tokenizer = tiny_unigram_tokenizer()
    titles = ["Paris", "Ω", "Moon", "Ψ", "Paris"]
    with caplog.at_level(logging.WARNING):
        trie = TitleTrie.from_titles(titles, tokenizer)
    leaves = trie.walk(torch.tensor([path for path in encode_targets(tokenizer, ["Ω", "Ψ"])])).tolist()
    assert [trie.rows(leaf) for leaf in leaves] == [[1, 3], [1, 3]]
    assert trie.rows(int(trie.walk(torch.tensor(encode_targets(tokenizer, ["Paris"])))[0])) == [0, 4]
    assert len(trie) == 3 and trie.num_rows == 5
    assert "2 of 3 leaves of the title trie hold several rows" in caplog.text
    assert "1 titles differ from another as text but not in their tokens" in caplog.text


def test_titles_that_all_differ_log_nothing(caplog):
    TitleTrie.from_titles(TITLES, tiny_byte_level_tokenizer())
    assert caplog.text == ""


@pytest.mark.parametrize("title", ["", "  \t"])
def test_empty_title_is_refused_with_its_row(title):
    with pytest.raises(ValueError, match=r"title of row 2 is empty.*give the row a title or drop it"):
        TitleTrie.from_titles(["Paris", "Moon", title], tiny_byte_level_tokenizer())


def test_empty_collection_is_refused():
    with pytest.raises(ValueError, match="the collection is empty"):
        TitleTrie.from_titles([], tiny_byte_level_tokenizer())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([EOS], "row 1 has no token before the end token"),
        ([4, 5], "row 1 must hold the end token 1 once"),
        ([4, EOS, 5, EOS], "row 1 must hold the end token 1 once"),
        ([4, 8, EOS], "row 1 holds token 8, outside the vocabulary of 8"),
        ([-1, 4, EOS], "row 1 holds token -1, outside"),
    ],
)
def test_path_that_is_no_title_is_refused_with_its_row(path, message):
    with pytest.raises(ValueError, match=message):
        TitleTrie.from_token_ids([[4, 5, EOS], path, [6, EOS]], EOS, 8)


def test_rows_of_a_node_inside_a_title_are_refused():
    trie = TitleTrie.from_token_ids([[5, 1]], EOS, 8)
    with pytest.raises(ValueError, match="Node 1 is no leaf"):
        trie.rows(1)


@settings(max_examples=100, deadline=None)
@given(paths=PATHS, vocab_size=VOCAB_SIZES)
def test_save_and_load_give_the_same_trie_and_the_same_bytes(tmp_path_factory, paths, vocab_size):
    folder = tmp_path_factory.mktemp("trie")
    trie = TitleTrie.from_token_ids(paths, EOS, vocab_size, fingerprint="abc")
    trie.save_pretrained(folder / "first")
    loaded = TitleTrie.from_pretrained(folder / "first")
    loaded.save_pretrained(folder / "second")
    first, second = (folder / name / TITLE_TRIE_NAME for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == [TITLE_TRIE_NAME]
    assert (loaded.eos_token_id, loaded.vocab_size, loaded.fingerprint) == (EOS, vocab_size, "abc")
    assert_equal_to_naive(loaded, paths)


def test_loading_checks_the_tokenizer(tmp_path):
    tokenizer, other = tiny_byte_level_tokenizer(), tiny_unigram_tokenizer()
    TitleTrie.from_titles(TITLES, tokenizer).save_pretrained(tmp_path)
    assert len(TitleTrie.from_pretrained(tmp_path, tokenizer=tokenizer)) == len(TITLES)
    with pytest.raises(ValueError, match=r"built with another tokenizer.*TitleTrie.from_titles\(titles, tokenizer\)"):
        TitleTrie.from_pretrained(tmp_path, tokenizer=other)
    tokenizer.eos_token = tokenizer.pad_token
    with pytest.raises(ValueError, match="end token 1"):
        TitleTrie.from_pretrained(tmp_path, tokenizer=tokenizer)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=TITLE_TRIE_NAME):
        TitleTrie.from_pretrained(tmp_path)


def test_truncated_file_is_refused_wherever_it_is_cut(tmp_path):
    TitleTrie.from_titles(TITLES, tiny_byte_level_tokenizer()).save_pretrained(tmp_path)
    path = tmp_path / TITLE_TRIE_NAME
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated or no safetensors file.*Build the trie again"):
            TitleTrie.from_pretrained(tmp_path)


def alter(name, position, value):
    def change(arrays, description):
        arrays[name] = arrays[name].clone()
        arrays[name][position] = value

    return change


def shorten(name):
    def change(arrays, description):
        arrays[name] = arrays[name][:-1].clone()

    return change


DAMAGES = {
    "token outside the vocabulary": (alter("edge_token", 0, 9), "outside the vocabulary"),
    "tokens out of order": (alter("edge_token", 0, 6), "not in ascending order"),
    "end token inside": (alter("edge_token", 0, 1), "lengths do not fit"),
    "too few edges": (shorten("edge_token"), "lengths do not fit"),
    "too few offsets": (shorten("first_edge"), "lengths do not fit"),
    "edge index beyond the end": (alter("first_edge", -1, 99), "level by level"),
    "edge index that leads back": (alter("first_edge", 2, 0), "level by level"),
    "node without children": (alter("first_edge", 3, 5), "a node without children is no leaf"),
    "node with another's child": (alter("first_edge", 1, 4), "not in ascending order"),
    "row outside the collection": (alter("leaf_row", 0, 99), "every row once"),
    "row twice": (alter("leaf_row", 0, 1), "every row once"),
    "rows missing": (shorten("leaf_row"), "each leaf its rows"),
    "leaf without rows": (alter("leaf_first_row", 1, 0), "each leaf its rows"),
    "other format version": (lambda arrays, description: description.update(format_version=2), "format version 2"),
    "array missing": (lambda arrays, description: arrays.pop("leaf_row"), "no title trie"),
    "other type": (lambda arrays, description: arrays.update(leaf_row=arrays["leaf_row"].long()), "types"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_file_is_refused(change, message, tmp_path):
    trie = TitleTrie.from_token_ids([[4, 1], [4, 5, 1], [5, 1], [7, 6, 1]], EOS, 8, fingerprint="abc")
    trie.save_pretrained(tmp_path)
    path = tmp_path / TITLE_TRIE_NAME
    arrays = {name: array.clone() for name, array in load_file(path).items()}
    description = {"format_version": 1, "eos_token_id": 1, "vocab_size": 8, "fingerprint": "abc"}
    change(arrays, description)
    save_file(arrays, path, metadata={"title_trie": json.dumps(description)})
    with pytest.raises(ValueError, match=message):
        TitleTrie.from_pretrained(tmp_path)


@settings(max_examples=300, deadline=None)
@given(PATHS, st.data())
def test_file_with_any_altered_number_is_refused_or_still_a_sound_trie(tmp_path_factory, paths, data):
    folder = tmp_path_factory.mktemp("trie")
    TitleTrie.from_token_ids(paths, EOS, 6).save_pretrained(folder)
    path = folder / TITLE_TRIE_NAME
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    whole[data.draw(st.integers(header, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        trie = TitleTrie.from_pretrained(folder)
    except ValueError:
        return
    rows = sorted(row for leaf in trie.leaf_node.tolist() for row in trie.rows(leaf))
    assert rows == list(range(len(paths)))
    assert trie.num_leaves_below(torch.tensor([0])).tolist() == [len(trie)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trie_on_cuda_equals_the_one_on_cpu():
    tokenizer = tiny_byte_level_tokenizer()
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    there = trie.to("cuda")
    nodes = torch.arange(len(trie.edge_token) + 1)
    for here, other in zip(trie.children(nodes), there.children(nodes.cuda()), strict=True):
        assert torch.equal(here, other.cpu())
    row, token, child = there.children(nodes.cuda())
    assert torch.equal(there.step(row, token), child)
