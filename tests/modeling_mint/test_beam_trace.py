import math
import threading

import pytest
import torch

from modeling_mint import search_docids
from modeling_mint.beam_trace import BeamTrace
from modeling_mint.tasks_mint import format_prompt
from tests.tiny import TITLES

QUERIES = ["Who designed the Eiffel Tower?", "moon", "In which city of which country was Frédéric Chopin born?"]


@pytest.fixture
def inputs(kind, processors):
    return processors[kind]([format_prompt("query_to_docid", query=query) for query in QUERIES])


def search(model, processor, inputs, **settings):
    return search_docids(model, processor.trie, inputs["input_ids"], inputs["attention_mask"], **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3, "num_docids": 2}, {"scoring": "trie"}, {"length_penalty": 1.0}]
)
def test_search_finds_the_same_with_a_trace(settings, kind, models, processors, inputs):
    plain = search(models[kind, "rag"], processors[kind], inputs, **settings)
    with BeamTrace(models[kind, "rag"]) as trace:
        assert search(models[kind, "rag"], processors[kind], inputs, **settings) == plain
    assert len(trace.beams) == len(QUERIES) and all(trace.beams)


def test_every_beam_continues_one_that_went_on(kind, models, processors, inputs):
    with BeamTrace(models[kind, "rag"]) as trace:
        search(models[kind, "rag"], processors[kind], inputs, num_beams=4, num_docids=4)
    for beams in trace.beams:
        live = {0: (0, 0.0)} | {beam.node: (beam.step, beam.score) for beam in beams if beam.state == "live"}
        for beam in beams:
            step, score = live[beam.parent]
            assert (beam.step, beam.score <= score) == (step + 1, True)
            assert processors[kind].trie.step(torch.tensor([beam.parent]), torch.tensor([beam.token])) == beam.node
        for step in range(1, max(beam.step for beam in beams) + 1):
            states = [beam.state for beam in beams if beam.step == step]
            assert states.count("live") <= 4 and len(states) <= 8


def test_what_was_found_is_finished_in_the_trace(kind, models, processors, inputs):
    with BeamTrace(models[kind, "rag"]) as trace:
        found = search(models[kind, "rag"], processors[kind], inputs, num_beams=5, num_docids=3)
    for docids, beams in zip(found, trace.beams, strict=True):
        finished = {beam.node: beam.score for beam in beams if beam.state == "finished"}
        assert docids == sorted(finished.items(), key=lambda docid: -docid[1])[:3]


def test_only_searches_in_the_context_and_thread_are_recorded(models, processors):
    def ask():
        models["llama", "rag"].retrieve(QUERIES[:1], processors["llama"])

    with BeamTrace(models["llama", "rag"]) as outer:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        with BeamTrace(models["llama", "rag"]) as inner:
            ask()
        assert len(inner.beams) == 1 and outer.beams == []
        ask()
    ask()
    assert len(outer.beams) == 1 and BeamTrace.of(models["llama", "rag"]) is None


def branches(branch):
    yield branch
    for child in branch["children"]:
        yield from branches(child)


def test_tree_leads_to_the_documents_that_were_found(kind, models, processors):
    with BeamTrace(models[kind, "rag"]) as trace:
        found = models[kind, "rag"].retrieve(QUERIES[:1], processors[kind], k=4)
    tree = trace.tree(0, processors[kind], found.rows[0])
    ends = {one["rank"]: one for one in branches(tree) if one.get("rank")}
    assert [ends[rank]["title"] for rank in (1, 2, 3, 4)] == found.docids[0]
    assert [ends[rank]["prefix"] for rank in (1, 2, 3, 4)] == found.docids[0]
    assert [ends[rank]["probability"] for rank in (1, 2, 3, 4)] == pytest.approx(
        [math.exp(score) for score in found.scores[0]]
    )
    assert {end["state"] for end in ends.values()} == {"found"}


def test_tree_joins_chains_and_its_texts_spell_the_titles(kind, models, processors):
    with BeamTrace(models[kind, "rag"]) as trace:
        found = models[kind, "rag"].retrieve(QUERIES[:1], processors[kind], k=10, num_beams=20)
    tree = trace.tree(0, processors[kind], found.rows[0], max_leaves=100)
    assert tree["hidden"] == 0
    titles = 0
    for one in branches(tree):
        assert one is tree or len(one["children"]) != 1
        for child in one["children"]:
            assert child["prefix"].replace(" ", "") == (one["prefix"] + child["text"]).replace(" ", "")
            assert child["probability"] <= one["probability"] * (1 + 1e-6)
            assert ("rank" in child) == (child["children"] == [])
        if "title" in one:
            titles += 1
            assert one["title"] in TITLES and one["title"] == one["prefix"]
    assert titles > 10


def test_tree_keeps_what_was_found_before_other_branches(models, processors):
    with BeamTrace(models["llama", "rag"]) as trace:
        found = models["llama", "rag"].retrieve(QUERIES[:1], processors["llama"], k=3, num_beams=10)
    small = trace.tree(0, processors["llama"], found.rows[0], max_leaves=3)
    ends = [one for one in branches(small) if not one["children"]]
    assert sorted(end["rank"] for end in ends) == [1, 2, 3]
    whole = trace.tree(0, processors["llama"], found.rows[0], max_leaves=1000)
    assert small["hidden"] == sum(not one["children"] for one in branches(whole)) - 3 > 0


def test_tree_of_a_topic_names_its_titles_only(models, processors):
    rows = [3, 5, 8, 13, 21]
    with BeamTrace(models["llama", "rag"]) as trace:
        found = models["llama", "rag"].retrieve(
            QUERIES[:1], processors["llama"], k=5, trie=processors["llama"].trie.subset(rows)
        )
    tree = trace.tree(0, processors["llama"], found.rows[0])
    assert {one["title"] for one in branches(tree) if "title" in one} == {TITLES[row] for row in rows}
