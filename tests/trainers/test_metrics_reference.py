"""KILT's metrics against slow, independent definitions, on random rankings and answers."""

import string
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.metrics.kilt_downstream.kilt_downstream import score_query as score_answer
from trainers.metrics.kilt_retrieval.kilt_retrieval import score_query as score_ranking

KS = (1, 2, 3, 5, 10)
DOCIDS = st.sampled_from(["A", "B", "C", "D", "E", " A", "B ", "Paris, Texas"])
RANKINGS = st.lists(DOCIDS, max_size=12)
PROVENANCE = st.lists(st.lists(DOCIDS | st.none(), max_size=4), max_size=4)
WORDS = ["the", "An", "Paris", "paris", "U-S", "of", "red!", "Red", "«blue»", "tower", "C++"]
# One sentence of distinct words: of others, `rouge` counts words only once, and which ones depends on how it breaks
# ties between common subsequences.
ANSWERS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7, unique=True).map(" ".join)


def cleaned(docids):
    seen = []
    for docid in docids:
        if docid is not None and docid.strip() not in seen:
            seen.append(docid.strip())
    return seen


def r_precision_by_definition(ranking, provenance):
    best = 0
    for evidence in map(cleaned, provenance):
        hits = sum(docid in evidence for docid in cleaned(ranking)[: len(evidence)])
        best = max(best, hits / len(evidence) if evidence else 0)
    return best


def places_by_definition(ranking, provenance):
    """The place of each complete evidence set, and the number of distinct sets."""
    ranking, sets = cleaned(ranking), []
    for evidence in provenance:
        evidence = {docid and docid.strip() for docid in evidence}
        if evidence not in sets:
            sets.append(evidence)
    # A set stands where its last docid does; of two sets that end there, the one that is named first comes first.
    hits = [[place for place, docid in enumerate(ranking) if docid in evidence] for evidence in sets]
    standing = sorted((max(own), i) for i, own in enumerate(hits) if own)
    misses = [place for place, docid in enumerate(ranking) if not any(docid in evidence for evidence in sets)]
    places = []
    for before, (place, i) in enumerate(standing):
        if sets[i] <= set(ranking):
            places.append(1 + before + sum(miss < place for miss in misses))
    return places, len(sets)


@settings(max_examples=400, deadline=None)
@given(RANKINGS, PROVENANCE)
def test_rankings_are_scored_as_the_definitions_say(ranking, provenance):
    scores = score_ranking(ranking, provenance, KS)
    places, num_sets = places_by_definition(ranking, provenance)
    expected = {"r_precision": r_precision_by_definition(ranking, provenance)}
    for k in KS:
        found = sum(place <= k for place in places)
        expected[f"precision@{k}"] = found / k
        expected[f"recall@{k}"] = found / num_sets if num_sets else 0
        expected[f"success_rate@{k}"] = float(found > 0)
    expected["mrr"] = max((1 / place for place in places), default=0)
    assert scores == pytest.approx(expected, abs=1e-12)


def normalized_words(text):
    marked = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return [word for word in marked.split() if word not in ("a", "an", "the")]


def f1_by_definition(answer, reference):
    ours, theirs = normalized_words(answer), normalized_words(reference)
    left, shared = list(theirs), 0
    for word in ours:
        if word in left:
            left.remove(word)
            shared += 1
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0


def rougel_by_definition(answer, reference):
    ours, theirs = answer.split(), reference.split()

    @cache
    def common(i, j):
        if i == len(ours) or j == len(theirs):
            return 0
        return max(common(i + 1, j), common(i, j + 1), (ours[i] == theirs[j]) * (1 + common(i + 1, j + 1)))

    precision, recall = common(0, 0) / len(ours), common(0, 0) / len(theirs)
    return 2 * precision * recall / (precision + recall + 1e-8)


@settings(max_examples=400, deadline=None)
@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=4), RANKINGS, PROVENANCE)
def test_answers_are_scored_as_the_definitions_say(answer, references, ranking, provenance):
    scores = score_answer(answer, references, ranking, provenance)
    expected = {
        "accuracy": float(answer in references),
        "em": float(normalized_words(answer) in map(normalized_words, references)),
        "f1": max(f1_by_definition(answer, one) for one in references),
        "rougel": max(rougel_by_definition(answer, one) for one in references),
    }
    right = r_precision_by_definition(ranking, provenance) == 1
    expected |= {f"kilt_{name}": score if right else 0 for name, score in expected.items()}
    assert scores == pytest.approx(expected, abs=1e-9)


def test_an_answer_longer_than_the_recursion_limit_is_scored():
    long = " ".join(f"word{number}" for number in range(900))
    assert score_answer(long, [long], [], [])["rougel"] == pytest.approx(1, abs=1e-7)
    assert score_answer("word7 word8", [long], [], [])["rougel"] == pytest.approx(2 * 2 / 902, abs=1e-7)
