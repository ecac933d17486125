import copy
import resource

import pytest
import torch
from datasets import Dataset
from transformers import set_seed

from modeling_mint import MintProcessor, TitleTrie, format_prompt, search_docids
from modeling_mint.tokenization_mint import encode_targets
from tests.tiny import TITLES

QUESTIONS = ["moon", "Who designed the Eiffel Tower in Paris, and in which year?", "DNA?"]
ROWS = [[TITLES.index("Moon"), TITLES.index("Apollo 11")], [TITLES.index("Eiffel Tower")], []]


def search(model, processor, prompts, **arguments):
    """Per prompt (row, score), best first."""
    found = search_docids(model, processor.trie, **processor(prompts), **arguments)
    return [[(processor.trie.rows(leaf)[0], score) for leaf, score in ranked] for ranked in found]


@pytest.fixture
def talkative(kind, role, models):
    """A copy of a model that is inclined to end its texts, so that they differ in length."""
    model = copy.deepcopy(models[kind, role])
    with torch.no_grad():
        model.get_output_embeddings().weight[model.config.eos_token_id] *= 5
    return model


@torch.no_grad()
def write_greedily(model, processor, prompt, max_new_tokens):
    """Token ids and mean log-probability of a greedy text: one prompt, no cache, a whole forward pass per token."""
    prompt_ids = processor(prompt)["input_ids"]
    written, log_probs = [], []
    while len(written) < max_new_tokens and model.config.eos_token_id not in written:
        if model.config.is_encoder_decoder:
            decoder_ids = torch.tensor([[model.config.decoder_start_token_id] + written])
            logits = model(input_ids=prompt_ids, decoder_input_ids=decoder_ids).logits
        else:
            logits = model(torch.cat([prompt_ids, torch.tensor([written], dtype=torch.long)], dim=1)).logits
        log_prob, token = logits[0, -1].log_softmax(-1).max(0)
        written.append(int(token))
        log_probs.append(float(log_prob))
    return written, sum(log_probs) / len(log_probs)


def assert_written_greedily(output, model, processor, prompts, max_new_tokens):
    expected = [write_greedily(model, processor, prompt, max_new_tokens) for prompt in prompts]
    assert output.texts == processor.decode_text([ids for ids, _ in expected])
    assert output.log_probs == pytest.approx([mean for _, mean in expected], abs=1e-4)
    return [len(ids) for ids, _ in expected]


