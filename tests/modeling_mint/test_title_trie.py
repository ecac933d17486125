import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modeling_mint import title_trie_paths
from modeling_mint.title_trie import TITLE_TRIE_NAME, TitleTrie
from modeling_mint.tokenization_mint import encode_targets
from tests.modeling_mint.accelerator import on_torch
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


def naive_forced(node):
    """The only-children's tokens from a node on, and where they end."""
    tokens = []
    while len(node) == 1 and "rows" not in node:
        ((token, node),) = node.items()
        tokens.append(token)
    return tokens, node


def all_leaves(trie):
    level, leaves = torch.zeros(1, dtype=torch.long), []
    while len(level) > 0:
        leaves += level[trie.is_leaf(level)].tolist()
        _, _, level = trie.children(level)
    return leaves


def assert_equal_to_naive(trie, paths):
    """Compares all nodes of both tries, level by level."""
    level = [(0, naive_trie(paths))]
    while level:
        nodes = torch.tensor([node for node, _ in level])
        is_leaf = ["rows" in naive for _, naive in level]
        assert trie.is_leaf(nodes).tolist() == is_leaf
        assert trie.num_leaves_below(nodes).tolist() == [naive_leaves(naive) for _, naive in level]
        tokens, lengths, ends = trie.forced(nodes)
        for index, ((node, naive), leaf) in enumerate(zip(level, is_leaf, strict=True)):
            if leaf:
                assert trie.rows(node) == naive["rows"]
            forced, end = naive_forced(naive)
            assert tokens[index].tolist() == forced + [-1] * (tokens.shape[1] - len(forced))
            assert lengths[index] == len(forced)
            assert trie.num_leaves_below(ends[index : index + 1]) == naive_leaves(end)
            if "rows" in end:
                assert trie.rows(int(ends[index])) == end["rows"]
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


@settings(max_examples=200, deadline=None)
@given(PATHS, VOCAB_SIZES)
def test_trie_equals_naive_dict_trie(paths, vocab_size):
    trie = TitleTrie.from_token_ids(paths, EOS, vocab_size)
    assert_equal_to_naive(trie, paths)
    assert len(trie) == len({tuple(path) for path in paths})
    assert trie.num_rows == len(paths)
    assert trie.max_depth == max(map(len, paths))
    assert trie.node_token.dtype == (torch.uint16 if vocab_size <= 65536 else torch.uint32)


@settings(max_examples=100, deadline=None)
@given(PATHS, VOCAB_SIZES)
def test_an_accelerators_arrays_equal_the_naive_dict_trie_too(paths, vocab_size):
    assert_equal_to_naive(on_torch(TitleTrie.from_token_ids(paths, EOS, vocab_size)), paths)


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
    assert on_torch(trie).children(torch.tensor([0]))[1].tolist() == [7, 32768, 65535]
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


@settings(max_examples=300, deadline=None)
@given(PATHS, st.data())
def test_subset_equals_a_trie_of_its_titles_and_keeps_row_numbers(paths, data):
    rows = data.draw(st.lists(st.integers(0, len(paths) - 1), min_size=1, unique=True))
    subset = TitleTrie.from_token_ids(paths, EOS, 6, fingerprint="abc").subset(rows)
    assert (subset.num_rows, subset.fingerprint) == (len(paths), "abc")
    assert_same_rows(subset, {row: paths[row] for row in rows})
    # A subset of a subset, too.
    part = data.draw(st.lists(st.sampled_from(rows), min_size=1, unique=True))
    assert_same_rows(subset.subset(torch.tensor(part)), {row: paths[row] for row in part})


def assert_same_rows(trie, path_of_row):
    """The trie's paths are those of the rows given, and lead to these rows."""
    alike = {}
    for row, path in sorted(path_of_row.items()):
        alike.setdefault(tuple(path), []).append(row)
    assert len(trie) == len(alike)
    for path, rows in alike.items():
        assert trie.rows(int(trie.walk(torch.tensor([path]))[0])) == rows


@settings(max_examples=300, deadline=None)
@given(PATHS, st.data())
def test_without_equals_a_trie_built_from_what_stays(paths, data):
    gone = data.draw(st.lists(st.integers(0, len(paths) - 1), max_size=len(paths) - 1, unique=True))
    trie = TitleTrie.from_token_ids(paths, EOS, 6).without(gone)
    stays = [path for row, path in enumerate(paths) if row not in gone]
    assert_same_arrays(trie, TitleTrie.from_token_ids(stays, EOS, 6))


