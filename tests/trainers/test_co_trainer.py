import json
import re

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from modeling_mint import MintForConditionalGeneration, format_prompt
from tests.tiny import TITLES
from tests.trainers.conftest import ARGUMENTS
from trainers.blocks import load_json_lines, write_json_lines
from trainers.co_trainer import CoTrainer
from trainers.co_training_arguments import CoTrainingArguments
from trainers.confidence import ConfidenceArguments
from trainers.dev_scores import dev_scores
from trainers.evaluation import METRICS
from trainers.pseudo_samples import PARTNER
from trainers.role_models import AdapterModels, FullModels
from trainers.run_state import RunState

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
OPTIONS = {"k": 3, "num_beams": 4, "batch_size": 6, "max_new_tokens": 5}
LABELLED_ROWS = list(range(10, 20))
STEPS = ["generate_rag", "generate_gar", "calibrate", "filter", "train_rag", "train_gar", "judge", "report"]


@pytest.fixture(params=["llama", pytest.param("t5", marks=pytest.mark.slow)])
def kind(request):
    """Kind of backbone: the steps and their files are the same for both."""
    return request.param


class NotedModels(FullModels):
    """Full models that note what each training was given, and then train as ever."""

    def __init__(self, processor):
        super().__init__("no backbone is asked for", processor)
        self.trainings = []

    def train(self, role, start, examples, output_dir, arguments, **options):
        self.trainings.append((role, start, examples, arguments))
        return super().train(role, start, examples, output_dir, arguments, **options)


@pytest.fixture
def models(processor):
    return NotedModels(processor)


@pytest.fixture
def co_trainer(models, model_folders, processor, make_samples, tmp_path):
    """Makes a co-trainer in the same folder each time; keywords override its rounds."""

    def make(training=(), keep=(), role_models=models, warm_up=model_folders, validation=(2, 5), **rounds):
        return CoTrainer(
            role_models,
            warm_up,
            processor,
            labelled=make_samples(LABELLED_ROWS),
            validation=make_samples(validation),
            unlabelled_rows=list(range(20, 40)),
            output_dir=tmp_path / "co-training",
            training_arguments=ARGUMENTS | dict(training),
            arguments=CoTrainingArguments(**{"documents_per_iteration": 6, "block_size": 4} | rounds),
            confidence=ConfidenceArguments(**{"keep_fraction": 0.5, "max_round_trip_rank": 0} | dict(keep)),
            inference_options=OPTIONS,
            seed=3,
        )

    return make


@pytest.fixture
def plant(make_sample, tmp_path):
    """Puts an iteration's steps, up to the filter or to the end, into the folder as an earlier run leaves them."""

    def put(trainer, iteration, kept=(), dev_score=None):
        """`kept`: `{writer: [kept flag of each sample]}`; `dev_score`: of both roles."""
        state = RunState(trainer.output_dir, trainer.settings())
        folder = trainer.output_dir / f"iteration-{iteration}"
        folder.mkdir(exist_ok=True)
        for writer, flags in dict(kept).items():
            samples = [
                make_sample(20 + i, writer, id=f"{writer}-{iteration}-{20 + i}", kept=flag, confidence={"score": 0.5})
                for i, flag in enumerate(flags)
            ]
            write_json_lines(folder / f"{writer}_samples.jsonl", samples)
        steps = STEPS[:4] if iteration else []
        if dev_score is not None:
            steps = STEPS if iteration else STEPS[6:]
        scores = dict.fromkeys(METRICS, 0.0) | {"r_precision": dev_score, "answer_temperature": 1.0}
        models = dict.fromkeys(PARTNER, iteration)
        scores = dict.fromkeys(PARTNER, scores)
        for step in steps:
            result = {"train_rag": {"model": iteration, "losses": {}}, "train_gar": {"model": iteration, "losses": {}}}
            result |= dict.fromkeys(["judge", "report"], {"iteration": iteration, "models": models})
            state.finish(iteration, step, result.get(step, {}) | ({"dev_scores": scores} if step in STEPS[6:] else {}))

    return put


def learnt(examples, component):
    """The distinct queries behind the examples of a component, by their retrieval prompts."""
    prompts = {
        tuple(example["prompt_ids"])
        for example in examples
        if example["component"] == component and example["task"] in ("query_to_docid", "query_answer_to_docid")
    }
    return prompts


