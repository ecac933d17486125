import copy
import math

import pytest
from transformers import TextStreamer

from modeling_mint import STRATEGIES, MintProcessor, StrategyInference
from modeling_mint.query_likelihood import rank_by_reading, read_found
from modeling_mint.strategies_mint import answer_confidence, fuse
from tests.tiny import TITLES

QUESTIONS = ["moon", "Who designed the Eiffel Tower in Paris, and in which year?", "DNA?", "New York?"]


@pytest.fixture
def pair(kind, models):
    """The RAG and the GAR model of one kind; each answers with the confidence of a calibrated temperature."""
    pair = {role: copy.deepcopy(models[kind, role]) for role in ("rag", "gar")}
    pair["rag"].config.answer_temperature, pair["gar"].config.answer_temperature = 2.0, 4.0
    return pair


def softmax(scores):
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def parts(pair, processor, k=5, num_documents=2):
    """What the strategies are made of, by calling the models one after the other."""
    rag, gar = pair["rag"], pair["gar"]
    rag_found = rag.retrieve(QUESTIONS, processor, k=k)
    gar_answers = gar.answer(QUESTIONS, processor)
    gar_found = gar.retrieve(QUESTIONS, processor, k=k, answers=gar_answers.texts)
    return {
        "rag_found": rag_found,
        "rag_answers": rag.answer(QUESTIONS, processor, [rows[:num_documents] for rows in rag_found.rows]),
        "gar_answers": gar_answers,
        "gar_found": gar_found,
        "cascade_answers": rag.answer(QUESTIONS, processor, [rows[:num_documents] for rows in gar_found.rows]),
    }


@pytest.mark.parametrize(
    ("strategy", "answers", "found", "temperature"),
    [
        ("rag", "rag_answers", "rag_found", 2.0),
        ("gar", "gar_answers", "gar_found", 4.0),
        ("cascade", "cascade_answers", "gar_found", 2.0),
    ],
)
def test_strategy_is_composed_of_its_parts(strategy, answers, found, temperature, kind, pair, processors):
    made = parts(pair, processors[kind])
    output = StrategyInference(QUESTIONS, processors[kind], **pair).run(strategy)
    assert output.answers == made[answers].texts
    assert output.scores == pytest.approx([math.exp(one / temperature) for one in made[answers].log_probs])
    assert output.rows == made[found].rows
    for shares, scores in zip(output.document_scores, made[found].scores, strict=True):
        assert shares == pytest.approx(softmax(scores))


@pytest.mark.parametrize("given", [False, True])
def test_models_that_read_rank_by_what_the_documents_say_too(given, kind, pair, processors):
    processor, made = processors[kind], parts(pair, processors[kind])
    beams = parts(pair, processor, k=10)
    options = {"query_likelihood_weight": 99.0} if given else {}
    for model in pair.values():
        model.calibrate(model.config.role, query_likelihood_weight=1.0 if given else 99.0)
    inference = StrategyInference(QUESTIONS, processor, **pair, **options)
    for role, found in (("rag", inference.rag_documents), ("gar", inference.gar_documents)):
        log_probs = read_found(pair[role], processor, QUESTIONS, beams[f"{role}_found"])
        expected = rank_by_reading(beams[f"{role}_found"], log_probs, 99.0)
        assert found.rows == [rows[:5] for rows in expected.rows] != made[f"{role}_found"].rows
        assert found.scores == [pytest.approx(scores[:5]) for scores in expected.scores]
        assert inference.run(role).rows == found.rows
    with pytest.raises(ValueError, match="`query_likelihood_weight` is -1.0; it must be at least 0"):
        StrategyInference(QUESTIONS, processor, **pair, query_likelihood_weight=-1.0)
    unread = StrategyInference(QUESTIONS, processor, **pair, query_likelihood_weight=0.0)
    assert unread.rag_documents.rows == made["rag_found"].rows


@pytest.mark.parametrize(("k", "num_beams"), [(1, None), (3, 6), (12, None)])
def test_what_the_beams_hold_is_read_however_few_documents_are_asked_for(k, num_beams, kind, pair, processors):
    processor, rag = processors[kind], pair["rag"]
    beams = rag.retrieve(QUESTIONS, processor, k=num_beams or max(k, 10), num_beams=num_beams)
    expected = rank_by_reading(beams, read_found(rag, processor, QUESTIONS, beams), 99.0)
    inference = StrategyInference(
        QUESTIONS, processor, rag=rag, k=k, num_beams=num_beams, query_likelihood_weight=99.0
    )
    assert inference.rag_documents.rows == [rows[:k] for rows in expected.rows]


@pytest.mark.parametrize(("k", "num_beams"), [(0, None), (-1, 6), (7, 6)])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_models_that_read_refuse_the_numbers_of_documents_that_others_do(k, num_beams, weight, kind, pair, processors):
    options = {"k": k, "num_beams": num_beams, "query_likelihood_weight": weight}
    with pytest.raises(ValueError, match=f"`k` is {k}; it must be between 1 and `num_beams`"):
        StrategyInference(QUESTIONS, processors[kind], **pair, **options).run("rag")