def assert_same_arrays(trie, other):
    for (name, array), expected in zip(trie._arrays().items(), other._arrays().values(), strict=True):
        assert torch.equal(array, expected), name
    assert trie._facts() == other._facts()


def test_subset_without_a_row_loses_it_and_without_frees_its_number():
    trie = TitleTrie.from_token_ids([[4, EOS], [5, EOS], [6, EOS]], EOS, 8).subset([2, 0])
    assert_same_rows(trie, {0: [4, EOS], 2: [6, EOS]})
    left = trie.without([1])
    assert left.num_rows == 2
    assert_same_rows(left, {0: [4, EOS], 1: [6, EOS]})


def test_added_titles_give_the_trie_of_all_titles():
    tokenizer = tiny_byte_level_tokenizer()
    for split in (1, 10, len(TITLES) - 1):
        trie = TitleTrie.from_titles(TITLES[:split], tokenizer).with_titles(iter(TITLES[split:]), tokenizer)
        assert_same_arrays(trie, TitleTrie.from_titles(TITLES, tokenizer))


def test_titles_added_with_another_tokenizer_or_empty_are_refused():
    tokenizer = tiny_byte_level_tokenizer()
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    with pytest.raises(ValueError, match="built with another tokenizer"):
        trie.with_titles(["Berlin"], tiny_unigram_tokenizer())
    with pytest.raises(ValueError, match=f"title of row {len(TITLES) + 1} is empty"):
        trie.with_titles(["Berlin", ""], tokenizer)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no row is left"), ([0, 3], "Row 3 is not in the collection"), ([-1], "Row -1 is not in the coll")],
)
def test_subset_of_rows_that_are_not_there_is_refused(rows, message):
    trie = TitleTrie.from_token_ids([[4, EOS], [5, EOS], [6, EOS]], EOS, 8)
    with pytest.raises(ValueError, match=message):
        trie.subset(rows)
    with pytest.raises(ValueError, match="Row 1 is not in this trie: it is a subset"):
        trie.subset([0, 2]).subset([0, 1])


def test_removing_rows_that_are_not_there_or_all_of_them_is_refused():
    trie = TitleTrie.from_token_ids([[4, EOS], [5, EOS]], EOS, 8)
    with pytest.raises(ValueError, match="Row 2 is not in the collection of 2 rows"):
        trie.without([2])
    with pytest.raises(ValueError, match="no row is left"):
        trie.without([0, 1])


@settings(max_examples=100, deadline=None)
@given(PATHS)
def test_collection_in_leaf_order_needs_no_row_map(paths):
    trie = TitleTrie.from_token_ids(paths, EOS, 6)
    order = trie.leaf_order().tolist()
    assert sorted(order) == list(range(len(paths)))
    ordered = TitleTrie.from_token_ids([paths[row] for row in order], EOS, 6)
    assert len(ordered.leaf_row) == 0
    assert_equal_to_naive(ordered, [paths[row] for row in order])


def test_flat_arrays_give_the_trie_of_the_lists():
    paths = [[4, 5, EOS], [7, EOS], [4, EOS]]
    tokens, lengths = np.array([4, 5, EOS, 7, EOS, 4, EOS]), np.array([3, 2, 2])
    assert_same_arrays(TitleTrie.from_token_ids((tokens, lengths), EOS, 8), TitleTrie.from_token_ids(paths, EOS, 8))
    with pytest.raises(ValueError, match="add up to 7, the tokens are 6"):
        TitleTrie.from_token_ids((tokens[1:], lengths), EOS, 8)


def test_titles_may_come_from_a_generator_in_several_batches(monkeypatch):
    tokenizer = tiny_byte_level_tokenizer()
    monkeypatch.setattr(title_trie_paths, "TITLES_AT_ONCE", 7)
    trie = TitleTrie.from_titles((title for title in TITLES), tokenizer)
    assert_equal_to_naive(trie, encode_targets(tokenizer, TITLES))


