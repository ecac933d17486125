import pytest
from datasets import Dataset

from dataset_builders.features import SAMPLE_FEATURES
from modeling_mint import format_prompt
from tests.tiny import TITLES
from trainers.metrics.kilt_downstream.kilt_downstream import answer_f1
from trainers.pseudo_samples import write_samples

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
        partner = "gar" if writer_role == "rag" else "rag"
        return write_samples(models[writer_role], models[partner], ROWS, processor, 3, **OPTIONS, **options)

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
    partner = models["gar" if writer_role == "rag" else "rag"]
    options = OPTIONS | {"k": len(TITLES), "num_beams": len(TITLES)}
    samples = write_samples(models[writer_role], partner, ROWS, processor, 1, **options)
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


def test_the_seed_decides_the_queries(write):
    first, again, other = (write(temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [sample["query"] for sample in first] != [sample["query"] for sample in other]


def test_greedy_queries_need_no_seed(write):
    assert write(seed=1) == write(seed=2)
