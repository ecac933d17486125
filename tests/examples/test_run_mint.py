import json
import signal
import subprocess
import time

import pytest
import torch
from arguments import parse_settings
from datasets import load_dataset
from transformers import AutoModel, AutoProcessor

from modeling_mint import format_prompt
from modeling_mint.configuration_mint import CALIBRATED
from tests.examples.conftest import DOCUMENTS, QUESTIONS, SPLITS, evaluation_rows, predictions, write_json_lines

STAGES = ["build_collection", "generate_auxiliary", "warm_up", "co_train", "evaluate_mint"]
SYSTEMS = {
    ("baseline", "longest title"),
    ("baseline", "BM25"),
    ("untuned", "rag"),
    ("untuned", "gar"),
    *((stage, system) for stage in ("warm-up", "co-training") for system in ("rag", "gar", "ensemble", "cascade")),
}


def assert_whole_run(folder):
    """The folder holds everything that a finished run promises."""
    rows = evaluation_rows(folder)
    assert {(row["stage"], row["system"]) for row in rows} == SYSTEMS
    assert {row["queries"] for row in rows if row["subset"] == "all"} == {SPLITS.count("test")}
    report = (folder / "report.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"| {row['stage']} | {row['system']} | {row['subset'].replace('_', ' ')} |" in report
    for stage in STAGES:
        assert f"| {stage} | " in report
    assert (folder / "dev_scores.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["evaluation"]["rows"] == rows and set(run["seconds"]) == set(STAGES)
    assert run["collection"]["num_documents"] == len(DOCUMENTS)
    for name in ("mint-rag", "mint-gar", "mint-collection", "mint-pseudo"):
        card = (folder / name / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\n") and "{{" not in card and "None" not in card and "Undefined" not in card


def test_run_ends_with_everything_it_promises(finished):
    folder, ended = finished
    assert ended.returncode == 0, ended.stderr
    assert_whole_run(folder)
    assert (folder / "report.md").read_text(encoding="utf-8") in ended.stdout


def test_models_of_a_run_load_by_role_and_retrieve_from_its_collection(finished):
    for role in ("rag", "gar"):
        model = AutoModel.from_pretrained(finished[0] / f"mint-{role}")
        processor = AutoProcessor.from_pretrained(finished[0] / f"mint-{role}")
        assert model.config.role == role
        found = model.retrieve(["who founded Paris?"], processor, k=3)
        assert processor.collection[found.rows[0]]["title"] == found.docids[0]
        # The collection is stored in the order of the leaves: the trie needs no map to its rows.
        assert processor.trie.leaf_order().tolist() == list(range(len(DOCUMENTS)))


def test_adapters_of_a_run_share_its_base_and_answer_as_the_merged_models_do(finished):
    base = AutoModel.from_pretrained(finished[0] / "mint-base")
    base.load_roles({role: finished[0] / f"mint-{role}-adapter" for role in ("rag", "gar")})
    processor = AutoProcessor.from_pretrained(finished[0] / "mint-base")
    for role in ("rag", "gar"):
        base.set_role(role)
        merged = AutoModel.from_pretrained(finished[0] / f"mint-{role}")
        report = json.loads((finished[0] / "run.json").read_text(encoding="utf-8"))
        scores = report["co_training"][report["best_iteration"]]["dev_scores"][role]
        assert base.config.calibrated == merged.config.calibrated == {name: scores[name] for name in CALIBRATED}
        inputs = processor(format_prompt("query_to_docid", query="who founded Paris?"))
        with torch.no_grad():
            torch.testing.assert_close(base(**inputs).logits, merged(**inputs).logits, atol=0.05, rtol=0.05)


def test_datasets_of_a_run_load_by_config(finished):
    collection = load_dataset(str(finished[0] / "mint-collection"), split="train")
    assert sorted(collection["title"]) == sorted(document["title"] for document in DOCUMENTS)
    assert json.loads(collection[0]["metadata"]) == {"topic": "Arts"}
    basic = load_dataset(str(finished[0] / "mint-pseudo"), "basic")
    assert {split: len(samples) for split, samples in basic.items()} == {"train": 6, "validation": 3, "test": 3}
    assert basic["train"][1]["query"] == QUESTIONS[1]["input"]
    auxiliary = load_dataset(str(finished[0] / "mint-pseudo"), "auxiliary", split="train")
    assert set(auxiliary["source"]) == {"llm"} and auxiliary[0]["answers"] == ["Gustave Eiffel"]
    written = load_dataset(str(finished[0] / "mint-pseudo"), "co_training", split="train")
    assert written["source"][:].count("rag") == written["source"][:].count("gar") == 8
    assert set(written["iteration"]) == {1}


def test_running_again_does_no_stage_again(finished, command, run):
    folder = finished[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    again = run([*command("run_mint", folder), "--no-serve"])
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done already") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_other_settings_in_the_same_folder_are_refused_by_name(finished, command, run):
    refused = run([*command("run_mint", finished[0], lora_rank="8", seed="1"), "--no_serve"])
    assert refused.returncode == 2
    assert "other settings (lora_rank, seed)" in refused.stderr and "Traceback" not in refused.stderr


def test_settings_that_failed_do_not_lock_the_folder(build_in_process, tmp_path):
    with pytest.raises(FileNotFoundError):
        build_in_process(tmp_path, collection=tmp_path / "document.jsonl")
    assert json.loads((build_in_process(tmp_path) / "build_collection.json").read_text())["num_documents"] == 30


def test_config_file_sets_options_and_the_command_line_wins(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("seed: 7\nnum_beams: 4\nlora_rank: 4\ntask_rates: {query_to_docid: 3}\nserve: false\n")
    settings = parse_settings(["--config", str(config), "--num_beams", "5"])
    assert (settings.run.seed, settings.run.num_beams, settings.training.lora_rank) == (7, 5, 4)
    assert settings.training.task_rates == {"query_to_docid": 3} and settings.run.serve is False


def test_config_file_with_an_unknown_option_is_refused_by_name(tmp_path):
    (tmp_path / "run.yaml").write_text("sede: 7\n")
    with pytest.raises(ValueError, match="--sede"):
        parse_settings(["--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize("option", ["--no-serve", "--no_serve"])
def test_page_is_left_out_by_either_spelling(option):
    assert parse_settings([]).run.serve and not parse_settings([option]).run.serve


def test_what_a_run_wrote_serves_as_collection_and_labelled_data_of_another(finished, build_in_process, tmp_path):
    folder = finished[0]
    work = build_in_process(tmp_path, collection=folder / "mint-collection", labelled=folder / "mint-pseudo")
    facts = json.loads((work / "build_collection.json").read_text())
    assert (facts["num_documents"], facts["basic"]) == (30, {"train": 6, "validation": 3, "test": 3})


def test_runs_on_other_documents_read_their_own(build_in_process, tmp_path):
    """`datasets` caches a folder by its name and card: folders of two runs must not be taken for each other."""
    others = write_json_lines(tmp_path / "others.jsonl", DOCUMENTS[::-1])
    build_in_process(tmp_path / "one", leaf_order="false")
    build_in_process(tmp_path / "two", leaf_order="false", collection=others)
    first, second = (load_dataset(str(tmp_path / name / "mint-collection"), split="train") for name in ("one", "two"))
    assert first["title"][:] == second["title"][::-1] == [document["title"] for document in DOCUMENTS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora_rank=0"], "--no_adapters"),
        (["--load_in_4bit", "--no_adapters"], "load_in_4bit"),
        (["--eval_steps=30", "--save_steps=100"], "multiple of eval_steps"),
        (["--early_stopping_patience=2"], "set eval_steps too"),
        (["--metric_for_best_model=r_precision"], "eval_r_precision"),
        (["--task_sampling=explicit"], "rates"),
        (["--task_rates={"], "--task_rates is not a JSON object"),
    ],
)
def test_training_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(options)


@pytest.mark.slow
def test_full_models_are_trained_without_a_base_or_adapters(command, run, tmp_path):
    ended = run([*command("run_mint", tmp_path, adapters="false"), "--no_serve"])
    assert ended.returncode == 0, ended.stderr
    assert_whole_run(tmp_path)
    assert not list(tmp_path.glob("*-adapter")) and not (tmp_path / "mint-base").exists()


@pytest.mark.slow
def test_warm_up_learns_sentences_too_judges_its_models_and_stops_early(command, run, tmp_path):
    options = {"eval_steps": 1, "save_steps": 1, "early_stopping_patience": 2, "report_to": "tensorboard"}
    options |= {"sentence_queries": 1, "sentence_answer": "SUPPORTS"}
    for script in ("build_collection", "generate_auxiliary", "warm_up"):
        ended = run(command(script, tmp_path, learning_rate="0", warm_up_epochs="3", **options))
        assert ended.returncode == 0, ended.stderr
    for role in ("rag", "gar"):
        log = json.loads((tmp_path / "work" / "warm-up" / f"mint-{role}" / "training_log.json").read_text())
        judged = [entry for entry in log if "eval_r_precision" in entry]
        # Nothing is learnt, so the first is the best and the two after it end the training.
        assert len(judged) == 3 and {"eval_loss", "eval_kilt_em"} <= judged[0].keys()
    examples = json.loads((tmp_path / "work" / "warm_up.json").read_text(encoding="utf-8"))["examples"]
    labelled, bare = SPLITS.count("train"), examples["rag"]["document_to_docid"]
    assert (
        bare > 0 and examples["rag"]["query_to_docid"] == examples["gar"]["query_answer_to_docid"] == labelled + bare
    )


@pytest.mark.slow
def test_encoder_decoder_backbone_runs_whole(command, run, inputs, tmp_path):
    ended = run([*command("run_mint", tmp_path, backbone=inputs / "t5"), "--no_serve"])
    assert ended.returncode == 0, ended.stderr
    assert_whole_run(tmp_path)
    assert AutoModel.from_pretrained(tmp_path / "mint-rag").config.is_encoder_decoder


@pytest.mark.slow
def test_same_seed_in_another_folder_gives_the_same_figures(finished, command, run, tmp_path):
    assert run([*command("run_mint", tmp_path), "--no_serve"]).returncode == 0
    assert evaluation_rows(tmp_path) == evaluation_rows(finished[0])
    assert predictions(tmp_path) == predictions(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("marker", ["work/generate_auxiliary.json", "work/warm_up.json", "mint-rag"])
def test_killed_and_started_again_gives_the_same_figures(marker, finished, command, environment, run, tmp_path):
    words = [*command("run_mint", tmp_path), "--no_serve"]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / marker).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "report.md").exists()
    assert run(words).returncode == 0
    assert evaluation_rows(tmp_path) == evaluation_rows(finished[0])
    assert predictions(tmp_path) == predictions(finished[0])
