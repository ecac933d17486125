"""The reproduction's tables say what the predictions in a folder score."""

import json
from functools import partial

import pytest

from tests.examples.conftest import write_json_lines
from tests.examples.test_reproduction import run

approx = partial(pytest.approx, abs=1e-5)  # the report has five decimals

ARTICLES = ["Cairo", "Nile", "Soup"]
FOUND = {  # by row, role and seed, whether the article of each query is found
    ("basic", "rag", 0): [1, 1, 0],
    ("basic", "rag", 1): [0, 1, 0],
    ("auxiliary", "rag", 1): [1, 1, 1],
    ("substituted", "rag", 0): [1, 1, 1],
    ("auxiliary", "gar", 1): [1, 0, 0],
    ("co-training-1", "rag", 0): [0, 0, 0],
    ("co-training-1", "gar", 0): [0, 0, 0],
    ("co-training-1", "rag", 1): [1, 1, 0],
    ("co-training-1", "gar", 1): [1, 1, 1],
}
PRECISION = {"rag": {"written": 0.5, "kept": 0.75}, "gar": {"written": 0.25, "kept": None}}
RIGHT, WRONG = "SUPPORTS", "REFUTES"
ANSWERS = {  # by row and seed, what is answered to labels that were not drawn
    ("basic", 1): {3: RIGHT, 4: WRONG},
    ("auxiliary", 1): {3: RIGHT, 4: RIGHT},
    ("auxiliary", 2): {4: WRONG},
    ("substituted", 0): {3: RIGHT},  # has no seed in common with what it is compared with
    ("only-there", 1): {3: RIGHT},
}
LABELLED = {0: ["Cairo"], 1: ["Cairo", "Nile"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory, environment):
    """A folder of predictions that `tables.py` has seen."""
    root = tmp_path_factory.mktemp("reproduction")

    def record(title, number, answer=RIGHT):
        return {"id": f"creak-{number}", "output": [{"answer": answer, "provenance": [{"title": title}]}]}

    dev, train, results = root / "dev.jsonl", root / "train.jsonl", root / "results"
    gold = [record(title, number) | {"input": f"About {title}."} for number, title in enumerate(ARTICLES)]
    gold[2]["meta"] = {"task": "open_qa", "answer_in_document": True}
    write_json_lines(dev, gold)
    write_json_lines(train, [record("Soup", number) | {"input": "What is soup?"} for number in (3, 4)])
    for (row, role, seed), found in FOUND.items():
        folder = results / "predictions" / f"labels-250-seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        titles = [title if hit else "Peace" for title, hit in zip(ARTICLES, found, strict=True)]
        write_json_lines(folder / f"{row}.{role}.jsonl", [record(title, n) for n, title in enumerate(titles)])
        (folder / "labelled_titles.json").write_text(json.dumps(LABELLED[seed]), encoding="utf-8")
    closed_book = [
        {"id": f"creak-{n}", "output": [{"answer": answer}]} for n, answer in enumerate((RIGHT, WRONG, RIGHT))
    ]
    write_json_lines(results / "predictions" / "labels-250-seed-1" / "closed-book.baseline.jsonl", closed_book)
    for labels in ("all", "1000"):
        folder = results / "predictions" / f"labels-{labels}-seed-0"
        folder.mkdir()
        write_json_lines(folder / "bm25.baseline.jsonl", [record(title, n) for n, title in enumerate(ARTICLES)])
        (folder / "labelled_titles.json").write_text(json.dumps(LABELLED[0]), encoding="utf-8")
    for (row, seed), answers in ANSWERS.items():
        folder = results / "answers" / f"labels-250-seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        write_json_lines(folder / f"{row}.rag.jsonl", [record("Soup", n, answer) for n, answer in answers.items()])
    for seed in (0, 1):
        folder = results / "reports" / f"labels-250-seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "iteration-1.json").write_text(json.dumps({"precision": PRECISION}), encoding="utf-8")
    (results / "index_titles.json").write_text('["Soup"]', encoding="utf-8")
    run(environment, "tables", "--train", train, "--dev", dev, "--results", results)
    return results


@pytest.fixture(scope="module")
def report(results):
    return json.loads((results / "results.json").read_text(encoding="utf-8"))


def test_answers_that_stand_in_their_article_are_pooled_over_dev_and_labels_not_drawn(report):
    found = {one["row"]: one for one in report["answers_systems"]}
    assert {row: one["queries"] for row, one in found.items()} == {"auxiliary": 3, "basic": 3, "substituted": 2}
    # Of the two that were not drawn, one is answered rightly; by the other row one with one seed of two.
    assert found["basic"]["scores"]["em"]["mean"] == approx(2 / 3)
    assert found["auxiliary"]["scores"]["em"]["mean"] == approx(2.5 / 3)
    (compared,) = report["answers_comparisons"]
    assert (compared["first"], compared["second"]) == (["auxiliary", "rag"], ["basic", "rag"])
    # Compared by the seed that both were asked with: the other answers both rightly there.
    assert compared["differences"]["em"]["difference"] == approx(1 / 3)


def test_tables_pool_seeds_and_compare_two_rows_by_the_seeds_that_both_have(report):
    basic = next(one for one in report["systems"] if one["row"] == "basic")
    means = {name: group["scores"]["r_precision"]["mean"] for name, group in basic["groups"].items()}
    assert basic["seeds"] == 2 and means["all"] == approx(3 / 6)
    assert (means["article indexed"], means["article not indexed"]) == (0, 0.75)
    # Labelled with both seeds: Cairo, found once; with one: the Nile, found then and found with the other seed.
    assert means["article labelled"] == approx((1 / 2 + 1) / 2)
    assert means["article not labelled"] == approx((1 + 0) / 2)

    compared = report["comparisons"][0]
    assert (compared["first"], compared["second"], compared["seeds"]) == (["auxiliary", "rag"], ["basic", "rag"], 1)
    assert compared["groups"]["all"]["differences"]["r_precision"]["difference"] == approx(2 / 3)
    assert compared["groups"]["article not labelled"]["differences"]["r_precision"]["difference"] == 1


def test_tables_go_by_the_number_of_labels_and_all_of_them_come_last(report):
    assert list(dict.fromkeys(one["labels"] for one in report["systems"])) == ["250", "1000", "all"]


def test_iterations_are_followed_over_the_seeds_of_which_each_is_judged(report, results):
    # Of seed 0 the warm-up was not judged.
    rag = {"r_precision": approx([1, 2 / 3]), "written": [0.5], "kept": [0.75]}
    gar = {"r_precision": approx([1 / 3, 1]), "written": [0.25], "kept": [None]}
    assert report["iterations"] == [{"labels": "250", "seeds": 1, "rag": rag, "gar": gar}]
    assert (results / "iterations.png").is_file()


def test_of_a_system_that_retrieves_nothing_only_answers_are_scored_and_compared(report, results):
    (closed_book,) = [one for one in report["systems"] if one["row"] == "closed-book"]
    scores = closed_book["groups"]["all"]["scores"]
    assert scores["em"]["mean"] == approx(2 / 3) and not {"r_precision", "kilt_em"} & scores.keys()
    (compared,) = [
        one
        for one in report["comparisons"]
        if one["first"] == ["auxiliary", "rag"] and one["second"][0] == "closed-book"
    ]
    differences = compared["groups"]["all"]["differences"]
    assert differences["em"]["difference"] == approx(1 / 3) and "r_precision" not in differences
    tables = (results / "tables.md").read_text(encoding="utf-8").split("\n\n")
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
