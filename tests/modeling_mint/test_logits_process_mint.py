import doctest
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, set_seed

import modeling_mint.logits_process_mint
import modeling_mint.title_trie
from modeling_mint.logits_process_mint import FILLER_SCORE, TitleTrieLogitsProcessor
from modeling_mint.title_trie import TitleTrie
from modeling_mint.tokenization_mint import encode_targets
from tests.modeling_mint.accelerator import on_torch
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer

EOS, VOCAB_SIZE = 1, 12
QUESTIONS = ["Who designed the Eiffel Tower?", "moon", "In which city, of which country, was Frédéric Chopin born?"]
PATHS = st.lists(
    st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=4).map(lambda path: path + [EOS]),
    min_size=1,
    max_size=8,
)
SEARCHES = {
    "greedy": {},
    "beam": {"num_beams": 4, "num_return_sequences": 4},
    "beam with plain sums": {
        "num_beams": 4,
        "num_return_sequences": 4,
        "length_penalty": 0.0,
        "early_stopping": "never",
    },
    "sampling": {"do_sample": True, "num_return_sequences": 5, "temperature": 2.0},
}


def allowed(processor, prefixes):
    """Allowed tokens after each of some prefixes of one length, which follow a prompt of other tokens."""
    prompt = torch.full((len(prefixes), processor.prompt_length), 11)
    input_ids = torch.cat([prompt, torch.tensor(prefixes, dtype=torch.long).reshape(len(prefixes), -1)], dim=1)
    scores = torch.randn(len(prefixes), VOCAB_SIZE)
    masked = processor(input_ids, scores)
    keeps = masked > -torch.inf
    assert torch.equal(masked[keeps], scores[keeps])
    return [set(row.nonzero().flatten().tolist()) for row in keeps]


def every_prefix(sequences):
    """All prefixes of some sequences, grouped by length."""
    prefixes = sorted(
        {tuple(sequence[:length]) for sequence in sequences for length in range(len(sequence) + 1)}, key=len
    )
    return [list(group) for _, group in itertools.groupby(prefixes, key=len)]


@settings(max_examples=300, deadline=None)
@given(PATHS, st.integers(0, 3))
def test_single_mode_allows_what_a_brute_force_search_allows(paths, prompt_length):
    processor = TitleTrieLogitsProcessor(TitleTrie.from_token_ids(paths, EOS, VOCAB_SIZE), prompt_length)
    for prefixes in every_prefix(paths):
        expected = [
            {path[len(prefix)] for path in paths if len(path) > len(prefix) and tuple(path[: len(prefix)]) == prefix}
            for prefix in prefixes
        ]
        # A title that has ended offers its end token again.
        assert allowed(processor, prefixes) == [tokens or {EOS} for tokens in expected]


@settings(max_examples=300, deadline=None)
@given(PATHS, st.sampled_from([[9], [9, 2], [9, 9, 3]]), st.integers(1, 3), st.sampled_from([None, 0, 1]))
def test_list_mode_allows_what_a_brute_force_enumeration_allows(paths, separator, min_docids, extra):
    max_docids = None if extra is None else min_docids + extra
    distinct = sorted({tuple(path[:-1]) for path in paths})[:4]
    trie = TitleTrie.from_token_ids([list(path) + [EOS] for path in distinct], EOS, VOCAB_SIZE)
    processor = TitleTrieLogitsProcessor(trie, 2, "list", separator, min_docids, max_docids)
    longest = len(distinct) if max_docids is None else min(max_docids, len(distinct))
    lists = [
        tuple(itertools.chain(titles[0], *((*separator, *title) for title in titles[1:]))) + (EOS,)
        for length in range(min(min_docids, longest), longest + 1)
        for titles in itertools.permutations(distinct, length)
    ]
    following = {}
    for written in lists:
        for position in range(len(written)):
            following.setdefault(written[:position], set()).add(written[position])
        following[written] = {EOS}
    for _, group in itertools.groupby(sorted(following, key=len), key=len):
        prefixes = list(group)
        assert allowed(processor, prefixes) == [following[prefix] for prefix in prefixes]


