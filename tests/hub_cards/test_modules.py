"""Code that runs by name from the Hub: metrics by `evaluate.load`, the docid search by `custom_generate`."""

import json

import pytest
import torch

from hub_cards.modules import docid_search_artefact, metric_artefact
from modeling_mint import MintForConditionalGeneration, search_docids
from tests.hub_cards.pages import offline_environment, served
from tests.hub_server import run_fresh
from tests.tiny import TITLES

PUSH = """
from huggingface_hub import HfApi
api = HfApi()
for folder, repo_id, kind in json.loads(sys.argv[1]):
    api.create_repo(repo_id, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=folder)
"""
RETRIEVAL = {"predictions": [["A", "B"], ["C"]], "references": [[["A"]], [["B"]]]}
DOWNSTREAM = {
    "predictions": [{"answer": "the Louvre", "docids": ["Louvre"]}],
    "references": [{"answers": ["Louvre"], "provenance": [["Louvre"]]}],
}
EVALUATE = """
import evaluate
name, inputs = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps(evaluate.load(name).compute(**inputs)))
"""
GENERATE = """
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
name, kind, trie, prompt = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
model = (AutoModelForCausalLM if kind == "llama" else AutoModelForSeq2SeqLM).from_pretrained(name)
tokenizer = AutoTokenizer.from_pretrained(name)
found = model.generate(
    tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"],
    custom_generate="my-org/mint-docid-search", trust_remote_code=True, trie=trie, tokenizer=tokenizer,
    num_beams=6, num_return_sequences=3, return_dict_in_generate=True, output_scores=True,
)
print(json.dumps([found.sequences.tolist(), found.sequences_scores.tolist()]))
"""


def write(artefact, folder):
    """The artefact's files as the Hub gives them back."""
    for path, content in artefact.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def upload(hub, tmp_path, *artefacts):
    """Puts artefacts onto the Hub."""
    pushed = [
        (str(write(artefact, tmp_path / f"artefact-{number}")), artefact.repo_id, artefact.repo_type)
        for number, artefact in enumerate(artefacts)
    ]
    run_fresh(hub, tmp_path, PUSH, json.dumps(pushed))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, inputs, score, value",
    [("kilt_retrieval", RETRIEVAL, "r_precision", 0.5), ("kilt_downstream", DOWNSTREAM, "kilt_em", 1.0)],
)
def test_metric_is_loaded_from_its_space(hub, tmp_path, name, inputs, score, value):
    upload(hub, tmp_path, metric_artefact(name, "my-org"))
    assert run_fresh(hub, tmp_path, EVALUATE, f"my-org/{name}", json.dumps(inputs), token=None)[score] == value
    assert hub.repo(f"my-org/{name}", "space").sdk == "gradio"


@pytest.mark.slow
def test_page_of_a_metric_scores_what_is_pasted_and_refuses_what_is_none(tmp_path):
    write(metric_artefact("kilt_retrieval", "my-org"), tmp_path)
    with served(tmp_path, offline_environment(tmp_path / "hf")) as client:
        texts = {name: json.dumps(value) for name, value in RETRIEVAL.items()}
        assert client.predict(**texts, api_name="/score")["r_precision"] == 0.5
        with pytest.raises(Exception, match="cannot be scored"):
            client.predict(predictions="no JSON", references="[]", api_name="/score")


@pytest.mark.slow
def test_docid_search_of_the_hub_finds_what_the_search_of_the_package_finds(
    hub, tmp_path, kind, backbones, processors
):
    upload(hub, tmp_path, docid_search_artefact("my-org", "mint-rag"))
    processor, prompt = processors[kind], "Question: who designed the Eiffel Tower? Title:"
    prompt_ids = processor.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    model = MintForConditionalGeneration.from_backbone_pretrained(backbones[kind, "rag"])
    (expected,) = search_docids(
        model, processor.trie, prompt_ids, torch.ones_like(prompt_ids), num_beams=6, num_docids=3
    )
    processor.trie.save_pretrained(tmp_path / "trie")
    for trie in (TITLES, str(tmp_path / "trie")):
        sequences, scores = run_fresh(hub, tmp_path, GENERATE, backbones[kind, "rag"], kind, json.dumps(trie), prompt)
        begin = prompt_ids.shape[1] if kind == "llama" else 1
        paths = torch.tensor(sequences)[:, begin:]
        leaves = processor.trie.walk(paths)
        assert leaves.tolist() == [leaf for leaf, _ in expected]
        torch.testing.assert_close(scores, [score for _, score in expected], rtol=1e-4, atol=1e-4)
