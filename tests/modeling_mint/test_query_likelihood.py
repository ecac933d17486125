import pytest
import torch

from modeling_mint import format_prompt
from modeling_mint.generation_mint import RetrievalOutput
from modeling_mint.query_likelihood import query_log_probs, rank_by_reading, read_found

QUERIES = ["moon", "Who designed the Eiffel Tower in Paris, and in which year?", "DNA?"]
ROWS = [[3, 1, 7], [5], []]


@torch.no_grad()
def log_prob_of(model, processor, query, row):
    """The reference: one query behind one document, without any padding."""
    ((_, text),) = processor.context([row])
    prompt, target = processor.encode_example(format_prompt("document_to_query", document=text), (query,))
    if model.config.is_encoder_decoder:
        decoder = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(target)), target].sum().item()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_query_is_as_likely_as_the_model_finds_it_after_the_documents_text(kind, models, processors, batch_size):
    model, processor = models[kind, "rag"], processors[kind]
    found = query_log_probs(model, processor, QUERIES, ROWS, batch_size=batch_size)
    assert [len(one) for one in found] == [3, 1, 0]
    for query, rows, log_probs in zip(QUERIES, ROWS, found, strict=True):
        expected = [log_prob_of(model, processor, query, row) for row in rows]
        assert log_probs == pytest.approx(expected, abs=1e-3)


def test_reading_ranks_by_the_weighted_sum_of_both_log_probabilities():
    found = RetrievalOutput([["a", "b", "c"], ["d"]], [[-1.0, -2.0, -2.5], [-1.0]], [[4, 5, 6], [7]])
    log_probs = [[-30.0, -20.0, -25.0], []]
    assert rank_by_reading(found, log_probs, 0.0) == found
    ranked = rank_by_reading(found, log_probs, 0.25)
    assert ranked.docids == [["b", "a", "c"], ["d"]] and ranked.rows == [[5, 4, 6], [7]]
    assert ranked.scores == [[-2.0, -3.5, -3.75], [-1.0]]
    assert rank_by_reading(found, log_probs, 0.25, k=2).docids == [["b", "a"], ["d"]]


def test_documents_out_of_reach_are_not_read_and_never_come_first(kind, models, processors):
    model, processor = models[kind, "gar"], processors[kind]
    scores = [[-1.0, -8.9, -9.1], [-0.5, -9.0, -9.5], []]
    found = RetrievalOutput([["a", "b", "c"], ["d", "e", "f"], []], scores, [[3, 1, 7], [5, 2, 4], []])
    log_probs = read_found(model, processor, QUERIES, found)
    assert log_probs == [query_log_probs(model, processor, QUERIES[:1], [[3, 1]])[0], [], []]
    # Whatever is read, one of the documents within reach stays in front.
    for read in ([-10.0, -90.0], [-90.0, -10.0]):
        ranked = rank_by_reading(found, [read, [], []], 1.0)
        assert ranked.docids[0][0] in ("a", "b") and ranked.docids[1:] == found.docids[1:]