@settings(max_examples=200, deadline=None)
@given(PATHS)
def test_single_mode_is_the_same_on_an_accelerators_arrays(paths):
    trie = TitleTrie.from_token_ids(paths, EOS, VOCAB_SIZE)
    here, there = (TitleTrieLogitsProcessor(one, 1) for one in (trie, on_torch(trie)))
    for prefixes in every_prefix(paths):
        assert allowed(there, prefixes) == allowed(here, prefixes)


@settings(max_examples=100, deadline=None)
@given(PATHS, st.data())
def test_list_mode_is_the_same_on_an_accelerators_arrays(paths, data):
    trie = TitleTrie.from_token_ids(paths, EOS, VOCAB_SIZE)
    here, there = (TitleTrieLogitsProcessor(one, 0, "list", [9, 3], 2, 3) for one in (trie, on_torch(trie)))
    rows = [[], [], []]
    for _ in range(12):
        tokens = allowed(here, rows)
        assert allowed(there, rows) == tokens
        rows = [row + [data.draw(st.sampled_from(sorted(choice)))] for row, choice in zip(rows, tokens, strict=True)]


def test_an_accelerators_arrays_refuse_strays_and_dead_ends_too():
    trie = on_torch(TitleTrie.from_token_ids([[2, EOS], [3, EOS]], EOS, VOCAB_SIZE))
    with pytest.raises(RuntimeError, match="A row has left the title trie"):
        allowed(TitleTrieLogitsProcessor(trie, 1), [[2], [4]])
    scores = torch.zeros(1, VOCAB_SIZE)
    scores[0, [2, 3]] = -torch.inf
    with pytest.raises(RuntimeError, match="A row has no token left"):
        TitleTrieLogitsProcessor(trie, 1)(torch.tensor([[11]]), scores)


@settings(max_examples=200, deadline=None)
@given(PATHS, st.sampled_from(["single", "list"]), st.data())
def test_state_carried_from_step_to_step_gives_what_reading_anew_gives(paths, mode, data):
    """Whatever the rows do: grow, change places, come twice, leave, or turn out to be others altogether."""
    trie = TitleTrie.from_token_ids(paths, EOS, VOCAB_SIZE)

    def make():
        return TitleTrieLogitsProcessor(trie, 0, mode, *([[9]] if mode == "list" else []))

    carrying = make()
    rows, known = [[]] * 3, [[]]
    for _ in range(10):
        tokens = allowed(carrying, rows)
        assert tokens == allowed(make(), rows)
        if data.draw(st.booleans()):
            # As beam search and sampling go on, in any order; rows that have ended may be filled up with padding.
            chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
            rows = [rows[i] + [0 if EOS in rows[i] else data.draw(st.sampled_from(sorted(tokens[i])))] for i in chosen]
        else:
            length = data.draw(st.sampled_from([len(row) for row in known]))
            rows = [row for row in known if len(row) == length]
        known += rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_a_step_stay_as_they_were_given(dtype):
    """`generate` keeps them with `output_scores`, or a view of them."""
    processor = TitleTrieLogitsProcessor(
        TitleTrie.from_token_ids([[2, 3, EOS], [2, 4, EOS], [3, 4, EOS], [5, EOS]], EOS, VOCAB_SIZE), 0
    )
    rows, kept = torch.tensor([[2, 3, EOS], [3, 4, EOS]]), []
    for length in range(4):
        masked = processor(rows[:, :length], torch.ones(2, VOCAB_SIZE, dtype=dtype))
        kept.append((masked[:, :], masked.clone()))
        assert masked.dtype == dtype
        del masked
    assert all(torch.equal(view, copy_) for view, copy_ in kept)


def test_rows_that_ended_allow_only_the_end_token_whatever_the_padding():
    processor = TitleTrieLogitsProcessor(TitleTrie.from_token_ids([[2, EOS], [3, 4, 5, EOS]], EOS, VOCAB_SIZE), 1)
    assert allowed(processor, [[2, EOS, 0], [2, EOS, EOS], [3, 4, 5]]) == [{EOS}, {EOS}, {EOS}]


def test_row_outside_the_trie_is_an_error_that_names_it():
    processor = TitleTrieLogitsProcessor(TitleTrie.from_token_ids([[2, 3, EOS]], EOS, VOCAB_SIZE), 1)
    with pytest.raises(RuntimeError, match=r"Row 1 has left the title trie.*it wrote \[2, 4\]"):
        allowed(processor, [[2, 3], [2, 4]])


