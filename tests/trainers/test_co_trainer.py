import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

import trainers.co_trainer
from modeling_mint import MintForConditionalGeneration
from trainers.co_trainer import PARTNER, CoTrainer, CoTrainingArguments, read_samples
from trainers.confidence import ConfidenceArguments
from trainers.evaluation import METRICS
from trainers.training_stage import TRAINING_LOG_NAME

LORA = LoraConfig(r=4, target_modules=r".*\.(q_proj|v_proj|q|v)")
OPTIONS = {"k": 3, "num_beams": 4, "batch_size": 6, "max_new_tokens": 5}
LABELLED_ROWS = list(range(10, 20))


@pytest.fixture
def co_trainer(model_folders, processor, make_samples, training_arguments, tmp_path):
    """Makes a co-trainer in the same folder each time; keywords override its settings."""

    def make(training=(), peft_config=None, keep_fraction=0.5, **rounds):
        arguments = {name: value for name, value in training_arguments.items() if name != "output_dir"}
        return CoTrainer(
            model_folders,
            processor,
            labelled=make_samples(LABELLED_ROWS),
            validation=make_samples([2, 5]),
            unlabelled_rows=list(range(20, 40)),
            output_dir=tmp_path / "co-training",
            training_arguments=arguments | dict(training),
            arguments=CoTrainingArguments(**{"documents_per_iteration": 6} | rounds),
            confidence=ConfidenceArguments(keep_fraction=keep_fraction, max_round_trip_rank=0),
            peft_config=peft_config,
            inference_options=OPTIONS,
            seed=3,
        )

    return make


@pytest.fixture
def trained_on(monkeypatch):
    """`[(role, samples)]` in the order in which exchange trainings took them; the training itself goes on as ever."""
    taken, tokenize_examples = [], trainers.co_trainer.tokenize_examples

    def record(samples, role, *args, **kwargs):
        taken.append((role, samples.to_list()))
        return tokenize_examples(samples, role, *args, **kwargs)

    monkeypatch.setattr(trainers.co_trainer, "tokenize_examples", record)
    return taken


@pytest.fixture
def make_iteration(make_sample, tmp_path):
    """Puts results of an iteration into the folder, as an earlier run would have left them."""

    def make(iteration, kept=(), dev_score=None):
        """`kept`: `{writer: [kept flag of each sample]}`."""
        folder = tmp_path / "co-training" / f"iteration-{iteration}"
        folder.mkdir(parents=True)
        for writer, flags in dict(kept).items():
            samples = [
                make_sample(20 + i, writer, id=f"{writer}-{iteration}-{20 + i}", kept=flag, confidence={"score": 0.5})
                for i, flag in enumerate(flags)
            ]
            lines = [json.dumps(sample) + "\n" for sample in samples]
            (folder / f"{writer}_samples.jsonl").write_text("".join(lines))
        if dev_score is not None:
            scores = dict.fromkeys(METRICS, 0.0) | {"r_precision": dev_score, "answer_temperature": 1.0}
            (folder / "dev_scores.json").write_text(json.dumps({"rag": scores, "gar": scores}))
        return folder

    return make


def ids(samples, source):
    return [sample["id"] for sample in samples if sample["source"] == source]


def snapshot(folder):
    """Everything an iteration left: texts as they are, weights as tensors."""
    texts = {path.name: path.read_text() for path in folder.glob("*.json*")}
    weights = {role: load_file(folder / f"mint-{role}" / "model.safetensors") for role in ("rag", "gar")}
    return texts, weights


def assert_same_iteration(one, other):
    assert one[0] == other[0]
    for role, weights in one[1].items():
        assert weights.keys() == other[1][role].keys()
        assert all(torch.equal(weights[name], other[1][role][name]) for name in weights), role


def test_one_round_trains_each_model_on_what_its_partner_wrote(co_trainer, trained_on, tmp_path):
    result = co_trainer().run()
    folder = tmp_path / "co-training" / "iteration-1"
    written = {role: read_samples(folder / f"{role}_samples.jsonl") for role in ("rag", "gar")}
    for role, samples in written.items():
        assert len(samples) == 6 and {sample["source"] for sample in samples} == {role}
    assert [role for role, _ in trained_on] == ["rag", "gar"]
    for role, samples in trained_on:
        kept = [sample["id"] for sample in written[PARTNER[role]] if sample["kept"]]
        assert kept and {sample["source"] for sample in samples} == {PARTNER[role], "labelled"}
        assert ids(samples, PARTNER[role]) == kept
        assert len(ids(samples, "labelled")) == len(kept)  # labelled_share is one half
        assert MintForConditionalGeneration.from_pretrained(folder / f"mint-{role}").config.role == role
    assert [report["iteration"] for report in result["iterations"]] == [0, 1]


