"""Predictions and models scored by a labelled file, through `evaluate_mint.py`."""

import json
import sys

import pytest
from evaluate_mint import parse_mode
from evaluation_arguments import EvaluationArguments
from evaluation_modes import compare_prediction_files, evaluate_models, score_predictions_file
from run_folder import plain_errors

from modeling_mint import STRATEGIES
from tests.examples.conftest import DOCUMENTS, ROOT, write_json_lines

GOLD = [
    {
        "id": f"nqx-{number}",
        "input": f"who founded {document['title']}?" if number % 2 else "who was it?",
        "output": [
            {"answer": "Gustave Eiffel", "provenance": [{"wikipedia_id": str(number), "title": document["title"]}]}
        ],
        "meta": {"task": "open_qa", "answer_in_document": number % 3 == 0},
    }
    for number, document in enumerate(DOCUMENTS[:6])
]


def guesses(*answers, shift=0):
    """Predictions in reverse order; every second one ranks the right page first, the others second."""
    records = []
    for number, answer in enumerate(answers):
        ids = [str(number), "99"] if (number + shift) % 2 else ["99", str(number), str(number)]
        provenance = [{"wikipedia_id": page, "title": f"page {page}"} for page in ids]
        records.append({"id": GOLD[number]["id"], "output": [{"answer": answer, "provenance": provenance}]})
    return records[::-1]


@pytest.fixture
def files(tmp_path):
    """Arguments that name a gold file, two prediction files and where scores go."""
    return {
        "labelled": str(write_json_lines(tmp_path / "gold.jsonl", GOLD)),
        "first": str(write_json_lines(tmp_path / "first.jsonl", guesses(*["Gustave Eiffel"] * 3, *["Eiffel"] * 3))),
        "second": str(write_json_lines(tmp_path / "second.jsonl", guesses(*["Eiffel"] * 6, shift=1))),
        "json": str(tmp_path / "scores" / "out.json"),
    }


def loaded(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line as the script does."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evaluate_mint.py", *map(str, words)])
        return parse_mode()

    return call


def test_the_documented_command_writes_the_official_scorers_keys(files, run):
    words = ["--predictions", files["first"], "--labelled", files["labelled"], "--rank-keys", "wikipedia_id"]
    ended = run([sys.executable, f"{ROOT}/examples/evaluate_mint.py", *words, "--ks", "1,2", "--json", files["json"]])
    assert ended.returncode == 0, ended.stderr
    written = loaded(files["json"])
    assert written["downstream"] == {"accuracy": 0.5, "em": 0.5, "f1": pytest.approx((3 + 3 * 2 / 3) / 6)} | {
        "rougel": pytest.approx((3 + 3 * 2 / 3) / 6, abs=1e-7)
    }
    assert written["kilt"] == {
        "KILT-accuracy": pytest.approx(1 / 6),
        "KILT-em": pytest.approx(1 / 6),
        "KILT-f1": pytest.approx((1 + 2 * 2 / 3) / 6),
        "KILT-rougel": pytest.approx((1 + 2 * 2 / 3) / 6, abs=1e-7),
    }
    assert written["retrieval"] == {
        "Rprec": 0.5,
        **{"precision@1": 0.5, "precision@2": 0.5, "recall@1": 0.5, "recall@2": 1.0},
        **{"success_rate@1": 0.5, "success_rate@2": 1.0},
    }
    assert written["queries"] == 6
    assert set(written["groups"]) >= {"all", "source nqx", "task open_qa", "title in query", "answer in document"}
    assert written["groups"]["title in query"]["scores"]["r_precision"]["mean"] == 1.0
    assert "| first | title not in query | 3 | 0.0 [0.0, 0.0] |" in ended.stdout


