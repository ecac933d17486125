import copy
import json

import pytest
import torch
from assets import VITAL_ARTICLES, cache_dir
from datasets import Dataset

from modeling_mint import MintForConditionalGeneration, MintProcessor, TitleTrie, format_prompt, search_docids
from modeling_mint.tokenization_mint import encode_targets
from tests.tiny import TITLES

# Of very different lengths, so that a batch of them is padded.
QUESTIONS = ["moon", "Who designed the Eiffel Tower in Paris, and in which year?", "DNA?"]
PROMPTS = [format_prompt("query_to_docid", query=query) for query in QUESTIONS]


def search(model, processor, prompts=PROMPTS, trie=None, **arguments):
    """Per prompt (row, score), best first, for a trie with one row a leaf."""
    trie = processor.trie if trie is None else trie
    found = search_docids(model, trie, **processor(prompts), **arguments)
    return [[(trie.rows(leaf)[0], score) for leaf, score in ranked] for ranked in found]


@torch.no_grad()
def teacher_forced(model, processor, prompt, paths):
    """Log-probabilities (paths, longest path) of the tokens of each path after one prompt, zero beyond its end."""
    prompt_ids = processor(prompt)["input_ids"].expand(len(paths), -1)
    length = max(map(len, paths))
    targets = torch.tensor([path + [0] * (length - len(path)) for path in paths])
    inside = torch.tensor([[1] * len(path) + [0] * (length - len(path)) for path in paths])
    if model.config.is_encoder_decoder:
        start = torch.full((len(paths), 1), model.config.decoder_start_token_id)
        logits = model(input_ids=prompt_ids, decoder_input_ids=torch.cat([start, targets[:, :-1]], dim=1)).logits
    else:
        logits = model(input_ids=torch.cat([prompt_ids, targets[:, :-1]], dim=1)).logits[:, -length:]
    return logits.float().log_softmax(-1).gather(2, targets[:, :, None])[:, :, 0] * inside


def oracle(model, processor, titles=TITLES):
    """Per prompt the score of every title, each from a forward pass over the whole title."""
    paths = encode_targets(processor.tokenizer, titles)
    return [teacher_forced(model, processor, prompt, paths).sum(1).tolist() for prompt in PROMPTS]


def ranking_of(scores):
    return sorted(range(len(scores)), key=lambda row: -scores[row])


def assert_same_ranking(found, expected):
    assert [[row for row, _ in ranked] for ranked in found] == [[row for row, _ in ranked] for ranked in expected]
    for ranked, others in zip(found, expected, strict=True):
        assert [score for _, score in ranked] == pytest.approx([score for _, score in others], abs=1e-4)


def test_with_beams_for_all_titles_it_finds_what_scoring_every_title_finds(kind, role, models, processors):
    model, processor = models[kind, role], processors[kind]
    found = search(model, processor, num_beams=len(TITLES), num_docids=len(TITLES))
    expected = [[(row, scores[row]) for row in ranking_of(scores)] for scores in oracle(model, processor)]
    assert_same_ranking(found, expected)


@pytest.mark.parametrize("num_docids", [1, 3, 10])
def test_the_best_few_are_the_oracles_best_few(kind, num_docids, models, processors):
    """Stopping early, once no open beam can enter the wanted docids, must lose none of them."""
    model, processor = models[kind, "rag"], processors[kind]
    found = search(model, processor, num_beams=len(TITLES), num_docids=num_docids)
    expected = [[(row, scores[row]) for row in ranking_of(scores)[:num_docids]] for scores in oracle(model, processor)]
    assert_same_ranking(found, expected)


