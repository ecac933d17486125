"""A saved model folder alone must do: loaded in a fresh process that knows nothing of this project."""

import json
import os
import subprocess
import sys

import pytest
import torch

QUESTIONS = ["moon", "Who designed the Eiffel Tower in Paris, and in which year?"]

# What a stranger would write. The project may be installed in this environment: it must not be what is loaded.
SCRIPT = """
import json
import sys

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

questions = json.loads(sys.argv[1])
results = {}
for kind, folder in json.loads(sys.argv[2]).items():
    model = AutoModel.from_pretrained(f"{folder}/mint-rag", trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(f"{folder}/mint-rag", trust_remote_code=True)
    auto_class = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    gar = auto_class.from_pretrained(f"{folder}/mint-gar", trust_remote_code=True)
    found = model.retrieve(questions, processor, k=4)
    inputs = processor(questions)
    with torch.no_grad():
        logits = model(**inputs, labels=inputs["input_ids"]).logits
    ask = pipeline(
        "mint", model=f"{folder}/mint-rag", gar_model=f"{folder}/mint-gar", strategy="ensemble", trust_remote_code=True
    )
    results[kind] = {
        "modules": [type(thing).__module__ for thing in (model, processor, gar, ask, ask.models["gar"])],
        "role": gar.config.role,
        "logits": logits.tolist(),
        "docids": found.docids,
        "rows": found.rows,
        "scores": found.scores,
        "gar_answers": gar.answer(questions, processor).texts,
        "asked": ask(questions),
    }
results["imported"] = [name for name in ("modeling_mint", "dataset_builders", "trainers") if name in sys.modules]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def stranger(run_folders, tmp_path_factory):
    """What the script found, by kind."""
    root = tmp_path_factory.mktemp("elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "1"}
    folders = {kind: str(folder) for kind, folder in run_folders.items()}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(QUESTIONS), json.dumps(folders)],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "run the custom code?" not in process.stdout, "trusted code must not be asked for again"
    return json.loads(process.stdout.splitlines()[-1])


def test_fresh_process_runs_the_code_of_the_folder_only(kind, stranger):
    assert stranger["imported"] == []
    assert all(module.startswith("transformers_modules.") for module in stranger[kind]["modules"])
    assert stranger[kind]["role"] == "gar"


def test_fresh_process_gives_the_same_logits(kind, stranger, models, processors):
    inputs = processors[kind](QUESTIONS)
    with torch.no_grad():
        logits = models[kind, "rag"](**inputs, labels=inputs["input_ids"]).logits
    torch.testing.assert_close(torch.tensor(stranger[kind]["logits"]), logits)


def test_fresh_process_gives_the_same_ranking_and_finds_the_collection(kind, stranger, models, processors):
    found = models[kind, "rag"].retrieve(QUESTIONS, processors[kind], k=4)
    assert stranger[kind]["docids"] == found.docids
    assert stranger[kind]["rows"] == found.rows
    for scores, expected in zip(stranger[kind]["scores"], found.scores, strict=True):
        assert scores == pytest.approx(expected, abs=1e-4)


def test_fresh_process_answers_by_the_pipeline(kind, stranger, models, processors):
    assert stranger[kind]["gar_answers"] == models[kind, "gar"].answer(QUESTIONS, processors[kind]).texts
    for asked in stranger[kind]["asked"]:
        assert asked["strategy"] == "ensemble" and len(asked["documents"]) == 5
        assert sum(document["score"] for document in asked["documents"]) == pytest.approx(1)
        assert all(document["text"].startswith(document["title"]) for document in asked["documents"])