def test_several_rank_keys_and_pages_of_training(files, tmp_path, capsys):
    files["train"] = str(write_json_lines(tmp_path / "train.jsonl", GOLD[:2]))
    named = {name: files[name] for name in ("labelled", "train", "json")}
    score_predictions_file(EvaluationArguments(predictions=files["first"], rank_keys="wikipedia_id,title", **named))
    written = loaded(files["json"])
    assert written["retrieval"]["Rprec"] == 0  # the titles differ
    assert written["groups"]["page seen in training"]["queries"] == 2
    assert "page not seen in training | 4 |" in capsys.readouterr().out


def test_two_prediction_files_are_compared(files, capsys):
    arguments = EvaluationArguments(
        labelled=files["labelled"], compare=[files["first"], files["second"]], json=files["json"], num_resamples=200
    )
    compare_prediction_files(arguments)
    written = loaded(files["json"])
    em = written["groups"]["all"]["differences"]["em"]
    assert (em["first"], em["second"], em["difference"]) == (0.5, 0.0, 0.5)
    assert em["share_positive"] > 0.9 and em["low"] < 0.5 < em["high"]
    assert written["groups"]["title in query"]["differences"]["r_precision"]["share_positive"] == 1
    assert "| all | 6 | EM | 50.0 | 0.0 | 50.0 [" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--predictions", "a"], "give the gold file to score by, --labelled"),
        (["--labelled", "a", "--compare", "b"], "--compare takes two prediction files, got 1"),
        (["--labelled", "a", "--predictions", "b", "--rag_model", "c"], "are three modes"),
        (["--labelled", "a", "--predictions", "b", "--ks", "1,x"], "--ks is '1,x'; give positive integers"),
        (["--labelled", "a", "--predictions", "b", "--ks", "0"], "--ks is '0'; give positive integers"),
        (["--labelled", "a", "--predictions", "b", "--rank-keys", "a,"], "--rank_keys is 'a,'"),
        (["--labelled", "a", "--rag_model", "b"], "give the folder to write .* --output_dir"),
        (["--labelled", "a", "--rag_model", "b", "--output_dir", "c", "--strategy", "gar"], "needs a GAR model too"),
        (["--labelled", "a", "--base", "b", "--output_dir", "c"], "--base with the adapters"),
        (["--labelled", "a", "--rag_adapter", "b", "--output_dir", "c"], "--base with the adapters"),
        (["--labelled", "a", "--rag_model", "b", "--output_dir", "c", "--limit", "0"], "must be at least 1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(parse, words, said):
    with pytest.raises(ValueError, match=said):
        parse(*words)


def test_the_options_of_a_run_are_left_to_its_stage(parse, capsys):
    assert parse("--output_dir", "outputs/run", "--backbone", "x", "--strategy=rag", "--no_serve") is None
    assert parse("--config", ROOT / "examples" / "configs" / "demo.yaml") is None
    with pytest.raises(SystemExit):
        parse("--labelled", "a", "--predictions", "b", "--backbone", "x")
    assert "unrecognized arguments: --backbone x" in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["--rank-keys", "--rank_keys"])
def test_rank_keys_are_spelt_either_way(parse, spelling):
    arguments = parse("--labelled", "a", "--predictions", "b", spelling, "wikipedia_id,section")
    assert arguments.keys() == ("wikipedia_id", "section")


def test_bad_input_ends_in_one_line(files, parse, capsys):
    with open(files["first"], "a", encoding="utf-8") as file:
        file.write("{\n")
    with pytest.raises(SystemExit) as ended, plain_errors():
        score_predictions_file(parse("--labelled", files["labelled"], "--predictions", files["first"]))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "first.jsonl, line 7: not valid JSON" in message and message.count("\n") == 1


@pytest.fixture
def model_arguments(finished, inputs, tmp_path):
    """Makes arguments that have the models of a finished run answer its test questions."""

    def make(**options):
        paths = {role: f"{finished[0]}/mint-{role}" for role in ("rag", "gar")}
        defaults = {
            "labelled": str(inputs / "questions.jsonl"),
            "rag_model": paths["rag"],
            "gar_model": paths["gar"],
            "output_dir": str(tmp_path / "evaluated"),
            "ks": "1,5",
            "num_beams": 5,
            "max_new_tokens": 6,
            "num_resamples": 20,
        }
        arguments = EvaluationArguments(**defaults | options)
        arguments.check()
        return arguments

    return make


