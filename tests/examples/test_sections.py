"""Sections from raw documents to answers and scores, through the scripts' own functions."""

import json

import pytest
import torch
from arguments import parse_settings
from build_collection import load_processor
from datasets import load_dataset
from evaluate_mint import baselines
from run_folder import RunFolder
from warm_up import index_samples

from modeling_mint import MintForConditionalGeneration
from modeling_mint.tasks_mint import shorten
from tests.examples.conftest import SPLITS, evaluation_rows, predictions, write_json_lines
from tests.tiny import TITLES
from trainers.evaluation import evaluate_strategies
from trainers.task_examples import tokenize_examples

PAGES = [
    {
        "title": title,
        "text": f"{title} stands here. It was founded in Paris by Gustave Eiffel.",
        "sections": [
            {"title": "Apollo", "text": f"The moon landing made {title} known to the world in 1969."},
            {"title": "Texas", "text": "New York is far away from it. It was founded by Gustave Eiffel."},
        ],
    }
    for title in TITLES[:10]
]
NAMED = [{"title": "Paris", "section": "Section::::Apollo."}, {"title": "Eiffel Tower"}]
QUESTIONS = [
    {
        "id": f"q{number}",
        "input": f"who founded number {number}?",
        "output": [{"answer": "Gustave Eiffel", "provenance": [NAMED[number % 2]]}],
        "meta": {"split": split},
    }
    for number, split in enumerate(SPLITS)
]


@pytest.fixture
def section_inputs(tmp_path):
    """Options that name raw documents with sections and labelled questions about them."""
    return {
        "collection": write_json_lines(tmp_path / "pages.jsonl", PAGES),
        "labelled": write_json_lines(tmp_path / "questions.jsonl", QUESTIONS),
        "docid_granularity": "section",
    }


@pytest.fixture
def built(build_in_process, command, section_inputs, tmp_path):
    """Settings and folder of a run whose first stage is done."""
    build_in_process(tmp_path / "run", **section_inputs)
    settings = parse_settings(command("build_collection", tmp_path / "run", **section_inputs)[2:])
    return settings, RunFolder(settings)


@pytest.fixture
def pair(inputs):
    """Random RAG and GAR models that write section docids."""
    return {
        role: MintForConditionalGeneration.from_backbone_pretrained(
            inputs / "llama", role=role, docid_granularity="section", dtype=torch.float32
        )
        for role in ("rag", "gar")
    }


def test_questions_are_labelled_with_sections(built):
    _, folder = built
    train = load_dataset(str(folder.pseudo), "basic", split="train")
    assert train["docids"][:] == [["Paris, Apollo"], ["Eiffel Tower"]] * 3
    collection = load_dataset(str(folder.collection), split="train")
    assert [collection[rows[0]]["title"] for rows in train["rows"]] == ["Paris, Apollo", "Eiffel Tower"] * 3


def test_index_target_of_a_section_is_its_path_and_its_page_is_masked(built):
    processor = load_processor(*built)
    titles = processor.collection["title"][:]
    row = titles.index("Paris, Apollo")
    (example,) = tokenize_examples(index_samples([row], titles), "rag", processor)
    (leaf,) = processor.trie.walk(torch.tensor([example["target_ids"]])).tolist()
    assert processor.trie.rows(leaf) == [row]
    prompt = processor.tokenizer.decode(example["prompt_ids"])
    assert prompt == "Passage: The moon landing made it known to the world in 1969.\nTitle:"


def test_sections_are_retrieved_and_answers_grounded_in_them(built, pair):
    processor = load_processor(*built)
    queries = ["who founded number 1?", "moon landing?"]
    found = pair["rag"].retrieve(queries, processor, k=30, num_beams=30)
    for docids, rows in zip(found.docids, found.rows, strict=True):
        assert sorted(rows) == list(range(30)) and docids == processor.collection[rows]["title"]
        # Page "Paris, Texas" and section "Texas" of page "Paris" share a docid: both follow each other.
        first = docids.index("Paris, Texas")
        assert docids[first + 1] == "Paris, Texas"
        assert {processor.page(row) for row in rows[first : first + 2]} == {"Paris", "Paris, Texas"}
    row = processor.collection["title"][:].index("Eiffel, Apollo")
    ((docid, text),) = processor.context([row])
    assert text == shorten(PAGES[1]["sections"][0]["text"], processor.max_document_chars)
    assert docid == "Eiffel, Apollo" and processor.page(row) == "Eiffel"


def test_evaluation_scores_pages_and_named_sections(built, pair):
    settings, folder = built
    processor = load_processor(settings, folder)
    test = load_dataset(str(folder.pseudo), "basic", split="test")
    scored, answered = evaluate_strategies(test, processor, ["cascade"], **pair, k=5, num_beams=5)
    assert [row["subset"] for row in scored] == ["all", "title_not_in_query", "section_in_provenance"]
    titles = set(processor.collection["title"])
    assert all(set(one["docids"]) <= titles and len(one["docids"]) == 5 for one in answered)
    bm25 = {row["subset"]: row for row in baselines(test, processor) if row["system"] == "BM25"}
    assert bm25["section_in_provenance"]["queries"] == sum(number % 2 == 0 for number in range(9, 12))


def test_shared_docids_are_reported(build_in_process, section_inputs, tmp_path, caplog):
    build_in_process(tmp_path / "run", **section_inputs)
    assert "1 docids name sections of several pages, such as 'Paris, Texas'" in caplog.text


def test_written_collection_of_the_other_granularity_is_refused(built, build_in_process, tmp_path):
    _, folder = built
    with pytest.raises(ValueError, match="was written with docid_granularity 'section': start with that, or give"):
        build_in_process(tmp_path / "titles", collection=folder.collection, labelled=folder.pseudo)
    work = build_in_process(
        tmp_path / "again", collection=folder.collection, labelled=folder.pseudo, docid_granularity="section"
    )
    assert json.loads((work / "build_collection.json").read_text())["num_documents"] == 30


def test_unknown_granularity_is_refused_in_a_config_file(tmp_path):
    (tmp_path / "run.yaml").write_text("docid_granularity: page\n")
    with pytest.raises(ValueError, match="docid_granularity is 'page'; it must be one of title, section"):
        parse_settings(["--config", str(tmp_path / "run.yaml")])


@pytest.mark.slow
def test_whole_run_on_sections(command, run, section_inputs, tmp_path):
    ended = run([*command("run_mint", tmp_path / "run", **section_inputs), "--no_serve"])
    assert ended.returncode == 0, ended.stderr
    for role in ("rag", "gar"):
        config = json.loads((tmp_path / "run" / f"mint-{role}" / "config.json").read_text())
        assert config["docid_granularity"] == "section"
    scored = evaluation_rows(tmp_path / "run")
    assert {"all", "section_in_provenance"} <= {row["subset"] for row in scored}
    assert "Paris, Apollo" in "".join(predictions(tmp_path / "run").values())
