import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint import format_prompt
from tests.tiny import TITLES
from trainers.metrics.kilt_downstream.kilt_downstream import answer_f1
from trainers.pseudo_samples import PARTNER, labelled_signals, write_samples

ROWS = [2, 5, 16, 30]
OPTIONS = {"k": 5, "num_beams": 6, "batch_size": 4, "max_new_tokens": 6}


@pytest.fixture(params=["rag", "gar"])
def writer_role(request):
    return request.param


@pytest.fixture
def models(make_model):
    return {"rag": make_model("rag", 0), "gar": make_model("gar", 1)}


@pytest.fixture
def write(models, writer_role, processor):
    def run(**options):
        pair = models[writer_role], models[PARTNER[writer_role]]
        return write_samples(*pair, ROWS, processor, 3, role=writer_role, **OPTIONS, **options)

    return run


def test_every_document_gives_one_sample_of_the_common_schema(write, writer_role, processor):
    samples = write()
    columns = Dataset.from_list(samples, features=SAMPLE_FEATURES)
    assert columns["id"][:] == [f"{writer_role}-3-{row}" for row in ROWS]
    assert columns["provenance"][:] == [[[TITLES[row]]] for row in ROWS]
    assert columns["passage"][:] == [text for _, text in processor.context(ROWS)]
    assert set(columns["source"]) == {writer_role} and set(columns["iteration"]) == {3}
    for sample in samples:
        assert set(sample) == set(SAMPLE_FEATURES)
        assert len(sample["docids"]) == OPTIONS["k"] == len(set(sample["rows"]))
        assert [TITLES[row] for row in sample["rows"]] == sample["docids"]
        assert [name for name, value in sample["confidence"].items() if value is None] == ["score"]


def test_the_round_trip_is_the_place_of_the_source_among_the_docids(write):
    for row, sample in zip(ROWS, write(), strict=True):
        expected = sample["docids"].index(TITLES[row]) + 1 if TITLES[row] in sample["docids"] else 0
        assert sample["confidence"]["round_trip_rank"] == expected


def test_a_source_among_the_docids_has_its_rank(models, writer_role, processor):
    """With as many docids as titles every source is found, at different ranks."""
    partner = models[PARTNER[writer_role]]
    options = OPTIONS | {"k": len(TITLES), "num_beams": len(TITLES)}
    samples = write_samples(models[writer_role], partner, ROWS, processor, 1, role=writer_role, **options)
    ranks = [sample["confidence"]["round_trip_rank"] for sample in samples]
    assert ranks == [sample["rows"].index(row) + 1 for row, sample in zip(ROWS, samples, strict=True)]
    assert len(set(ranks)) > 1


def test_the_docid_probability_is_that_of_the_docid_after_its_prompt(
    write, models, writer_role, processor, token_losses
):
    for sample in write():
        if writer_role == "rag":
            prompt = format_prompt("query_to_docid", query=sample["query"])
        else:
            prompt = format_prompt("query_answer_to_docid", query=sample["query"], answer=sample["answers"][0])
        prompt_ids, target_ids = processor.encode_example(prompt, sample["docids"][:1])
        losses = token_losses(models[writer_role], {"prompt_ids": prompt_ids, "target_ids": target_ids})
        assert sample["confidence"]["docid_log_prob"] == pytest.approx(-losses.mean().item(), abs=1e-4)


def test_the_answer_is_the_writers_own_after_what_it_retrieved(write, models, writer_role, processor):
    samples = write()
    context = [sample["rows"][:2] for sample in samples] if writer_role == "rag" else None
    queries = [sample["query"] for sample in samples]
    written = models[writer_role].answer(queries, processor, context, max_new_tokens=6)
    assert [sample["answers"] for sample in samples] == [[text] for text in written.texts]
    log_probs = [sample["confidence"]["answer_log_prob"] for sample in samples]
    assert log_probs == pytest.approx(written.log_probs, abs=1e-4)