def prompts_of(samples, role, processor):
    """The retrieval prompts that a role learns of samples."""
    if role == "rag":
        texts = [format_prompt("query_to_docid", query=sample["query"]) for sample in samples]
    else:
        texts = [
            format_prompt("query_answer_to_docid", query=sample["query"], answer=sample["answers"][0])
            for sample in samples
        ]
    return {tuple(processor.encode_example(text, ("Paris",))[0]) for text in texts}


RETRIEVAL, EXCHANGE = 0, 3


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_one_round_trains_each_model_on_what_its_partner_wrote(co_trainer, models, model_folders, processor, tmp_path):
    result = co_trainer(max_dev_drop=1.0).run()
    folder = tmp_path / "co-training" / "iteration-1"
    written = {role: load_json_lines(folder / f"{role}_samples.jsonl") for role in PARTNER}
    for role, samples in written.items():
        assert len(samples) == 6 and {sample["source"] for sample in samples} == {role}
    assert written["rag"][0]["provenance"] == written["gar"][0]["provenance"]
    assert [(role, start) for role, start, _, _ in models.trainings] == list(model_folders.items())
    for role, _, examples, arguments in models.trainings:
        kept = [sample for sample in written[PARTNER[role]] if sample["kept"]]
        assert len(kept) == 3 and arguments["seed"] == 4
        assert learnt(examples, EXCHANGE) == prompts_of(kept, role, processor)
        assert len(learnt(examples, RETRIEVAL)) == 3  # labelled_share is one half
        assert MintForConditionalGeneration.from_pretrained(folder / f"mint-{role}").config.role == role
    first, second = result["iterations"]
    assert first["iteration"] == 0 and first["models"] == {role: str(path) for role, path in model_folders.items()}
    assert second["models"] == {role: str(folder / f"mint-{role}") for role in PARTNER}
    assert second["dev_scores"] == json.loads((folder / "dev_scores.json").read_text())
    assert second["kept"] == {"rag": 3, "gar": 3} and second["warnings"] == []
    assert {path.name for path in folder.glob("report.*")} == {"report.json", "report.md", "report.png"}


def test_labelled_queries_are_asked_of_unlabelled_documents_and_the_models_reply(co_trainer, models, tmp_path):
    co_trainer(query_source="labelled", max_dev_drop=1.0).run()
    for role, _, examples, _ in models.trainings:
        exchanged = {example["task"] for example in examples if example["component"] == EXCHANGE}
        assert exchanged == {{"rag": "query_to_docid", "gar": "query_answer_to_docid"}[role]}
    folder = tmp_path / "co-training" / "iteration-1"
    written = {role: load_json_lines(folder / f"{role}_samples.jsonl") for role in PARTNER}
    for samples in written.values():
        assert len(samples) == 6 and len({sample["id"] for sample in samples}) == 6
        for sample in samples:
            (title,) = sample["provenance"][0]
            assert TITLES.index(title) in range(20, 40)
            assert re.fullmatch(rf"what stands under entry 1\d about {re.escape(title)}\?", sample["query"], re.I)
    assert [one["query"] for one in written["rag"]] == [one["query"] for one in written["gar"]]
    assert [one["docids"] for one in written["rag"]] != [one["docids"] for one in written["gar"]]
    with pytest.raises(ValueError, match="`query_source` is 'asked'"):
        co_trainer(query_source="asked")


def test_the_dev_scores_are_those_of_the_models_on_all_samples(co_trainer, processor, make_samples, tmp_path):
    trainer = co_trainer(validation=[2, 5, 7, 9, 11], max_dev_drop=1.0)
    report = trainer.run()["iterations"][1]
    for role, folder in report["models"].items():
        model = MintForConditionalGeneration.from_pretrained(folder)
        samples = make_samples([2, 5, 7, 9, 11])
        expected = dev_scores(samples, processor, model, role, tmp_path / role, **OPTIONS)
        assert report["dev_scores"][role] == pytest.approx(expected)


def test_two_adapters_on_one_base_teach_each_other(co_trainer, make_model, processor, examples, tmp_path):
    make_model(seed=6).save_pretrained(tmp_path / "base")
    models = AdapterModels(tmp_path / "base", processor, LORA)
    warm_up = {role: tmp_path / f"adapter-{role}" for role in PARTNER}
    for role, folder in warm_up.items():
        models.train(role, None, examples, folder, {**ARGUMENTS})
    result = co_trainer(role_models=models, warm_up=warm_up, max_dev_drop=1.0).run()
    for role, folder in result["iterations"][1]["models"].items():
        trained = load_file(f"{folder}/adapter_model.safetensors")
        assert not same_weights(trained, load_file(warm_up[role] / "adapter_model.safetensors"))
    assert result["iterations"][1]["kept"] == {"rag": 3, "gar": 3}