@pytest.mark.parametrize("stray", [[2, 9, 9], [9, 2, 3], [2, 3, 9], [2, 9, 4]])
def test_list_outside_the_trie_is_an_error(stray):
    trie = TitleTrie.from_token_ids([[2, EOS], [3, EOS]], EOS, VOCAB_SIZE)
    with pytest.raises(RuntimeError, match="Row 0 has left the title trie"):
        allowed(TitleTrieLogitsProcessor(trie, 1, "list", [9]), [stray])


def test_another_processor_that_masks_every_title_is_an_error():
    processor = TitleTrieLogitsProcessor(TitleTrie.from_token_ids([[2, EOS], [3, EOS]], EOS, VOCAB_SIZE), 1)
    scores = torch.zeros(2, VOCAB_SIZE)
    scores[1, [2, 3]] = -torch.inf
    with pytest.raises(RuntimeError, match="Row 1 has no token left"):
        processor(torch.tensor([[11], [11]]), scores)


def test_model_with_a_smaller_vocabulary_is_refused():
    processor = TitleTrieLogitsProcessor(TitleTrie.from_token_ids([[2, EOS]], EOS, VOCAB_SIZE), 1)
    with pytest.raises(ValueError, match="scores 11 tokens and the title trie has a vocabulary of 12"):
        processor(torch.tensor([[11]]), torch.zeros(1, 11))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "many"}, 'must be "single" or "list"'),
        ({"mode": "list"}, "needs separator_ids"),
        ({"mode": "list", "separator_ids": [9, EOS]}, "needs separator_ids without the end token 1"),
        ({"mode": "list", "separator_ids": [3]}, "occurs in a title.*choose another separator"),
        ({"mode": "list", "separator_ids": [9], "min_docids": 0}, "min_docids=0 must lie between 1 and"),
        ({"mode": "list", "separator_ids": [9], "min_docids": 3, "max_docids": 2}, "and max_docids=2"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TitleTrieLogitsProcessor(TitleTrie.from_token_ids([[2, 3, EOS]], EOS, VOCAB_SIZE), 1, **arguments)


def tiny(kind):
    """A random model of either kind, its tokenizer, a batch of questions and the number of tokens before a docid."""
    if kind == "llama":
        tokenizer = tiny_byte_level_tokenizer()
        inputs = tokenizer(QUESTIONS, padding=True, return_tensors="pt", return_token_type_ids=False)
        return tiny_llama(tokenizer), tokenizer, inputs, inputs["input_ids"].shape[1]
    tokenizer = tiny_unigram_tokenizer()
    inputs = tokenizer(QUESTIONS, padding=True, return_tensors="pt", return_token_type_ids=False)
    return tiny_t5(tokenizer), tokenizer, inputs, 1


def generate(model, inputs, processor, **arguments):
    set_seed(0)
    return model.generate(
        **inputs,
        logits_processor=LogitsProcessorList([processor]),
        return_dict_in_generate=True,
        output_scores=True,
        **arguments,
    )


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_generation_never_leaves_the_collection(kind, search):
    model, tokenizer, inputs, prompt_length = tiny(kind)
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    processor = TitleTrieLogitsProcessor(trie, prompt_length)
    output = generate(model, inputs, processor, max_new_tokens=trie.max_depth, **search)
    leaves = trie.walk(output.sequences[:, prompt_length:])
    assert trie.is_leaf(leaves).all()
    returned = leaves.reshape(len(QUESTIONS), -1).tolist()
    if "num_beams" in search:
        assert (output.sequences_scores > FILLER_SCORE).all()
        assert all(len(set(row)) == 4 for row in returned)


def test_beam_search_with_sampling_is_refused_and_not_let_outside():
    model, tokenizer, inputs, prompt_length = tiny("llama")
    processor = TitleTrieLogitsProcessor(TitleTrie.from_titles(TITLES, tokenizer), prompt_length)
    with pytest.raises(RuntimeError, match="do_sample is not joined with beams"):
        generate(model, inputs, processor, do_sample=True, num_beams=4, max_new_tokens=20)


def log_probabilities(model, inputs, paths):
    """Plain sum of log-probabilities of each path for the first question, one forward for each."""
    sums = []
    for path in paths:
        target = torch.tensor([path])
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            logits = model(**inputs, decoder_input_ids=torch.cat([start, target[:, :-1]], 1)).logits
        else:
            logits = model(torch.cat([inputs["input_ids"], target[:, :-1]], 1)).logits[:, -len(path) :]
        sums.append(float(logits.log_softmax(-1)[0].gather(1, target.T).sum()))
    return sums


@pytest.mark.parametrize("kind", ["llama", "t5"])
@torch.no_grad()
def test_more_beams_than_titles_gives_every_title_once_with_its_score_and_marks_the_fillers(kind):
    model, tokenizer, _, _ = tiny(kind)
    inputs = tokenizer(QUESTIONS[:1], return_tensors="pt", return_token_type_ids=False)
    prompt_length = 1 if kind == "t5" else inputs["input_ids"].shape[1]
    titles = TITLES[:5]
    trie = TitleTrie.from_titles(titles, tokenizer)
    output = generate(
        model,
        inputs,
        TitleTrieLogitsProcessor(trie, prompt_length),
        num_beams=12,
        num_return_sequences=12,
        length_penalty=0.0,
        early_stopping="never",
        max_new_tokens=20,
    )
    real = output.sequences_scores > FILLER_SCORE
    assert int(real.sum()) == len(titles)
    leaves = trie.walk(output.sequences[real][:, prompt_length:]).tolist()
    found = [trie.rows(leaf)[0] for leaf in leaves]
    oracle = log_probabilities(model, inputs, encode_targets(tokenizer, titles))
    assert found == sorted(range(len(titles)), key=lambda row: -oracle[row])
    assert output.sequences_scores[real].tolist() == pytest.approx([oracle[row] for row in found], abs=1e-3)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_fillers_are_marked_under_every_length_penalty_and_stopping_rule(length_penalty, early_stopping):
    model, tokenizer, inputs, prompt_length = tiny("llama")
    trie = TitleTrie.from_titles(TITLES[:3], tokenizer)
    output = generate(
        model,
        inputs,
        TitleTrieLogitsProcessor(trie, prompt_length),
        num_beams=8,
        num_return_sequences=8,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        max_new_tokens=30,
    )
    leaves = trie.walk(output.sequences[:, prompt_length:]).reshape(len(QUESTIONS), -1)
    real = (output.sequences_scores > FILLER_SCORE).reshape(len(QUESTIONS), -1)
    for row in range(len(QUESTIONS)):
        assert sorted(trie.rows(leaf)[0] for leaf in leaves[row][real[row]].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_lists_hold_distinct_titles_of_the_collection(kind, search):
    model, tokenizer, inputs, prompt_length = tiny(kind)
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    separator = encode_targets(tokenizer, ["|"], add_eos=False)[0]
    processor = TitleTrieLogitsProcessor(trie, prompt_length, "list", separator, min_docids=3, max_docids=5)
    output = generate(model, inputs, processor, max_new_tokens=5 * trie.max_depth, **search)
    for written in output.sequences[:, prompt_length:].tolist():
        written = written[: written.index(tokenizer.eos_token_id)]
        titles = [
            list(group)
            for is_separator, group in itertools.groupby(written, key=lambda token: token == separator[0])
            if not is_separator
        ]
        leaves = [int(trie.walk(torch.tensor([title + [tokenizer.eos_token_id]]))[0]) for title in titles]
        assert all(trie.is_leaf(torch.tensor(leaves)).tolist())
        assert 3 <= len(leaves) <= 5 and len(set(leaves)) == len(leaves)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_list_of_the_whole_collection_ends_when_every_title_is_out(kind):
    model, tokenizer, inputs, prompt_length = tiny(kind)
    trie = TitleTrie.from_titles(TITLES[:5], tokenizer)
    separator = encode_targets(tokenizer, ["|"], add_eos=False)[0]
    processor = TitleTrieLogitsProcessor(trie, prompt_length, "list", separator, min_docids=50)
    output = generate(model, inputs, processor, max_new_tokens=5 * (trie.max_depth + 1))
    for written in output.sequences[:, prompt_length:].tolist():
        assert written[: written.index(tokenizer.eos_token_id)].count(separator[0]) == 4


@pytest.mark.parametrize("module", [modeling_mint.title_trie, modeling_mint.logits_process_mint])
def test_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
