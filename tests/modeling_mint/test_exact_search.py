"""Exact search against scoring every title, and its honesty when the budget runs out."""

import random

import pytest
import torch
from random_search import ARCHITECTURES, assert_same_docids, random_model, random_prompts, random_trie

from modeling_mint import exact_search_docids, search_docids


@torch.no_grad()
def teacher_forced(model, trie, prompt, paths):
    """(leaf, score) of every path, best first, each from a forward pass over prompt and path."""
    ranked = []
    for path in paths:
        if model.config.is_encoder_decoder:
            start = [model.config.decoder_start_token_id]
            logits = model(input_ids=prompt, decoder_input_ids=torch.tensor([start + path[:-1]])).logits[0]
        else:
            logits = model(torch.cat([prompt, torch.tensor([path[:-1]], dtype=torch.long)], 1)).logits[0]
        log_probs = logits[-len(path) :].log_softmax(-1)
        score = log_probs.gather(1, torch.tensor(path)[:, None]).sum()
        ranked.append((int(trie.walk(torch.tensor([path]))), float(score)))
    return sorted(ranked, key=lambda docid: -docid[1])


def all_paths(trie):
    """Every path of the trie, by walking it."""
    paths, level = [], [([], 0)]
    while level:
        (path, node), *level = level
        _, tokens, children = trie.children(torch.tensor([node]))
        for token, child in zip(tokens.tolist(), children.tolist(), strict=True):
            if trie.is_leaf(torch.tensor([child])):
                paths.append([*path, token])
            else:
                level.append(([*path, token], child))
    return paths


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_finds_what_scoring_every_title_finds(architecture, seed):
    draw = random.Random(seed)
    model = random_model(architecture, seed)
    trie, prompts = random_trie(draw, draw.choice([1, 5, 40]), draw.choice([2, 3, 8])), random_prompts(draw, model)
    found, complete, _ = exact_search_docids(model, trie, **prompts, num_docids=5)
    assert complete == [True] * 3
    expected = []
    for ids, mask in zip(prompts["input_ids"], prompts["attention_mask"].bool(), strict=True):
        expected.append(teacher_forced(model, trie, ids[mask][None], all_paths(trie))[:5])
    assert_same_docids(found, expected)


@pytest.mark.parametrize("scoring", ["vocabulary", "trie"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_finds_what_beams_for_all_titles_find(architecture, scoring):
    draw = random.Random(0)
    model = random_model(architecture, 0)
    trie, prompts = random_trie(draw, 60, 3), random_prompts(draw, model)
    found, complete, _ = exact_search_docids(model, trie, **prompts, num_docids=7, scoring=scoring)
    whole = search_docids(model, trie, **prompts, num_beams=100, num_docids=7, scoring=scoring)
    assert complete == [True] * 3
    assert_same_docids(found, whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_budget_that_runs_out_is_said_and_costs_nothing_against_beam_search(architecture):
    draw = random.Random(1)
    model = random_model(architecture, 1)
    trie, prompts = random_trie(draw, 200, 8), random_prompts(draw, model)
    found, complete, num_expanded = exact_search_docids(model, trie, **prompts, num_docids=10, budget=2)
    beams = search_docids(model, trie, **prompts, num_beams=10, num_docids=10)
    assert complete == [False] * 3
    assert all(2 <= expanded <= 2 * trie.max_depth for expanded in num_expanded)
    for ranked, others in zip(found, beams, strict=True):
        assert all(one >= other - 1e-6 for (_, one), (_, other) in zip(ranked, others, strict=True))


def test_a_budget_below_one_prefix_is_refused():
    draw = random.Random(0)
    model = random_model("llama", 0)
    with pytest.raises(ValueError, match="`budget` is 0; it must be at least 1"):
        exact_search_docids(model, random_trie(draw, 5, 3), **random_prompts(draw, model), budget=0)
