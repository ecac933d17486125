"""The benchmarks run as a user runs them, on synthetic titles that are what their recipe says."""

import json

import numpy as np
import pytest
import torch
from assets import smollm2_folder
from benchmarks import peers
from benchmarks.synthetic_titles import SyntheticTitles, statistics
from transformers import AutoTokenizer

from modeling_mint import TitleTrie
from modeling_mint.tokenization_mint import encode_targets
from tests.examples.conftest import run_benchmark as run
from tests.tiny import tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer

SYSTEMS = {
    "retrieve, vocabulary",
    "retrieve, trie",
    "generate, TitleTrieLogitsProcessor",
    "generate, prefix_allowed_tokens_fn",
}


@pytest.fixture(scope="module")
def source():
    return SyntheticTitles(tiny_byte_level_tokenizer(), num_names=2000)


def split(tokens, lengths):
    return [path.tolist() for path in np.split(tokens, np.cumsum(lengths)[:-1])]


def test_synthetic_titles_are_distinct_and_more_of_them_begin_alike(source):
    titles = list(source.texts(3000))
    assert len(set(titles)) == 3000
    assert list(source.texts(100)) == titles[:100]
    assert list(SyntheticTitles(tiny_byte_level_tokenizer(), num_names=2000).texts(3000)) == titles
    assert list(SyntheticTitles(tiny_byte_level_tokenizer(), seed=1, num_names=2000).texts(100)) != titles[:100]


def test_paths_are_what_the_tokenizer_makes_of_the_texts(source):
    paths = split(*source.paths(3000))
    assert paths == encode_targets(tiny_byte_level_tokenizer(), list(source.texts(3000)))