def test_a_finished_run_is_not_run_again(co_trainer, models, tmp_path):
    result = co_trainer().run()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "co-training").rglob("*")}
    assert co_trainer().run() == result
    assert len(models.trainings) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "co-training").rglob("*")} == times


def test_a_run_may_be_given_more_iterations_and_no_other_settings(co_trainer, models):
    first = co_trainer(patience=5).run()
    second = co_trainer(patience=5, max_iterations=2).run()
    assert second["iterations"][:2] == first["iterations"] and len(second["iterations"]) == 3
    assert len(models.trainings) == 4
    with pytest.raises(ValueError, match="arguments.labelled_share: 0.5 then, 0.25 now"):
        co_trainer(labelled_share=0.25).run()
    with pytest.raises(ValueError, match="data.validation: "):
        co_trainer(validation=[2, 6]).run()


def test_a_run_goes_on_by_micro_batches_of_another_size_but_by_no_other_step(co_trainer, models):
    size = ARGUMENTS["per_device_train_batch_size"]
    first = co_trainer().run()
    halves = {"per_device_train_batch_size": size // 2, "gradient_accumulation_steps": 2}
    assert co_trainer(training=halves).run() == first
    with pytest.raises(ValueError, match=f"training.examples_per_step: {size} then, {2 * size} now"):
        co_trainer(training={"gradient_accumulation_steps": 2}).run()


def test_only_kept_samples_are_exchanged(co_trainer, plant, models, make_sample, processor):
    plant(co_trainer(), 0, dev_score=0.0)
    plant(co_trainer(), 1, {"rag": [True, False, True, False], "gar": [False, False, True, False]})
    report = co_trainer().run()["iterations"][1]
    taken = {role: learnt(examples, EXCHANGE) for role, _, examples, _ in models.trainings}
    assert taken["gar"] == prompts_of([make_sample(20), make_sample(22)], "gar", processor)
    assert taken["rag"] == prompts_of([make_sample(22)], "rag", processor)
    assert report["kept"] == {"rag": 2, "gar": 1}


@pytest.mark.parametrize("rounds, pseudo", [({}, 4), ({"max_pseudo_ratio": 0.2}, 2)])
def test_partners_samples_are_capped_at_their_ratio_to_labelled_ones(co_trainer, plant, models, rounds, pseudo):
    plant(co_trainer(**rounds), 0, dev_score=0.0)
    plant(co_trainer(**rounds), 1, {"rag": [True] * 4, "gar": [True] * 4})
    co_trainer(**rounds).run()
    assert [len(learnt(examples, EXCHANGE)) for _, _, examples, _ in models.trainings] == [pseudo, pseudo]


def test_the_best_iteration_is_returned_and_patience_stops(co_trainer, plant, tmp_path):
    trainer = co_trainer(max_iterations=10, patience=2)
    for iteration, score in enumerate([0.2, 0.5, 0.4, 0.5]):
        plant(trainer, iteration, dev_score=score)
    result = trainer.run()
    assert len(result["iterations"]) == 4 and result["best_iteration"] == 1
    best = tmp_path / "co-training" / "iteration-1"
    assert result["models"] == {role: str(best / f"mint-{role}") for role in PARTNER}


def test_the_warmed_up_models_are_the_best_when_nothing_is_better(co_trainer, plant, model_folders):
    for iteration, score in enumerate([0.5, 0.5]):
        plant(co_trainer(), iteration, dev_score=score)
    result = co_trainer().run()
    assert result["best_iteration"] == 0
    assert result["models"] == {role: str(folder) for role, folder in model_folders.items()}


@pytest.mark.parametrize("restart", [False, True])
def test_an_iteration_continues_or_restarts_with_all_kept_samples(
    co_trainer, plant, models, make_model, model_folders, make_sample, processor, restart, tmp_path
):
    rounds = {"max_iterations": 2, "restart_from_warm_up": restart}
    flags = {"rag": [True, False, False], "gar": [False, True, False]}
    plant(co_trainer(**rounds), 0, dev_score=0.0)
    plant(co_trainer(**rounds), 1, flags, dev_score=0.1)
    later = {"rag": [False, False, True], "gar": [False, False, True]}
    plant(co_trainer(**rounds), 2, later)
    last = {role: tmp_path / "co-training" / "iteration-1" / f"mint-{role}" for role in PARTNER}
    for role, folder in last.items():
        make_model(role, 7).save_pretrained(folder)
    co_trainer(**rounds).run()
    earlier = {"rag": 21, "gar": 20}
    for role, start, examples, _ in models.trainings:
        rows = [earlier[role], 22] if restart else [22]
        assert start == (model_folders if restart else last)[role]
        assert learnt(examples, EXCHANGE) == prompts_of([make_sample(row) for row in rows], role, processor)


def test_each_iteration_draws_its_own_documents(co_trainer, tmp_path):
    co_trainer(max_iterations=2, patience=3).run()
    sources = [
        [sample["provenance"] for sample in load_json_lines(path)]
        for path in sorted((tmp_path / "co-training").glob("iteration-*/rag_samples.jsonl"))
    ]
    assert len(sources) == 2 and sources[0] != sources[1]


# The guards, each provoked.


def test_a_model_whose_partner_kept_nothing_stays_and_the_report_says_so(co_trainer, models, model_folders, caplog):
    result = co_trainer(keep={"keep": "threshold", "keep_threshold": 1.0}).run()
    report = result["iterations"][1]
    assert models.trainings == []
    assert report["models"] == {role: str(folder) for role, folder in model_folders.items()}
    assert report["dev_scores"] == result["iterations"][0]["dev_scores"]
    expected = [f"No sample of {PARTNER[role]} was kept: {role} stays as it is." for role in PARTNER]
    assert report["warnings"] == expected
    assert all(warning in caplog.text for warning in expected)


def test_a_filter_that_keeps_all_is_said(co_trainer, tmp_path, caplog):
    report = co_trainer(keep={"keep_fraction": 1.0}).run()["iterations"][1]
    expected = [f"All 6 samples of {role} were kept: the filter told nothing apart." for role in PARTNER]
    assert report["warnings"][:2] == expected and expected[0] in caplog.text
    written = json.loads((tmp_path / "co-training" / "iteration-1" / "report.json").read_text())
    assert written["warnings"] == report["warnings"]


def test_a_training_that_goes_to_nan_is_rolled_back(co_trainer, model_folders, caplog):
    result = co_trainer({"learning_rate": 1e38, "max_steps": 3}).run()
    report = result["iterations"][1]
    assert report["models"] == {role: str(folder) for role, folder in model_folders.items()}
    assert report["losses"] == {"rag": {}, "gar": {}}
    assert [warning.split(":")[0] for warning in report["warnings"]] == [
        f"The training of {role} went to NaN or infinity" for role in PARTNER
    ]
    assert report["warnings"][0] in caplog.text


def test_a_collapsed_model_is_rolled_back_to_its_best_and_goes_on_from_there(
    co_trainer, models, model_folders, make_samples, processor, caplog
):
    """The dev samples ask for what the warmed-up RAG happens to find, which an absurd learning rate forgets."""
    model = MintForConditionalGeneration.from_pretrained(model_folders["rag"])
    queries = make_samples(range(40))["query"]
    found = model.retrieve(queries, processor, k=3, num_beams=4).rows
    right = [row for row in range(40) if found[row][0] == row]
    assert right, "the random model finds nothing at all"
    rounds = {"max_iterations": 2, "patience": 5, "max_dev_drop": 0.3}
    training = {"learning_rate": 0.5, "max_steps": 5}
    result = co_trainer(training, validation=right, **rounds).run()
    first, second, _ = result["iterations"]
    assert first["dev_scores"]["rag"]["r_precision"] == 1.0
    assert second["models"]["rag"] == str(model_folders["rag"])
    assert second["dev_scores"]["rag"] == first["dev_scores"]["rag"]
    (warning,) = [warning for warning in second["warnings"] if "dev score of rag" in warning]
    assert "collapsed from 1.000 to" in warning and "rolled back to iteration 0" in warning and warning in caplog.text
    starts = [start for role, start, _, _ in models.trainings if role == "rag"]
    assert set(starts) == {model_folders["rag"]}
    assert result["models"]["rag"] == str(model_folders["rag"])


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"labelled_share": 1.0}, r"`labelled_share` is 1.0; it must lie in \[0, 1\)"),
        ({"patience": 0}, "`patience` is 0; it must be at least 1"),
        ({"max_pseudo_ratio": 0.0}, "`max_pseudo_ratio` is 0.0; it must be above 0"),
        ({"weighting": "cubic"}, "`weighting` is 'cubic'; it must be one of"),
        ({"dev_metric": "luck"}, "`dev_metric` is 'luck'; it must be one of"),
        ({"max_dev_drop": -0.1}, "`max_dev_drop` is -0.1; it must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        CoTrainingArguments(**bad)