def test_the_round_is_reported_as_its_files_have_it(co_trainer, tmp_path):
    report = co_trainer().run()["iterations"][1]
    folder = tmp_path / "co-training" / "iteration-1"
    for role in ("rag", "gar"):
        samples = read_samples(folder / f"{role}_samples.jsonl")
        kept = [sample for sample in samples if sample["kept"]]
        right = [sample for sample in samples if [sample["docids"][:1]] == sample["provenance"]]
        assert (report["samples"][role], report["kept"][role]) == (6, len(kept))
        assert report["precision"][role]["written"] == pytest.approx(len(right) / 6)
        expected = sum(sample in right for sample in kept) / len(kept)
        assert report["precision"][role]["kept"] == pytest.approx(expected)
    assert report["dev_scores"] == json.loads((folder / "dev_scores.json").read_text())


def test_only_kept_samples_are_exchanged(co_trainer, make_iteration, trained_on):
    make_iteration(1, {"rag": [True, False, True, False], "gar": [False, False, True, False]})
    report = co_trainer().run()["iterations"][1]
    taken = dict(trained_on)
    assert ids(taken["gar"], "rag") == ["rag-1-20", "rag-1-22"]
    assert ids(taken["rag"], "gar") == ["gar-1-22"]
    assert report["kept"] == {"rag": 2, "gar": 1}


@pytest.mark.parametrize("share, labelled", [(0.0, 0), (0.75, 6), (0.95, len(LABELLED_ROWS))])
def test_labelled_samples_are_mixed_in_at_their_share(co_trainer, make_iteration, trained_on, share, labelled):
    """Two kept samples: a share of 0.75 takes six labelled ones, 0.95 would take 38 and there are ten."""
    make_iteration(1, {"rag": [True, True], "gar": [True, True]})
    co_trainer(labelled_share=share).run()
    assert [len(ids(samples, "labelled")) for _, samples in trained_on] == [labelled] * 2


def test_a_model_whose_partner_kept_nothing_stays(co_trainer, make_iteration, model_folders, trained_on, tmp_path):
    make_iteration(0, dev_score=0.1)
    folder = make_iteration(1, {"rag": [False, False], "gar": [True, False]}, dev_score=0.2)
    result = co_trainer().run()
    assert [role for role, _ in trained_on] == ["rag"]
    assert result["models"] == {"rag": str(folder / "mint-rag"), "gar": str(model_folders["gar"])}
    assert result["iterations"][1]["precision"]["rag"] == {"written": 1.0, "kept": None}


def test_the_best_iteration_is_returned_and_patience_stops(co_trainer, make_iteration, tmp_path):
    for iteration, score in enumerate([0.2, 0.5, 0.4, 0.5, 0.9]):
        make_iteration(iteration, {"rag": [True], "gar": [True]}, dev_score=score)
    result = co_trainer(max_iterations=10, patience=2).run()
    assert [report["iteration"] for report in result["iterations"]] == [0, 1, 2, 3]
    assert result["best_iteration"] == 1
    best = tmp_path / "co-training" / "iteration-1"
    assert result["models"] == {role: str(best / f"mint-{role}") for role in ("rag", "gar")}


def test_the_warmed_up_models_are_the_best_when_nothing_is_better(co_trainer, make_iteration, model_folders):
    for iteration, score in enumerate([0.5, 0.5]):
        make_iteration(iteration, {"rag": [True], "gar": [True]}, dev_score=score)
    result = co_trainer().run()
    assert result["best_iteration"] == 0
    assert result["models"] == {role: str(folder) for role, folder in model_folders.items()}


def test_the_chosen_metric_decides(co_trainer, make_iteration):
    for iteration, score in enumerate([0.5, 0.1]):
        folder = make_iteration(iteration, {"rag": [True], "gar": [True]}, dev_score=score)
        scores = json.loads((folder / "dev_scores.json").read_text())
        for role in scores:
            scores[role]["kilt_em"] = 1 - score
        (folder / "dev_scores.json").write_text(json.dumps(scores))
    assert co_trainer(max_iterations=1).run()["best_iteration"] == 0
    assert co_trainer(max_iterations=1, dev_metric="kilt_em").run()["best_iteration"] == 1


