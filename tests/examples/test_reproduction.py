"""The reproduction's scripts run as a user runs them, on tiny models: all rows, resumed, and their tables."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from modeling_mint.configuration_mint import CALIBRATED
from tests.examples.conftest import DOCUMENTS, QUESTIONS, ROOT, write_json_lines
from tests.tiny import tiny_byte_level_tokenizer
from trainers.query_weight import calibrate_query_weight

SCRIPTS = ROOT / "examples" / "reproduction"
ROLES = ("rag", "gar")
CONTROLS = ["continued", "no-exchange", "no-filter", "no-auxiliary"]
BY_RETRIEVAL = ["substituted", *CONTROLS[1:]]
BASELINES = [
    *("longest-title", "bm25", "dense", "dense-ivfpq", "dense-tuned", "dense-tuned-ivfpq"),
    *("closed-book", "dense-rag", "plain-gr", "corpus-lm"),
]
ANSWERING = ("closed-book", "dense-rag", "corpus-lm")
ANSWERS = 6  # of the labels, the first ones
ROWS = ["basic", "auxiliary", "substituted", "co-training-1", *CONTROLS]


def run(environment, script, *options, succeeds=True, processes=1):
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    )
    command = [sys.executable, *launcher, str(SCRIPTS / f"{script}.py"), *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert (done.returncode == 0) == succeeds, done.stderr[-3000:]
    return done


def tables(printed):
    return [line for line in printed.splitlines() if line.startswith("|")]


def tiny_encoder(folder):
    """Saves a random two-layer BERT as a sentence-transformers model with vectors of 32 dimensions."""
    tokenizer = tiny_byte_level_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    model = SentenceTransformer(modules=[Transformer(str(folder / "bert"), max_seq_length=64), Pooling(32)])
    model.save_pretrained(str(folder / "encoder"))
    return folder / "encoder"


@pytest.fixture
def reproduce(inputs, environment, tmp_path):
    """Runs a script on the first questions as labels and the others as dev queries."""
    metas = [{"task": "open_qa", "answer_in_document": number < ANSWERS} for number in range(10)]
    labelled = [record | {"meta": meta} for record, meta in zip(QUESTIONS[:10], metas, strict=True)]
    train = write_json_lines(tmp_path / "train.jsonl", labelled)
    dev = write_json_lines(tmp_path / "dev.jsonl", [record | {"meta": {}} for record in QUESTIONS[10:]])
    options = {
        "collection": inputs / "documents.jsonl",
        "train": train,
        "dev": dev,
        "backbone": inputs / "llama",
        "llm": inputs / "llm",
        "encoder": tiny_encoder(tmp_path),
        "output_dir": tmp_path / "reproduction",
        "results": tmp_path / "results",
        "num_labels": 10,
        "num_index_documents": 12,
        "documents_per_iteration": 12,
        "iterations": 1,
        "num_beams": 5,
        "max_bm25_rank": 0,
        "duplicate_similarity": 0,
        "max_round_trip_rank": 5,
        "keep_fraction": 1,
    }
    words = [f"--{name}={value}" for name, value in options.items()]

    def run_script(*more, script="run", **how):
        return run(environment, script, *words, *more, **how)

    return run_script, tmp_path / "reproduction", dev


@pytest.mark.slow
def test_all_rows_are_trained_and_judged_and_come_into_the_tables(reproduce, environment, tmp_path):
    run_rows, root, dev = reproduce
    printed = run_rows().stdout
    folder = root / "labels-10-seed-0"
    expected = [f"{row}.{role}" for row in ROWS for role in ROLES] + ["co-training-1.cascade"]
    expected += [f"{row}.ensemble" for row in ROWS if row not in BY_RETRIEVAL]
    predictions = tmp_path / "results" / "predictions" / folder.name
    assert sorted(path.stem for path in predictions.glob("*.jsonl")) == sorted(expected)
    assert all(f"| {row} rag | all | {len(QUESTIONS) - 10} |" in printed for row in ROWS)
    indexed = json.loads((tmp_path / "results" / "index_titles.json").read_text(encoding="utf-8"))
    assert len(set(indexed)) == 12 and set(indexed) < {document["title"] for document in DOCUMENTS}

    # A control trains as much as the iteration that it stands beside.
    steps = {
        path: len(json.loads((root / "labels-10-seed-0" / path / "training_log.json").read_text(encoding="utf-8")))
        for path in ("co-training-after-auxiliary/iteration-1/mint-rag", "continued/mint-rag", "no-filter/mint-rag")
    }
    assert len(set(steps.values())) == 1

    # Started again, nothing is trained again; a second seed shares what does not depend on it.
    trained = {path: path.stat().st_mtime_ns for path in root.rglob("adapter_model.safetensors")}
    assert tables(run_rows().stdout) == tables(printed)
    run_rows("--seed=1", "--rows", "basic")
    now = {path: path.stat().st_mtime_ns for path in root.rglob("adapter_model.safetensors")}
    assert trained.items() <= now.items()
    assert {path.parent.relative_to(root) for path in now.keys() - trained.keys()} == {
        folder.parent.relative_to(root) / "labels-10-seed-1" / "basic" / f"mint-{role}" for role in ROLES
    }

    # With few labels RAG goes on with their answers from the first iteration on, and GAR is that of the iteration.
    run_rows("--rows", "grounded")
    assert set(folder.rglob("adapter_model.safetensors")) - trained.keys() == {
        folder / "grounded" / "mint-rag" / "adapter_model.safetensors"
    }
    replies = {row: (predictions / f"{row}.gar.jsonl").read_text("utf-8") for row in ("grounded", "co-training-1")}
    assert replies["grounded"] == replies["co-training-1"]

    checkpoints = tmp_path / "checkpoints"
    options = ["--row=whole-collection", f"--checkpoints={checkpoints}", "--test_set=tiny questions"]
    run_rows(*options, script="checkpoints")
    report = json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))
    iteration = folder / "co-training-after-auxiliary" / "iteration-1"
    written = [line for role in ROLES for line in (iteration / f"{role}_samples.jsonl").open()]
    asked = {title for line in written for title in json.loads(line)["provenance"][0]}
    labelled = json.loads((predictions / "labelled_titles.json").read_text(encoding="utf-8"))
    assert asked and asked.isdisjoint(labelled)
    assert report["data"]["co_training"]["train"] == len(written) <= 24
    assert len(written) >= report["data"]["co_training"]["kept"] > 0
    for role in ROLES:
        checkpoint = checkpoints / f"mint-{role}-adapter"
        weights = load_file(checkpoint / "adapter_model.safetensors")
        trained = load_file(folder / "whole-collection" / f"mint-{role}" / "adapter_model.safetensors")
        assert weights.keys() == trained.keys()
        assert all(torch.equal(weight, trained[name].bfloat16()) for name, weight in weights.items())
        card = (checkpoint / "README.md").read_text(encoding="utf-8")
        assert f"On the {len(QUESTIONS) - 10} test questions of tiny questions." in card

    # Published adapters are gone on from, without what they came from, and learn to read before they rank.
    further = [
        "--row=query-likelihood",
        f"--adapters={checkpoints}",
        f"--checkpoints={tmp_path / 'further'}",
        "--seed=3",
    ]
    run_rows(*further, f"--output_dir={tmp_path / 'anew'}", "--test_set=tiny questions", script="checkpoints")
    assert {path.parent.parent.name for path in (tmp_path / "anew" / "labels-10-seed-3").rglob("*.safetensors")} == {
        "query-likelihood"
    }
    further = json.loads((tmp_path / "further" / "run.json").read_text(encoding="utf-8"))
    assert further["data"]["co_training"] == report["data"]["co_training"]
    for role in ROLES:
        config = json.loads(
            (tmp_path / "further" / f"mint-{role}-adapter" / "config.json").read_text(encoding="utf-8")
        )
        assert further["training"]["calibrated"][role] == {name: config[name] for name in CALIBRATED}
        blocks = tmp_path / "anew" / "labels-10-seed-3" / "replies" / "query-likelihood" / f"validation-{role}"
        lines = [json.loads(line) for path in sorted(blocks.iterdir()) for line in path.open()]
        columns = [[one[name] for one in lines] for name in ("document_scores", "query_log_probs", "relevant")]
        assert lines and config["query_likelihood_weight"] == calibrate_query_weight(*columns)

    # Without any training they are calibrated by further queries too.
    asked = write_json_lines(tmp_path / "asked.jsonl", QUESTIONS[:4])
    options = ["--row=recalibrated", f"--adapters={tmp_path / 'further'}", f"--questions={asked}", "--seed=3"]
    options += [f"--output_dir={tmp_path / 'anew'}", f"--checkpoints={tmp_path / 'recalibrated'}", "--test_set=tiny"]
    run_rows(*options, script="checkpoints")
    report = json.loads((tmp_path / "recalibrated" / "run.json").read_text(encoding="utf-8"))
    assert report["data"]["basic"]["validation"] == 2 + 4
    for role in ROLES:
        before, after = (tmp_path / name / f"mint-{role}-adapter" for name in ("further", "recalibrated"))
        weights = [load_file(one / "adapter_model.safetensors") for one in (before, after)]
        assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
        blocks = tmp_path / "anew" / "labels-10-seed-3" / "replies" / "recalibrated" / f"questions-{role}"
        lines = [json.loads(line) for path in sorted(blocks.iterdir()) for line in path.open()]
        columns = [[one[name] for one in lines] for name in ("document_scores", "query_log_probs", "relevant")]
        config = json.loads((after / "config.json").read_text(encoding="utf-8"))
        assert len(lines) == 6 and config["query_likelihood_weight"] == calibrate_query_weight(*columns)

    # RAG alone goes on with the labels' answers.
    options = ["--row=grounded", f"--adapters={tmp_path / 'further'}", f"--checkpoints={tmp_path / 'grounded'}"]
    run_rows(*options, f"--output_dir={tmp_path / 'anew'}", "--test_set=tiny questions", script="checkpoints")
    for role in ROLES:
        before, after = (
            load_file(tmp_path / name / f"mint-{role}-adapter" / "adapter_model.safetensors")
            for name in ("further", "grounded")
        )
        assert all(torch.equal(weight, after[name]) for name, weight in before.items()) == (role == "gar")

    # They teach each other once more, and what was exchanged adds to what was.
    options = ["--row=co-trained", f"--adapters={tmp_path / 'grounded'}", f"--checkpoints={tmp_path / 'co-trained'}"]
    run_rows(*options, f"--output_dir={tmp_path / 'anew'}", "--test_set=tiny questions", script="checkpoints")
    exchanged = json.loads((tmp_path / "co-trained" / "run.json").read_text(encoding="utf-8"))["data"]["co_training"]
    iteration = tmp_path / "anew" / folder.name / "co-training-after-grounded" / "iteration-1"
    written = [json.loads(line) for role in ROLES for line in (iteration / f"{role}_samples.jsonl").open()]
    kept = sum(sample["kept"] for sample in written)
    assert kept and exchanged == {
        "train": further["data"]["co_training"]["train"] + len(written),
        "kept": further["data"]["co_training"]["kept"] + kept,
    }
    for role in ROLES:
        trained = load_file(iteration / f"mint-{role}" / "adapter_model.safetensors")
        weights = load_file(tmp_path / "co-trained" / f"mint-{role}-adapter" / "adapter_model.safetensors")
        assert all(torch.equal(weight, trained[name].bfloat16()) for name, weight in weights.items())

    # Elsewhere, what was judged and kept is not trained again.
    elsewhere = f"--output_dir={tmp_path / 'elsewhere'}"
    assert tables(run_rows(elsewhere).stdout) == tables(printed)
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))

    refused = run_rows("--num_index_documents=5", "--seed=2", "--rows", "basic", succeeds=False).stderr
    assert "names 12 articles, not 5" in refused

    results = tmp_path / "results"
    run(environment, "tables", "--train", dev.with_name("train.jsonl"), "--dev", dev, "--results", results)
    report = json.loads((results / "results.json").read_text(encoding="utf-8"))
    seeds = {(one["row"], one["strategy"]): one["seeds"] for one in report["systems"]}
    assert seeds[("basic", "rag")] == 2 and seeds[("co-training-1", "ensemble")] == 1
    assert ["co-training-1", "rag"] in [one["first"] for one in report["comparisons"]]
    assert "| 10 | co-training-1 | rag | 1 |" in (results / "tables.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_labels_that_were_not_drawn_serve_to_judge_by_and_as_a_bound_but_never_both(reproduce, tmp_path):
    run_rows, root, _ = reproduce
    few = ["--num_labels=5", "--judged_on=held_out"]
    printed = run_rows(*few, "--rows", "more-labels").stdout
    assert "| more-labels rag | all | 2 |" in printed
    kept = tmp_path / "results" / "held_out" / "labels-5-seed-0" / "more-labels.rag.jsonl"
    judged = {json.loads(line)["id"] for line in kept.open()}
    assert len(judged) == 2 and judged < {record["id"] for record in QUESTIONS[:10]}
    assert (root / "labels-5-seed-0" / "more-labels" / "mint-rag" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "results" / "predictions").exists()

    run_rows(*few[:1], "--judged_on=answers", "--rows", "longest-title", script="baselines")
    asked = tmp_path / "results" / "answers" / "labels-5-seed-0" / "longest-title.baseline.jsonl"
    assert {json.loads(line)["id"] for line in asked.open()} == {"q1", "q3", "q5"}

    # Of two processes that reply together one writes.
    written = asked.read_bytes()
    asked.unlink()
    run_rows(*few[:1], "--judged_on=answers", "--rows", "longest-title", script="baselines", processes=2)
    assert asked.read_bytes() == written and not list(asked.parent.glob(".*"))
    refused = run_rows("--judged_on=held_out", "--rows", "longest-title", script="baselines", succeeds=False).stderr
    assert "--num_labels 10 leaves none. Judge on dev." in refused


@pytest.mark.slow
def test_all_baselines_are_trained_and_judged_and_measured(reproduce, tmp_path):
    run_rows, root, _ = reproduce
    printed = run_rows(script="baselines").stdout
    predictions = tmp_path / "results" / "predictions" / "labels-10-seed-0"
    assert sorted(path.stem for path in predictions.glob("*.jsonl")) == sorted(
        f"{name}.baseline" for name in BASELINES
    )
    records = {
        name: [json.loads(line) for line in (predictions / f"{name}.baseline.jsonl").open()] for name in BASELINES
    }
    assert {len(rows) for rows in records.values()} == {len(QUESTIONS) - 10}
    titles = {document["title"] for document in DOCUMENTS}
    for name, rows in records.items():
        outputs = [row["output"][0] for row in rows]
        assert all(("answer" in output) == (name in ANSWERING) for output in outputs)
        rankings = [[piece["title"] for piece in output["provenance"]] for output in outputs]
        assert all(set(ranking) <= titles and len(set(ranking)) == len(ranking) for ranking in rankings)
        if name not in ("longest-title", "closed-book"):
            assert {len(ranking) for ranking in rankings} == {5}
    # Every second question names its article.
    assert any(row["output"][0]["provenance"] for row in records["longest-title"])

    trained = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    assert tables(run_rows(script="baselines").stdout) == tables(printed)
    figures = tmp_path / "costs.json"
    run_rows("--json", figures, "--num_queries=2", "--rows", *BASELINES, "basic", script="costs")
    assert trained.items() <= {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}.items()
    costs = {(one["row"], one["strategy"]): one for one in json.loads(figures.read_text(encoding="utf-8"))}
    assert len(costs) == len(BASELINES) + 8  # four strategies, and nothing read
    assert costs["dense", "baseline"]["index_bytes"] >= 4 * 32 * len(DOCUMENTS)
    assert costs["plain-gr", "baseline"]["index_bytes"] == costs["basic", "rag"]["index_bytes"] > 0
    assert all(0 < one["median"] <= one["worst"] for one in costs.values())