def test_agreement_is_with_what_the_partner_makes_of_the_query(write, models, writer_role, processor):
    samples = write()
    queries = [sample["query"] for sample in samples]
    search = {"k": OPTIONS["k"], "num_beams": OPTIONS["num_beams"]}
    if writer_role == "rag":
        answers = models["gar"].answer(queries, processor, max_new_tokens=6).texts
        found = models["gar"].retrieve(queries, processor, answers=answers, **search)
    else:
        found = models["rag"].retrieve(queries, processor, **search)
        context = [rows[:2] for rows in found.rows]
        answers = models["rag"].answer(queries, processor, context, max_new_tokens=6).texts
    for sample, rows, answer in zip(samples, found.rows, answers, strict=True):
        first = sample["rows"][0]
        expected = 1 / (rows.index(first) + 1) if first in rows else 0.0
        assert sample["confidence"]["docid_agreement"] == expected
        assert sample["confidence"]["answer_agreement"] == answer_f1(sample["answers"][0], answer)


def test_without_a_partner_only_the_agreements_are_missing(write, models, writer_role, processor):
    alone = write_samples(models[writer_role], None, ROWS, processor, 3, role=writer_role, **OPTIONS)
    for sample, asked in zip(alone, write(), strict=True):
        without = asked["confidence"] | {"docid_agreement": None, "answer_agreement": None}
        assert sample == asked | {"confidence": without}


def test_the_seed_alone_decides_the_queries(write):
    first, other = (write(temperature=1.0, seed=seed) for seed in (1, 2))
    torch.rand(11)
    assert write(temperature=1.0, seed=1) == first
    assert [sample["query"] for sample in first] != [sample["query"] for sample in other]


def test_queries_that_are_given_are_not_written_anew(write):
    written = write()
    given = write(queries=[sample["query"] for sample in written], temperature=1.0)
    assert given == [sample | {"passage": ""} for sample in written]
    given = [f"about entry {row}" for row in ROWS]
    assert [sample["query"] for sample in write(queries=given)] == given


def test_greedy_queries_need_no_seed(write):
    assert write(seed=1) == write(seed=2)


def test_one_object_with_two_adapters_writes_what_two_models_with_them_write(
    make_model, writer_role, processor, tmp_path
):
    """Whatever role it has at the time, and it may be asked for one after the other."""
    base = tmp_path / "base"
    make_model().save_pretrained(base)
    folders = {}
    for seed, role in enumerate(PARTNER):
        folders[role] = tmp_path / role
        torch.manual_seed(seed)
        lora = LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(type(make_model()).from_pretrained(base), lora)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(folders[role])
        make_model(role).config.save_pretrained(folders[role])
    alone = {role: type(make_model()).from_pretrained(folder) for role, folder in folders.items()}
    both = type(make_model()).from_pretrained(base)
    both.load_roles(folders)

    def write(model, partner):
        options = OPTIONS | {"temperature": 1.0, "role": writer_role}
        return write_samples(model, partner, ROWS, processor, 1, **options)

    expected = write(alone[writer_role], alone[PARTNER[writer_role]])
    assert len({sample["answers"][0] for sample in expected}) > 1
    for role in PARTNER:
        both.set_role(role)
        assert write(both, both) == expected


def test_labelled_queries_give_the_signals_but_the_round_trip(models, writer_role, processor, make_samples):
    labelled = make_samples([2, 16, 30])
    pair = models[writer_role], models[PARTNER[writer_role]]
    replies = labelled_signals(*pair, labelled, processor, role=writer_role, **OPTIONS)
    Dataset.from_list(replies, features=SAMPLE_FEATURES)
    for sample, reply in zip(labelled, replies, strict=True):
        assert reply["id"] == sample["id"] and reply["query"] == sample["query"]
        assert reply["provenance"] == sample["provenance"] and reply["source"] == writer_role
        missing = [name for name, value in reply["confidence"].items() if value is None]
        assert missing == ["round_trip_rank", "score"]
    queries = labelled["query"][:]
    answers = models["gar"].answer(queries, processor, max_new_tokens=6).texts if writer_role == "gar" else None
    found = models[writer_role].retrieve(queries, processor, answers=answers, k=5, num_beams=6)
    assert [reply["docids"] for reply in replies] == found.docids