@pytest.mark.parametrize("vocab_size", [65536, 262144])
def test_tails_longer_than_255_tokens_are_kept_whole(vocab_size, tmp_path):
    paths = [[4] + [5] * 300 + [EOS], [4] + [5] * 20 + [6] * 400 + [EOS], [7, EOS]]
    TitleTrie.from_token_ids(paths, EOS, vocab_size).save_pretrained(tmp_path)
    trie = TitleTrie.from_pretrained(tmp_path)
    assert trie.max_depth == 422
    assert_same_rows(trie, dict(enumerate(paths)))


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
    "token outside the vocabulary": (alter("node_token", 1, 9), "outside the vocabulary"),
    "tail token outside the vocabulary": (alter("tail_token", 0, 9), "outside the vocabulary"),
    "tokens out of order": (alter("node_token", 1, 6), "not in ascending order"),
    "end token inside": (alter("node_token", 1, 1), "behind an end token has children"),
    "end token in a tail": (alter("tail_token", 0, 1), "a tail holds an end token"),
    "too few nodes": (shorten("node_token"), "lengths do not fit"),
    "too few families": (shorten("first_child"), "lengths do not fit"),
    "too few internal nodes": (shorten("internal_node"), "lengths do not fit"),
    "too few offsets": (shorten("tail_offset"), "lengths do not fit"),
    "too few blocks": (shorten("tail_start"), "lengths do not fit"),
    "no tail": (lambda arrays, facts: arrays.update(tail_token=arrays["tail_token"][:0].clone()), "do not fit"),
    "family beyond the end": (alter("first_child", -1, 99), "level by level"),
    "family that leads back": (alter("first_child", 1, 1), "level by level"),
    "root that is a leaf": (alter("internal_node", 0, 2), "does not name nodes"),
    "internal node outside": (alter("internal_node", -1, 99), "does not name nodes"),
    "internal node that is its own child": (alter("internal_node", 1, 4), "level by level"),
    "tail beyond the end": (alter("tail_offset", 4, 200), "each leaf its tail"),
    "tail that begins elsewhere": (alter("tail_start", 0, 1), "each leaf its tail"),
    "row outside the collection": (alter("leaf_row", 0, 99), "row outside the collection"),
    "row twice": (alter("leaf_row", 0, 1), "names a row twice"),
    "rows missing": (shorten("leaf_row"), "each leaf its rows"),
    "rows of a leaf outside": (alter("further_leaf", 0, 4), "does not name leaves"),
    "more rows than the collection": (
        lambda arrays, facts: (facts.update(num_rows=4), arrays.update(leaf_row=arrays["leaf_row"][:0].clone())),
        "more rows than the collection",
    ),
    "other format version": (lambda arrays, facts: facts.update(format_version=1), "format version 1"),
    "array missing": (lambda arrays, facts: arrays.pop("leaf_row"), "no title trie"),
    "fact missing": (lambda arrays, facts: facts.pop("num_rows"), "no title trie"),
    "other type": (lambda arrays, facts: arrays.update(leaf_row=arrays["leaf_row"].long()), "has the type int64"),
    "number that is text": (lambda arrays, facts: facts.update(num_rows="5"), "`num_rows` is '5'"),
    "number below zero": (lambda arrays, facts: facts.update(eos_token_id=-1), "`eos_token_id` is -1"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_file_is_refused(change, message, tmp_path):
    trie = TitleTrie.from_token_ids([[4, 1], [4, 5, 1], [5, 1], [7, 6, 1], [4, 1]], EOS, 8, fingerprint="abc")
    trie.save_pretrained(tmp_path)
    path = tmp_path / TITLE_TRIE_NAME
    arrays = {name: array.clone() for name, array in load_file(path).items()}
    description = {"format_version": 2, "eos_token_id": 1, "num_rows": 5, "vocab_size": 8, "fingerprint": "abc"}
    change(arrays, description)
    save_file(arrays, path, metadata={"title_trie": json.dumps(description)})
    with pytest.raises(ValueError, match=message):
        TitleTrie.from_pretrained(tmp_path)


def test_file_that_describes_itself_by_a_list_is_refused(tmp_path):
    TitleTrie.from_token_ids([[4, 1]], EOS, 8).save_pretrained(tmp_path)
    path = tmp_path / TITLE_TRIE_NAME
    save_file(load_file(path), path, metadata={"title_trie": "[2]"})
    with pytest.raises(ValueError, match="no title trie"):
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
    leaves = all_leaves(trie)
    assert sorted(row for leaf in leaves for row in trie.rows(leaf)) == list(range(len(paths)))
    assert len(leaves) == len(trie)
    assert trie.num_leaves_below(torch.tensor([0])).tolist() == [len(trie)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trie_on_cuda_equals_the_one_on_cpu():
    tokenizer = tiny_byte_level_tokenizer()
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    there = trie.to("cuda")
    nodes = torch.zeros(1, dtype=torch.long)
    while len(nodes) > 0:
        row, token, child = there.children(nodes.cuda())
        for here, other in zip(trie.children(nodes), (row, token, child), strict=True):
            assert torch.equal(here, other.cpu())
        assert torch.equal(there.step(nodes.cuda()[row], token), child)
        nodes = child.cpu()