def test_retrieve_names_titles_scores_and_rows_of_the_rag_prompt(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    output = model.retrieve(QUESTIONS, processor, k=3)
    prompts = [format_prompt("query_to_docid", query=query) for query in QUESTIONS]
    found = search(model, processor, prompts, num_beams=10, num_docids=3)
    assert output.rows == [[row for row, _ in ranked] for ranked in found]
    # Batches are made by length, so the sums are rounded in another order.
    for scores, ranked in zip(output.scores, found, strict=True):
        assert scores == pytest.approx([score for _, score in ranked], abs=1e-4)
    assert output.docids == [[TITLES[row] for row in rows] for rows in output.rows]


def test_retrieve_in_small_batches_keeps_the_order_of_the_queries(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    queries = [f"{'very ' * (7 - i)}long question {i}" for i in range(7)]
    whole, parts = (model.retrieve(queries, processor, k=3, batch_size=size) for size in (7, 2))
    assert whole.rows == parts.rows
    assert whole.rows == [model.retrieve([query], processor, k=3).rows[0] for query in queries]


def test_retrieve_without_queries_finds_nothing(models, processors):
    output = models["llama", "rag"].retrieve([], processors["llama"])
    assert (output.docids, output.scores, output.rows) == ([], [], [])


def test_equal_titles_come_out_as_all_their_rows_with_one_score(kind, models, backbones):
    titles = ["Paris", "Moon", "Paris", "DNA", "Paris"]
    documents = Dataset.from_dict({"title": titles, "text": [f"text {row}" for row in range(len(titles))]})
    processor = MintProcessor.from_backbone_pretrained(backbones[kind, "rag"], documents)
    output = models[kind, "rag"].retrieve(QUESTIONS, processor, k=5)
    for rows, docids, scores in zip(output.rows, output.docids, output.scores, strict=True):
        assert sorted(rows) == [0, 1, 2, 3, 4]
        first = rows.index(0)
        assert rows[first : first + 3] == [0, 2, 4]
        assert docids[first : first + 3] == ["Paris"] * 3
        assert len(set(scores[first : first + 3])) == 1 and scores == sorted(scores, reverse=True)
    for k in range(1, 5):
        assert models[kind, "rag"].retrieve(QUESTIONS, processor, k=k).rows == [rows[:k] for rows in output.rows]


def test_exact_search_says_what_it_has_proven_and_beam_search_claims_nothing(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    exact = model.retrieve(QUESTIONS, processor, k=3, search="exact")
    whole = model.retrieve(QUESTIONS, processor, k=3, num_beams=len(TITLES))
    assert exact.rows == whole.rows and exact.complete == [True] * 3 and whole.complete is None
    assert model.retrieve(QUESTIONS, processor, k=3, search="exact", budget=1).complete == [False] * 3


def test_length_penalty_divides_scores_by_a_power_of_the_length(kind, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    plain, halved = (model.retrieve(QUESTIONS, processor, k=len(TITLES), length_penalty=power) for power in (0.0, 1.0))
    lengths = [len(path) for path in encode_targets(processor.tokenizer, TITLES)]
    for rows, scores, other_rows, other_scores in zip(
        plain.rows, plain.scores, halved.rows, halved.scores, strict=True
    ):
        expected = {row: score / lengths[row] for row, score in zip(rows, scores, strict=True)}
        assert dict(zip(other_rows, other_scores, strict=True)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "best"}, "`search` is 'best'; it must be one of"),
        ({"search": "exact", "length_penalty": 1.0}, "An exact search compares plain sums"),
        ({"k": 0}, "`k` is 0; it must be between 1 and `num_beams`"),
        ({"k": 5, "num_beams": 4}, "`k` is 5; it must be between 1 and `num_beams`"),
        ({"search": "exact", "budget": 0}, "`budget` is 0; it must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message, models, processors):
    with pytest.raises(ValueError, match=message):
        models["llama", "rag"].retrieve(QUESTIONS, processors["llama"], **arguments)


def test_trie_of_another_collection_is_refused(models, processors):
    other = TitleTrie.from_titles(["Paris", "Moon"], processors["llama"].tokenizer)
    with pytest.raises(ValueError, match="`trie` is over a collection of 2 documents"):
        models["llama", "rag"].retrieve(QUESTIONS, processors["llama"], trie=other)


@pytest.mark.parametrize("search", ["beam", "exact"])
def test_retrieval_from_a_subset_is_retrieval_from_all_less_the_rest(kind, search, models, processors):
    model, processor = models[kind, "rag"], processors[kind]
    allowed = [row for row in range(len(TITLES)) if row % 3 == 0]
    whole = model.retrieve(QUESTIONS, processor, k=len(TITLES))
    part = model.retrieve(QUESTIONS, processor, k=14, trie=processor.trie.subset(allowed), search=search)
    for rows, scores, docids, every_row, every_score in zip(
        part.rows, part.scores, part.docids, whole.rows, whole.scores, strict=True
    ):
        expected = [(row, score) for row, score in zip(every_row, every_score, strict=True) if row in allowed]
        assert rows == [row for row, _ in expected]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
        assert docids == [TITLES[row] for row in rows]


def test_retrieval_from_sections_by_a_model_of_pages_is_refused(models, processors):
    processor = copy.copy(processors["llama"])
    processor.collection = processor.collection.add_column("page", TITLES)
    with pytest.raises(ValueError, match="docid_granularity 'title' and the collection 'section'"):
        models["llama", "rag"].retrieve(QUESTIONS, processor)


@pytest.mark.slow
def test_ten_thousand_queries_come_back_in_their_order_and_within_bounded_memory(models, processors, capsys):
    model, processor = models["llama", "rag"], processors["llama"]
    queries = [f"{QUESTIONS[i % 3]} {'what ' * (i % 7)}" for i in range(10_000)]
    model.retrieve(queries[:500], processor)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = model.retrieve(queries, processor, show_progress=True)
    # Kilobytes; the answers themselves are a few megabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert "Retrieving: 100%" in capsys.readouterr().err
    one_by_one = model.retrieve(queries[:21], processor, batch_size=1)
    for i in range(0, 10_000, 101):
        assert found.rows[i] == one_by_one.rows[i % 21]


def test_gar_retrieves_with_its_own_answers_unless_it_is_given_some(kind, models, processors):
    model, processor = models[kind, "gar"], processors[kind]
    own = model.answer(QUESTIONS, processor).texts
    assert model.retrieve(QUESTIONS, processor) == model.retrieve(QUESTIONS, processor, answers=own)
    answers = ["Apollo 11", "Gustave Eiffel", "Curie"]
    given = model.retrieve(QUESTIONS, processor, k=5, answers=answers)
    prompts = [
        format_prompt("query_answer_to_docid", query=query, answer=answer)
        for query, answer in zip(QUESTIONS, answers, strict=True)
    ]
    found = search(model, processor, prompts, num_beams=10, num_docids=5)
    assert given.rows == [[row for row, _ in ranked] for ranked in found]


def test_answers_are_greedy_and_their_scores_the_mean_log_probability_of_their_tokens(
    kind, role, talkative, processors
):
    processor = processors[kind]
    if role == "rag":
        output = talkative.answer(QUESTIONS, processor, ROWS, max_new_tokens=12)
        prompts = [
            format_prompt("grounded_answer", query=query, documents=processor.context(rows))
            for query, rows in zip(QUESTIONS, ROWS, strict=True)
        ]
    else:
        output = talkative.answer(QUESTIONS, processor, max_new_tokens=12)
        prompts = [format_prompt("closed_book_answer", query=query) for query in QUESTIONS]
    assert_written_greedily(output, talkative, processor, prompts, 12)


def test_end_token_counts_and_padding_after_it_does_not(kind, models, processors):
    """A batch in which texts end at different places, the case that a mean over a padded batch gets wrong."""
    model = copy.deepcopy(models[kind, "gar"])
    queries = [f"{title}?" for title in TITLES[:12]]
    prompts = [format_prompt("closed_book_answer", query=query) for query in queries]
    for scale in (2, 3, 4, 6, 8, 12):
        with torch.no_grad():
            head = model.get_output_embeddings().weight
            head[model.config.eos_token_id] = models[kind, "gar"].get_output_embeddings().weight[1] * scale
        lengths = [len(write_greedily(model, processors[kind], prompt, 6)[0]) for prompt in prompts]
        if len(set(lengths)) > 1:
            break
    assert len(set(lengths)) > 1
    output = model.answer(queries, processors[kind], max_new_tokens=6)
    assert_written_greedily(output, model, processors[kind], prompts, 6)


def test_rag_model_without_rows_refuses_to_answer(models, processors):
    with pytest.raises(ValueError, match="A RAG model answers from documents: give `rows`"):
        models["llama", "rag"].answer(QUESTIONS, processors["llama"])


def test_every_query_needs_its_rows(models, processors):
    with pytest.raises(ValueError, match="shorter"):
        models["llama", "rag"].answer(QUESTIONS, processors["llama"], ROWS[:2])


def test_queries_are_written_from_the_documents_text(kind, models, processors):
    model, processor = models[kind, "gar"], processors[kind]
    rows = [3, 30, 12]
    prompts = [format_prompt("document_to_query", document=processor.document(row)[1]) for row in rows]
    output = model.write_queries(rows, processor, max_new_tokens=10)
    assert_written_greedily(output, model, processor, prompts, 10)


def test_sampled_queries_vary_with_the_seed_and_repeat_with_it(kind, models, processors):
    def write(seed):
        set_seed(seed)
        return models[kind, "rag"].write_queries([3, 30, 12], processors[kind], temperature=1.0)

    first, again, other = write(0), write(0), write(1)
    assert first == again
    assert first.texts != other.texts
    assert all(log_prob < 0 for log_prob in first.log_probs)