def test_every_title_has_its_sections(source):
    titles = split(*source.paths(200))
    sections = split(*source.paths(200, num_sections=3))
    assert len(sections) == 600 and len(set(map(tuple, sections))) == 600
    assert all(section[: len(titles[i // 3]) - 1] == titles[i // 3][:-1] for i, section in enumerate(sections))
    assert all(section[-1] == source.eos_token_id for section in sections)


def test_a_lexicon_that_is_used_up_is_an_error(source, monkeypatch):
    monkeypatch.setattr("benchmarks.synthetic_titles.TEMPLATES", [(1.0, "kind")])
    with pytest.raises(ValueError, match="makes no more than 30 titles"):
        list(source.texts(31))


def test_statistics_of_a_trie_counted_by_hand():
    found = statistics(np.array([5, 1, 5, 7, 1, 4, 1]), np.array([2, 3, 2]))
    assert found["titles"] == 3 and found["first_tokens"] == 2
    assert found["edges_per_title"] == pytest.approx(6 / 3)  # 4, 5; 4 1, 5 1, 5 7; 5 7 1
    assert found["depth_shares"] == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert found["branching"] == pytest.approx(6 / 4) and found["branching_nodes"] == pytest.approx(2 / 4)


def test_peers_allow_what_the_trie_allows(source):
    tokens, lengths = source.paths(500)
    trie = TitleTrie.from_token_ids(split(tokens, lengths), source.eos_token_id, vocab_size=500)
    prompt = torch.tensor([7, 8, 9])
    allowed = [
        peers.dict_allowed_tokens(peers.dict_trie(tokens, lengths), len(prompt), source.eos_token_id),
        peers.marisa_allowed_tokens(peers.marisa(tokens, lengths), len(prompt), source.eos_token_id),
    ]
    for path in split(tokens, lengths)[:50]:
        for length in range(len(path) + 1):
            prefix = torch.tensor(path[:length], dtype=torch.long)
            node = trie.walk(prefix[None])
            expected = trie.children(node)[1].tolist() or [source.eos_token_id]
            for function in allowed:
                assert sorted(function(0, torch.cat([prompt, prefix]))) == expected


def test_every_token_has_a_character_of_its_own():
    tokens = [0, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFF, 262_143]
    assert [peers.token_of(peers.character(token)) for token in tokens] == tokens
    "".join(map(peers.character, tokens)).encode()  # no surrogate among them


def test_title_trie_benchmark(environment, tmp_path):
    tiny_byte_level_tokenizer().save_pretrained(tmp_path)
    sizes = [
        "--titles",
        "2000",
        "300",
        "--max_peer_titles",
        "300",
        "--max_vector_titles",
        "300",
        "--vocab_size",
        "70000",
    ]
    effort = ["--repeats", "2", "--calls", "2", "--num_names", "2000", "--tokenizer", str(tmp_path)]
    printed, report = run("title_trie", environment, tmp_path, *sizes, *effort)

    records = {(record["titles"], record["vocab_size"]): record for record in report["results"]}
    vocab_size = len(tiny_byte_level_tokenizer())
    assert set(records) == {(titles, size) for titles in (300, 2000) for size in (vocab_size, 70000)}
    for (titles, size), record in records.items():
        ours = record["memory_bytes"]["title trie"]
        assert record["bytes_per_title"] == ours / titles <= record["bytes_per_title_any_order"]
        assert f"{titles:,} titles, vocabulary of {size:,}" in printed
        for key in ("build_seconds", "load_seconds", "subset_seconds"):
            assert 0 < record[key]["min"] <= record[key]["median"] <= record[key]["max"] and record[key]["calls"] == 2
        assert all(len(depths) == 6 and depths[0]["calls"] == 2 for depths in record["mask_ms"].values())
    small, large = records[300, vocab_size], records[2000, vocab_size]
    assert set(small["mask_ms"]) == {"title trie", "dict trie", "marisa-trie"}
    assert set(large["mask_ms"]) == {"title trie"}
    assert set(small["memory_bytes"]) == set(large["memory_bytes"])
    assert small["computed"] == ["FAISS flat, passage vectors"]
    assert set(large["computed"]) == set(large["memory_bytes"]) - {"title trie"}
    flat = small["memory_bytes"]["FAISS flat, title vectors"]
    assert flat == pytest.approx(300 * 768 * 4, rel=0.001)
    assert small["memory_bytes"]["FAISS IVF-PQ, title vectors"] == pytest.approx(peers.ivf_pq_bytes(300), rel=0.02)


def test_docid_search_benchmark(environment, tmp_path):
    for name, tokenizer, model in (
        ("llama", tiny_byte_level_tokenizer(), tiny_llama),
        ("t5", tiny_unigram_tokenizer(), tiny_t5),
    ):
        tokenizer.save_pretrained(tmp_path / name)
        model(tokenizer).save_pretrained(tmp_path / name)
    names = [str(tmp_path / "llama"), str(tmp_path / "t5")]
    size = ["--num_documents", "200", "--num_queries", "4", "--num_latency_queries", "2", "--batch_size", "2"]
    effort = ["--repeats", "2", "--num_beams", "4", "--k", "3"]
    printed, report = run("docid_search", environment, tmp_path, "--model", *names, *size, *effort)

    assert report["settings"]["num_documents"] == 200
    for name in names:
        assert f"{name} (median / min / max)" in printed
        assert set(report["queries_per_second"][name]) == set(report["latency_seconds"][name]) == SYSTEMS
        assert all(summary["calls"] == 2 for summary in report["queries_per_second"][name].values())
        assert set(report["same_top_k"][name]) == SYSTEMS - {"retrieve, trie"}
        # The same beam search under the same constraint, told in two ways.
        assert report["same_top_k"][name]["generate, TitleTrieLogitsProcessor"] == 1
        assert report["same_top_k_set"][name]["retrieve, vocabulary"] >= 0.75


def test_beam_misses_are_those_of_a_proven_search(environment, run_folders, tmp_path):
    titles = ["Moon", "Eiffel Tower", "New York City Subway"]
    records = [
        {"input": f"what about {title}?", "output": [{"provenance": [{"title": title}]}]} for title in titles
    ] + [{"query": "DNA?", "docids": ["DNA"]}]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    model = str(run_folders["llama"] / "mint-rag")
    printed, report = run(
        "beam_misses", environment, tmp_path, "--model", model, "--data", str(tmp_path / "questions.jsonl")
    )
    assert report["queries"] == 4 and report["exact"]["complete"] == 1
    misses = [report["beams"][beams]["misses_best"] for beams in ("1", "5", "10", "20")]
    assert misses == sorted(misses, reverse=True) and misses[-1] == 0
    assert report["length_penalties"]["0.0"]["num_short"] + report["length_penalties"]["0.0"]["num_long"] == 4
    assert "| 20 |" in printed


@pytest.mark.slow
def test_synthetic_titles_have_five_tokens_under_smollm2():
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    source = SyntheticTitles(tokenizer)
    tokens, lengths = source.paths(100_000)
    assert 4.9 < lengths.mean() < 5.1
    paths = encode_targets(tokenizer, list(source.texts(100_000)))
    assert np.array_equal(np.concatenate(paths), tokens)
    assert np.array_equal([len(path) for path in paths], lengths)


@pytest.mark.slow
def test_docid_search_benchmark_on_smollm2(environment, tmp_path):
    size = ["--num_queries", "2", "--num_latency_queries", "1", "--repeats", "1", "--num_beams", "4", "--k", "4"]
    _, report = run("docid_search", environment, tmp_path, "--model", "smollm2-135m-instruct", *size)
    assert report["same_top_k"]["smollm2-135m-instruct"]["generate, TitleTrieLogitsProcessor"] == 1