def test_ensemble_fuses_both_rankings_and_takes_the_more_confident_answer(kind, pair, processors):
    made = parts(pair, processors[kind])
    output = StrategyInference(QUESTIONS, processors[kind], **pair).run("ensemble")
    for i in range(len(QUESTIONS)):
        confidences = {
            made["rag_answers"].texts[i]: math.exp(made["rag_answers"].log_probs[i] / 2),
            made["gar_answers"].texts[i]: math.exp(made["gar_answers"].log_probs[i] / 4),
        }
        assert output.answers[i] == max(confidences, key=confidences.get)
        assert output.scores[i] == pytest.approx(max(confidences.values()))
        share = dict.fromkeys(range(len(TITLES)), 0.0)
        for found in (made["rag_found"], made["gar_found"]):
            for row, probability in zip(found.rows[i], softmax(found.scores[i]), strict=True):
                share[row] += probability
        best = sorted(share.values(), reverse=True)[:5]
        assert [share[row] for row in output.rows[i]] == pytest.approx(best)
        assert output.document_scores[i] == pytest.approx([value / sum(best) for value in best])


def test_either_model_can_win_the_ensemble(models, processors):
    """Colder answers are less confident: the temperatures alone decide here."""
    pair = {role: copy.deepcopy(models["llama", role]) for role in ("rag", "gar")}
    for winner, loser in (("rag", "gar"), ("gar", "rag")):
        pair[winner].config.answer_temperature, pair[loser].config.answer_temperature = 100.0, 0.1
        inference = StrategyInference(QUESTIONS, processors["llama"], **pair)
        assert inference.run("ensemble").answers == inference.run(winner).answers


@pytest.mark.parametrize(("num_documents", "k"), [(0, 3), (1, 3), (3, 3)])
def test_generator_reads_the_first_num_documents(num_documents, k, pair, kind, processors):
    inference = StrategyInference(QUESTIONS, processors[kind], **pair, k=k, num_documents=num_documents)
    made = parts(pair, processors[kind], k, num_documents)
    assert inference.run("rag").answers == made["rag_answers"].texts
    assert inference.run("cascade").answers == made["cascade_answers"].texts


def test_what_strategies_share_is_computed_once(pair, kind, processors):
    calls = dict.fromkeys(pair, 0)
    for role, model in pair.items():
        model.register_forward_hook(lambda *_, role=role: calls.update({role: calls[role] + 1}))
    inference = StrategyInference(QUESTIONS, processors[kind], **pair)
    inference.run("rag")
    assert calls["rag"] > 0 and calls["gar"] == 0
    inference.run("gar")
    before = dict(calls)
    inference.run("ensemble")
    assert calls == before
    inference.run("cascade")
    assert calls["gar"] == before["gar"] and calls["rag"] > before["rag"]
    before = dict(calls)
    for strategy in STRATEGIES:
        inference.run(strategy)
    assert calls == before


@pytest.mark.parametrize(
    ("role", "strategies"), [("rag", ["gar", "ensemble", "cascade"]), ("gar", ["rag", "ensemble", "cascade"])]
)
def test_strategy_that_lacks_a_model_names_it(role, strategies, pair, kind, processors):
    missing = "gar" if role == "rag" else "rag"
    inference = StrategyInference(QUESTIONS[:1], processors[kind], **{role: pair[role]})
    assert inference.run(role).answers
    for strategy in strategies:
        with pytest.raises(ValueError, match=f"needs a {missing.upper()} model: give `{missing}_model`"):
            inference.run(strategy)


def test_model_of_other_docids_than_the_collections_is_refused(pair, kind, processors, collection):
    pages = processors[kind]
    sections = MintProcessor(pages.tokenizer, pages.trie, collection.add_column("page", collection["title"][:]))
    assert (sections.page(3), pages.page(3)) == (TITLES[3], TITLES[3])
    with pytest.raises(ValueError, match="rag model has docid_granularity 'title' and the collection 'section'"):
        StrategyInference(QUESTIONS, sections, **pair)
    for model in pair.values():
        model.config.docid_granularity = "section"
    assert StrategyInference(QUESTIONS[:1], sections, **pair).run("cascade").rows
    with pytest.raises(ValueError, match="rag model has docid_granularity 'section' and the collection 'title'"):
        StrategyInference(QUESTIONS, pages, **pair)


def test_unknown_strategy_is_refused(pair, kind, processors):
    with pytest.raises(ValueError, match=r"`strategy` is 'vote'; it must be one of \('rag', 'gar', 'ensemble'"):
        StrategyInference(QUESTIONS, processors[kind], **pair).run("vote")


