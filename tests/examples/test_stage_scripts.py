import json
import sys

import pytest

from tests.examples.conftest import ROOT, evaluation_rows, predictions

SCRIPTS = ["run_mint", "build_collection", "generate_auxiliary", "warm_up", "co_train", "evaluate_mint", "ask"]


@pytest.mark.parametrize("script", [SCRIPTS[0], SCRIPTS[-1]])
def test_help_names_the_options(script, run):
    shown = run([sys.executable, f"{ROOT}/examples/{script}.py", "--help"])
    assert shown.returncode == 0, shown.stderr
    options = ["--output_dir", "--backbone", "--llm", "--lambda_retrieval", "--max_iterations", "--keep_fraction"]
    options += ["--no_adapters", "--no_merge_adapters", "--load_in_4bit", "--task_sampling", "--report_to"]
    assert all(option in shown.stdout for option in options)
    assert "--no_serve" in shown.stdout and "--no-serve" in shown.stdout
    assert ("--question" in shown.stdout) == (script == "ask")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS[1:-1])
def test_help_of_stage_scripts_names_the_options(script, run):
    shown = run([sys.executable, f"{ROOT}/examples/{script}.py", "--help"])
    assert shown.returncode == 0 and "--output_dir" in shown.stdout


def test_stage_whose_input_is_missing_names_the_script_to_run_first(command, run, tmp_path):
    ended = run(command("generate_auxiliary", tmp_path))
    assert ended.returncode == 2
    assert "run examples/build_collection.py with the same settings first" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_stage_scripts_one_by_one_give_the_figures_of_the_whole_run(finished, command, run, tmp_path):
    for script in SCRIPTS[1:-1]:
        ended = run(command(script, tmp_path))
        assert ended.returncode == 0, ended.stderr
    assert evaluation_rows(tmp_path) == evaluation_rows(finished[0])
    assert predictions(tmp_path) == predictions(finished[0])
    assert json.loads((tmp_path / "evaluation.json").read_text())["num_test"] == 3