@pytest.mark.parametrize("restart", [False, True])
def test_an_iteration_continues_or_restarts_with_all_kept_samples(
    co_trainer, make_iteration, make_model, model_folders, trained_on, restart
):
    """With a learning rate of 0 a trained model shows where its training started."""
    flags = {"rag": [True, False], "gar": [False, True]}
    for iteration in (0, 1, 2):
        folder = make_iteration(iteration, flags, dev_score=0.1 * iteration)
        if iteration == 1:
            for role in ("rag", "gar"):
                make_model(role, seed=7).save_pretrained(folder / f"mint-{role}")
                (folder / f"mint-{role}" / TRAINING_LOG_NAME).write_text("[]")
    result = co_trainer({"learning_rate": 0.0}, max_iterations=2, restart_from_warm_up=restart).run()
    earlier = {"rag": ["gar-1-21"], "gar": ["rag-1-20"]} if restart else {"rag": [], "gar": []}
    newest = {"rag": ["gar-2-21"], "gar": ["rag-2-20"]}
    assert [role for role, _ in trained_on] == ["rag", "gar"]
    for role, samples in trained_on:
        assert ids(samples, PARTNER[role]) == earlier[role] + newest[role]
        start = model_folders[role] if restart else folder.with_name("iteration-1") / f"mint-{role}"
        expected = MintForConditionalGeneration.from_pretrained(start).get_input_embeddings().weight
        trained = MintForConditionalGeneration.from_pretrained(result["models"][role]).get_input_embeddings().weight
        assert torch.equal(trained, expected.bfloat16())


def test_each_iteration_draws_its_own_documents_for_both_writers(co_trainer, tmp_path):
    co_trainer(max_iterations=2, patience=3).run()
    sources = []
    for folder in sorted((tmp_path / "co-training").glob("iteration-[12]")):
        rag, gar = (read_samples(folder / f"{role}_samples.jsonl") for role in ("rag", "gar"))
        sources.append([sample["provenance"] for sample in rag])
        assert sources[-1] == [sample["provenance"] for sample in gar]
    assert sources[0] != sources[1]


@pytest.mark.parametrize(
    "lost",
    [("gar_samples.jsonl",), ("mint-gar", "dev_scores.json"), ("rag_samples.jsonl", "mint-rag", "dev_scores.json")],
    ids=lambda names: "+".join(names),
)
def test_a_run_takes_what_is_there_and_makes_the_rest_again(co_trainer, tmp_path, lost):
    folder = tmp_path / "co-training" / "iteration-1"
    result = co_trainer(peft_config=LORA).run()
    whole = snapshot(folder)
    left = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name not in lost}
    for path in (folder / name for name in lost):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    torch.rand(11)
    assert co_trainer(peft_config=LORA).run() == result
    assert_same_iteration(snapshot(folder), whole)
    assert {path: path.stat().st_mtime_ns for path in left} == left


def test_a_labelled_share_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"`labelled_share` is 1.0; it must lie in \[0, 1\)"):
        CoTrainingArguments(labelled_share=1.0)


CO_TRAINING = """
import json, sys
from datasets import load_from_disk
from modeling_mint import MintProcessor
from peft import LoraConfig
from trainers.co_trainer import CoTrainer, CoTrainingArguments
from trainers.confidence import ConfidenceArguments

source, target, arguments, options = sys.argv[1:]
processor = MintProcessor.from_pretrained(source, collection=load_from_disk(source + "/collection"))
CoTrainer(
    {role: f"{source}/../warm-{role}" for role in ("rag", "gar")},
    processor,
    labelled=load_from_disk(source + "/labelled"),
    validation=load_from_disk(source + "/validation"),
    unlabelled_rows=list(range(20, 40)),
    output_dir=target,
    training_arguments=json.loads(arguments),
    arguments=CoTrainingArguments(documents_per_iteration=6),
    confidence=ConfidenceArguments(max_round_trip_rank=0),
    peft_config=LoraConfig(r=4, target_modules=r".*[.](q_proj|v_proj|q|v)"),
    inference_options=json.loads(options),
    seed=3,
).run()
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_samples_and_scores_of_one_left_alone(
    model_folders, processor, make_samples, training_arguments, tmp_path
):
    source = tmp_path / "source"
    processor.save_pretrained(source)
    processor.collection.save_to_disk(source / "collection")
    make_samples(LABELLED_ROWS).save_to_disk(source / "labelled")
    make_samples([2, 5]).save_to_disk(source / "validation")
    arguments = training_arguments | {"max_steps": 30, "save_strategy": "steps", "save_steps": 4}
    del arguments["output_dir"]

    def start(target):
        settings = [str(source), str(target), json.dumps(arguments), json.dumps(OPTIONS)]
        return subprocess.Popen(
            [sys.executable, "-c", CO_TRAINING, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    killed = tmp_path / "killed" / "iteration-1"
    for moment in ("rag_samples.jsonl", ".mint-rag.checkpoints/checkpoint-*", ".mint-gar.checkpoints/checkpoint-*"):
        process = start(killed.parent)
        while process.poll() is None and not list(killed.glob(moment)):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -9, process.stderr.read().decode()
        assert not (killed / "dev_scores.json").exists()
    for target in (killed.parent, tmp_path / "whole"):
        process = start(target)
        assert process.wait() == 0, process.stderr.read().decode()
    assert_same_iteration(snapshot(killed), snapshot(tmp_path / "whole" / "iteration-1"))