def test_no_queries_give_no_answers(pair, kind, processors):
    output = StrategyInference([], processors[kind], **pair).run("ensemble")
    assert (output.answers, output.scores, output.rows, output.document_scores) == ([], [], [], [])


def test_softmax_fusion_by_hand():
    # RAG: 3/4 and 1/4; GAR: 1/2, 1/2. Row 8 has 1/4 + 1/2, row 7 has 3/4, row 9 has 1/2.
    rag = ([7, 8], [math.log(3) - 20, -20.0])
    gar = ([8, 9], [-1.0, -1.0])
    rows, shares = fuse([rag, gar], k=3)
    assert set(rows[:2]) == {7, 8} and rows[2] == 9
    assert shares == pytest.approx([0.375, 0.375, 0.25])
    rows, shares = fuse([rag, gar], k=1)
    assert len(rows) == 1 and shares == [1.0]


def test_reciprocal_rank_fusion_by_hand():
    rows, shares = fuse([([7, 8], [-1.0, -50.0]), ([8, 9, 7], [-3.0, -4.0, -5.0])], 2, "reciprocal_rank")
    values = {7: 1 / 61 + 1 / 63, 8: 1 / 62 + 1 / 61}
    assert rows == [8, 7]
    assert shares == pytest.approx([values[8] / sum(values.values()), values[7] / sum(values.values())])


def test_fusion_of_one_ranking_keeps_it():
    rows, shares = fuse([([4, 2, 6], [-1.0, -2.0, -3.0])], k=3)
    assert rows == [4, 2, 6]
    assert shares == pytest.approx(softmax([-1.0, -2.0, -3.0]))


def test_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="`fusion` is 'max'; it must be one of"):
        fuse([([1], [0.0])], k=1, fusion="max")


def test_answer_confidence_is_the_tempered_probability():
    assert answer_confidence([-1.0, 0.0], 2.0) == pytest.approx([math.exp(-0.5), 1.0])
    assert answer_confidence([-2.0], 1.0)[0] < answer_confidence([-2.0], 3.0)[0]


class Typing(TextStreamer):
    """Keeps the pieces of text that it is given."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.pieces, self.ended = [], 0

    def on_finalized_text(self, text, stream_end=False):
        self.pieces.append(text)
        self.ended += stream_end


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_streamed_answer_is_the_answer(strategy, pair, kind, processors):
    plain = StrategyInference(QUESTIONS[:1], processors[kind], **pair)
    streamers = {role: Typing(processors[kind].tokenizer) for role in pair}
    inference = StrategyInference(QUESTIONS[:1], processors[kind], **pair, streamers=streamers)
    assert inference.run(strategy) == plain.run(strategy)
    for role, answers in inference.answers.items():
        assert streamers[role].ended == 1 and len(streamers[role].pieces) > 1
        # The last token, usually the end, is in the answer only.
        written = "".join(streamers[role].pieces).strip().split("\n")[0].strip()
        assert answers.texts[0].startswith(written)
        assert bool(written) == bool(answers.texts[0])
    assert {role for role, streamer in streamers.items() if streamer.ended} == set(inference.answers)


def test_what_on_step_raises_stops_the_models_at_once(pair, kind, processors):
    steps = dict.fromkeys(pair, 0)
    for role, model in pair.items():
        model.register_forward_pre_hook(lambda *_, role=role: steps.update({role: steps[role] + 1}))
    left = 5

    def check():
        nonlocal left
        left -= 1
        if left < 0:
            raise TimeoutError("too long")

    inference = StrategyInference(QUESTIONS[:1], processors[kind], **pair, on_step=check)
    with pytest.raises(TimeoutError, match="too long"):
        inference.run("ensemble")
    assert sum(steps.values()) <= 6
    # Nothing stays behind on the models.
    assert StrategyInference(QUESTIONS[:1], processors[kind], **pair).run("ensemble").answers


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_stays_within_the_trie_it_is_given(strategy, pair, kind, processors):
    rows = [1, 2, 3, 5, 8, 13]
    inference = StrategyInference(QUESTIONS, processors[kind], **pair, trie=processors[kind].trie.subset(rows))
    output = inference.run(strategy)
    assert all(set(found) <= set(rows) and len(found) == 5 for found in output.rows)


def test_parts_traces_and_times_are_kept_by_role(pair, kind, processors):
    inference = StrategyInference(QUESTIONS[:1], processors[kind], **pair, trace=True)
    output = inference.run("cascade")
    assert inference.answers["rag"].texts == output.answers
    assert list(inference.documents) == list(inference.traces) == ["gar"]
    assert inference.documents["gar"].rows == output.rows
    assert len(inference.traces["gar"].beams) == 1
    assert all(seconds > 0 for seconds in inference.seconds.values())
    untraced = StrategyInference(QUESTIONS[:1], processors[kind], **pair)
    assert untraced.run("cascade") == output and untraced.traces == {}