def naive_beam_search(paths, log_probs, num_beams):
    """
    (row, score) of all titles that a beam search by the book finishes: of all continuations of a step, finished ones
    count among the best `num_beams`, and the best `num_beams` unfinished ones go on. `log_probs` as `teacher_forced`
    gives.
    """
    totals = log_probs.cumsum(1).tolist()
    finished, beams = {}, {()}
    for length in range(1, max(map(len, paths)) + 1):
        candidates = {
            tuple(path[:length]): (totals[row][length - 1], row if len(path) == length else None)
            for row, path in enumerate(paths)
            if len(path) >= length and tuple(path[: length - 1]) in beams
        }
        ranked = sorted(candidates, key=candidates.get, reverse=True)
        finished |= {row: score for score, row in map(candidates.get, ranked[:num_beams]) if row is not None}
        beams = set([prefix for prefix in ranked if candidates[prefix][1] is None][:num_beams])
    return sorted(finished.items(), key=lambda found: -found[1])


@pytest.mark.parametrize("num_beams", [1, 2, 4, 10])
def test_with_few_beams_it_finds_what_a_naive_beam_search_finds(kind, num_beams, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    paths = encode_targets(processor.tokenizer, TITLES)
    naive = [
        naive_beam_search(paths, teacher_forced(model, processor, prompt, paths), num_beams) for prompt in PROMPTS
    ]
    for num_docids in {1, min(3, num_beams), num_beams}:
        found = search(model, processor, num_beams=num_beams, num_docids=num_docids)
        assert_same_ranking(found, [ranked[:num_docids] for ranked in naive])
        assert all(len({row for row, _ in ranked}) == len(ranked) for ranked in found)


@pytest.mark.parametrize("num_docids", [0, 5])
def test_docids_wanted_beyond_the_beams_are_refused(num_docids, models, processors):
    with pytest.raises(ValueError, match=f"`num_docids` is {num_docids}; it must be between 1 and `num_beams`"):
        search(models["llama", "rag"], processors["llama"], num_beams=4, num_docids=num_docids)


def test_scores_renormalised_over_the_trie_are_a_distribution_over_the_titles(kind, models, processors):
    found = search(
        models[kind, "rag"], processors[kind], num_beams=len(TITLES), num_docids=len(TITLES), scoring="trie"
    )
    for ranked in found:
        assert len(ranked) == len(TITLES)
        assert sum(torch.tensor([score for _, score in ranked]).exp().tolist()) == pytest.approx(1, abs=1e-5)


def test_renormalised_scores_are_those_of_the_allowed_tokens(models, processors):
    """By hand: "A", "Paris" and "Parish" as token paths; what has no alternative costs nothing."""
    model, processor = models["llama", "rag"], processors["llama"]
    trie = TitleTrie.from_token_ids(
        [[40, 1], [50, 1], [50, 60, 1]], eos_token_id=1, vocab_size=len(processor.tokenizer)
    )
    (found,) = search(model, processor, PROMPTS[:1], trie, num_beams=3, num_docids=3, scoring="trie")
    with torch.no_grad():
        prompt_ids = processor(PROMPTS[0])["input_ids"]
        first = model(prompt_ids).logits[0, -1, [40, 50]].log_softmax(0)
        second = model(torch.cat([prompt_ids, torch.tensor([[50]])], 1)).logits[0, -1, [1, 60]].log_softmax(0)
    expected = {0: first[0], 1: first[1] + second[0], 2: first[1] + second[1]}
    assert dict(found) == pytest.approx({row: float(score) for row, score in expected.items()}, abs=1e-5)


def test_prompts_padded_on_the_wrong_side_are_refused(models, processors):
    inputs = processors["llama"](PROMPTS)
    with pytest.raises(ValueError, match="padded on the left"):
        search_docids(
            models["llama", "rag"],
            processors["llama"].trie,
            inputs["input_ids"].flip(1),
            inputs["attention_mask"].flip(1),
        )


def test_unknown_scoring_is_refused(models, processors):
    with pytest.raises(ValueError, match="`scoring` is 'length'; it must be 'vocabulary' or 'trie'"):
        search(models["llama", "rag"], processors["llama"], scoring="length")


def test_more_docids_wanted_than_titles_gives_every_title_once(kind, models, processors):
    found = search(models[kind, "rag"], processors[kind], num_beams=3 * len(TITLES), num_docids=3 * len(TITLES))
    assert [sorted(row for row, _ in ranked) for ranked in found] == [list(range(len(TITLES)))] * len(PROMPTS)


def test_trie_of_one_title_gives_it_with_its_score(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    trie = TitleTrie.from_titles(["Eiffel Tower"], processor.tokenizer)
    found = search(model, processor, trie=trie, num_beams=5, num_docids=5)
    assert_same_ranking(found, [[(0, scores[0])] for scores in oracle(model, processor, ["Eiffel Tower"])])


@pytest.mark.parametrize("scoring", ["vocabulary", "trie"])
def test_a_query_alone_finds_what_it_finds_in_a_padded_batch(kind, scoring, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    arguments = {"num_beams": 4, "num_docids": 4, "scoring": scoring}
    together = search(model, processor, **arguments)
    alone = [search(model, processor, [prompt], **arguments)[0] for prompt in PROMPTS]
    assert_same_ranking(together, alone)


def test_search_is_the_same_every_time_and_leaves_the_model_as_it_was(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    weights = copy.deepcopy(model.state_dict())
    first, second = (search(model, processor, num_beams=4, num_docids=4) for _ in range(2))
    assert first == second
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


def test_bfloat16_models_search_with_scores_near_those_of_float32(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    found = search(copy.deepcopy(model).bfloat16(), processor, num_beams=len(TITLES), num_docids=len(TITLES))
    for ranked, scores in zip(found, oracle(model, processor), strict=True):
        assert sorted(row for row, _ in ranked) == list(range(len(TITLES)))
        assert [score for _, score in ranked] == pytest.approx([scores[row] for row, _ in ranked], abs=0.5)


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2 and the titles and texts of the vital articles, from the asset cache."""
    folder = cache_dir() / "smollm2-135m-instruct"
    articles = cache_dir() / f"{VITAL_ARTICLES.name}-{VITAL_ARTICLES.version}" / VITAL_ARTICLES.path
    for path in (folder, articles):
        if not path.exists():
            pytest.skip(f"{path} is not in the asset cache; `make assets` fetches it")
    documents = json.loads(articles.read_text(encoding="utf-8")).values()
    columns = {"title": [one["title"] for one in documents], "text": [one["extract"] for one in documents]}
    return folder, Dataset.from_dict(columns)


@pytest.mark.slow
def test_smollm2_targets_of_all_vital_titles_are_their_paths_in_the_trie(smollm2):
    folder, documents = smollm2
    processor = MintProcessor.from_backbone_pretrained(folder, documents)
    for row, title in enumerate(documents["title"]):
        _, target_ids = processor.encode_example("Question: q\nTitle:", (title,))
        (leaf,) = processor.trie.walk(torch.tensor([target_ids])).tolist()
        assert row in processor.trie.rows(leaf)


@pytest.mark.slow
def test_smollm2_retrieves_only_vital_titles_with_their_exact_scores(smollm2):
    folder, documents = smollm2
    documents = documents.select(range(0, len(documents), 50))
    processor = MintProcessor.from_backbone_pretrained(folder, documents)
    model = MintForConditionalGeneration.from_backbone_pretrained(folder, dtype=torch.float32)
    queries = [f"What is known about {title}?" for title in documents["title"][:3]]
    output = model.retrieve(queries, processor, k=10, num_beams=10)
    for query, docids, scores in zip(queries, output.docids, output.scores, strict=True):
        assert len(set(docids)) == len(docids) > 0
        assert set(docids) <= set(documents["title"])
        paths = encode_targets(processor.tokenizer, docids)
        prompt = format_prompt("query_to_docid", query=query)
        expected = teacher_forced(model, processor, prompt, paths).sum(1).tolist()
        assert scores == pytest.approx(expected, abs=1e-2)