def test_models_answer_by_every_strategy_and_are_scored(model_arguments, tmp_path, capsys):
    evaluate_models(model_arguments())
    folder = tmp_path / "evaluated"
    written = loaded(folder / "scores.json")
    assert (written["rank_keys"], list(written["strategies"])) == (["title"], list(STRATEGIES))
    titles = {document["title"] for document in DOCUMENTS}
    for strategy, result in written["strategies"].items():
        lines = (folder / f"predictions-{strategy}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert [record["id"] for record in records] == [f"q{number}" for number in range(12)]
        for record in records:
            (output,) = record["output"]
            found = [piece["title"] for piece in output["provenance"]]
            assert isinstance(output["answer"], str) and len(set(found)) == 5 and set(found) <= titles
        again = EvaluationArguments(
            labelled=model_arguments().labelled,
            predictions=str(folder / f"predictions-{strategy}.jsonl"),
            rank_keys="title",
            ks="1,5",
            num_resamples=20,
            json=str(tmp_path / "again.json"),
        )
        score_predictions_file(again)
        assert loaded(tmp_path / "again.json") == result
        assert "## Wrong retrieval: " in (folder / f"examples-{strategy}.md").read_text(encoding="utf-8")
    assert (folder / "scores.md").read_text(encoding="utf-8") in capsys.readouterr().out


def test_an_interrupted_evaluation_goes_on_with_the_blocks_that_are_missing(model_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.strategy_predictions.BLOCK_SIZE", 4)
    evaluate_models(model_arguments(strategy="rag", limit=9))
    folder = tmp_path / "evaluated"
    blocks = sorted((folder / "blocks").iterdir())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in blocks}
    scores = (folder / "scores.json").read_bytes()
    assert len(blocks) == 3
    blocks[1].unlink()
    (folder / "scores.json").unlink()
    evaluate_models(model_arguments(strategy="rag", limit=9))
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in blocks}
    assert after[blocks[1]][1] == before[blocks[1]][1] and after[blocks[1]][0] > before[blocks[1]][0]
    assert all(after[path] == before[path] for path in (blocks[0], blocks[2]))
    assert (folder / "scores.json").read_bytes() == scores
    with pytest.raises(ValueError, match=r"holds an evaluation with other settings \(num_beams\)"):
        evaluate_models(model_arguments(strategy="rag", limit=9, num_beams=6))


def test_adapters_on_one_base_answer_as_the_merged_models(model_arguments, finished, tmp_path):
    evaluate_models(model_arguments(strategy="cascade"))
    adapters = {f"{role}_adapter": f"{finished[0]}/mint-{role}-adapter" for role in ("rag", "gar")}
    adapters |= {"rag_model": "", "gar_model": "", "base": f"{finished[0]}/mint-base"}
    evaluate_models(model_arguments(strategy="cascade", output_dir=str(tmp_path / "adapted"), **adapters))
    merged, adapted = (loaded(tmp_path / name / "scores.json") for name in ("evaluated", "adapted"))
    assert adapted["strategies"]["cascade"]["retrieval"] == merged["strategies"]["cascade"]["retrieval"]


def test_blind_questions_get_predictions_and_no_scores(model_arguments, tmp_path):
    blind = write_json_lines(tmp_path / "blind.jsonl", [{"id": 7, "input": "who founded Paris?"}])
    evaluate_models(model_arguments(labelled=str(blind), gar_model=""))
    folder = tmp_path / "evaluated"
    assert {path.name for path in folder.iterdir()} == {"blocks", "evaluation-settings.json", "predictions-rag.jsonl"}


def test_a_model_of_the_other_role_is_refused(model_arguments, finished):
    with pytest.raises(ValueError, match="mint-gar is a GAR model, given as --rag_model"):
        evaluate_models(model_arguments(rag_model=f"{finished[0]}/mint-gar", gar_model=""))
