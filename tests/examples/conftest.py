"""A tiny collection, tiny labelled questions and tiny backbones as files, and the scripts run as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dataset_builders.prompt_template import PROMPT_FOLDER, PromptTemplate
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    {"title": title, "text": f"{title} stands here. It was founded in Paris by Gustave Eiffel.", "topic": "Arts"}
    for title in TITLES[:30]
]
SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
QUESTIONS = [
    {
        "id": f"q{number}",
        "input": f"who founded {document['title']}?" if number % 2 else f"which one is number {number}?",
        "output": [{"answer": "Gustave Eiffel", "provenance": [{"title": document["title"]}]}],
        "meta": {"split": split},
    }
    for number, (document, split) in enumerate(zip(DOCUMENTS[::2], SPLITS, strict=False))
]
REPLY = " Who founded it in Paris?\nAnswer: Gustave Eiffel\n\n"
OPTIONS = {
    "warm_up_epochs": "1",
    "exchange_epochs": "1",
    "bf16": "false",
    "lora_rank": "4",
    "max_iterations": "1",
    "num_beams": "5",
    "max_round_trip_rank": "0",
    # The tiny LLM asks the same of every document.
    "max_bm25_rank": "0",
    "duplicate_similarity": "0",
    "documents_per_iteration": "8",
    "num_auxiliary_documents": "8",
    "max_document_chars": "80",
    "train_batch_size": "8",
}


def run_benchmark(script, environment, folder, *options):
    """Runs a benchmark; returns what it printed and the report that it wrote."""
    command = [sys.executable, str(ROOT / "examples" / "benchmarks" / f"{script}.py"), *options]
    command += ["--json", str(folder / "report.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def write_json_lines(path: Path, records: list) -> Path:
    """Writes records, or raw lines, as a JSONL file."""
    lines = (record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_llm(folder: Path) -> None:
    """Saves a tiny Llama that has learnt to write `REPLY` after any passage: a random one writes no question."""
    tokenizer = tiny_byte_level_tokenizer()
    model = tiny_llama(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    steps = 140
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    template = PromptTemplate(PROMPT_FOLDER / "query_and_answer.jinja", {"passage"})
    reply = tokenizer(REPLY, return_tensors="pt").input_ids
    for step in range(steps):
        passage = template.render(passage=DOCUMENTS[step % len(DOCUMENTS)]["text"])
        context = tokenizer(passage, return_tensors="pt", verbose=False).input_ids
        context = context[:, -(20 + context.shape[1] * step // steps) :]  # short ones first: cheaper
        labels = torch.cat([torch.full_like(context, -100), reply], dim=1)
        loss = model(input_ids=torch.cat([context, reply], dim=1), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    """Folder with documents.jsonl, questions.jsonl, the backbones llama/ and t5/, and llm/."""
    folder = tmp_path_factory.mktemp("inputs")
    write_json_lines(folder / "documents.jsonl", DOCUMENTS)
    write_json_lines(folder / "questions.jsonl", QUESTIONS)
    for name, tokenizer, model in (
        ("llama", tiny_byte_level_tokenizer(), tiny_llama),
        ("t5", tiny_unigram_tokenizer(), tiny_t5),
    ):
        tokenizer.save_pretrained(folder / name)
        model(tokenizer).save_pretrained(folder / name)
    tiny_llm(folder / "llm")
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """What a user's shell has, with the caches in a temporary folder and one thread."""
    cache = tmp_path_factory.mktemp("hf-home")
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command(inputs):
    """The command line of a script of examples/ on the tiny inputs; keyword arguments win over `OPTIONS`."""

    def make(script: str, output_dir: Path, **options) -> list[str]:
        paths = {
            "output_dir": output_dir,
            "collection": inputs / "documents.jsonl",
            "labelled": inputs / "questions.jsonl",
            "backbone": inputs / "llama",
            "llm": inputs / "llm",
        }
        words = [f"--{name}={value}" for name, value in (paths | OPTIONS | options).items()]
        return [sys.executable, str(ROOT / "examples" / f"{script}.py"), *words]

    return make


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    """`load_dataset` keeps Arrow copies; these tests must neither leave any behind nor find any."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def build_in_process(command):
    """
    The first stage in this process, with the command line's options; what it raises is what the script prints. (A
    process of its own would spend most of its time on imports.) Hands back the folder's `work/`.
    """
    from arguments import parse_settings
    from build_collection import build_collection
    from run_folder import RunFolder

    def call(output_dir: Path, **options) -> Path:
        settings = parse_settings(command("build_collection", output_dir, **options)[2:])
        folder = RunFolder(settings)
        folder.run_stage("build_collection", lambda: build_collection(settings, folder))
        return folder.work

    return call


@pytest.fixture(scope="session")
def run(environment):
    """Runs a command to its end, in `cwd`, and hands back exit code, output and error output."""

    def call(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return call


@pytest.fixture(scope="session")
def finished(command, run, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder of a whole run on the tiny inputs, and how the command ended."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    return folder, run([*command("run_mint", folder), "--no_serve"])


def evaluation_rows(folder: Path) -> list[dict]:
    """Scores of a run."""
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["rows"]


def predictions(folder: Path) -> dict[str, str]:
    """What the models of a run answered, with scores: finer than the rows, which random models leave near zero."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("predictions-*.jsonl"))}
