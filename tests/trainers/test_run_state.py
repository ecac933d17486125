import json
import shutil

import pytest
import torch

from tests.tiny import TITLES
from trainers.run_state import RunState, model_digest, samples_digest

SETTINGS = {"arguments.block_size": 4, "training.learning_rate": 1e-3, "run.seed": 3}


def test_a_run_that_is_opened_again_knows_what_is_done(tmp_path):
    state = RunState(tmp_path / "run", SETTINGS)
    assert state.results(0) == {} and state.results_of("judge") == []
    state.finish(0, "judge", {"rag": 0.25})
    state.finish(0, "report", {"iteration": 0})
    state.finish(1, "generate_rag", {"samples": 6})
    for opened in (state, RunState(tmp_path / "run", SETTINGS)):
        assert list(opened.results(0)) == ["judge", "report"]
        assert opened.results(1) == {"generate_rag": {"samples": 6}}
        assert opened.results_of("judge") == [{"rag": 0.25}]
        assert opened.results(2) == {}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.json"]


def test_a_state_that_was_cut_short_in_writing_does_not_count(tmp_path):
    state = RunState(tmp_path, SETTINGS)
    state.finish(0, "judge", {"rag": 0.25})
    (tmp_path / ".state.json.tmp").write_text((tmp_path / "state.json").read_text()[:20])
    assert RunState(tmp_path, SETTINGS).results(0) == {"judge": {"rag": 0.25}}


def test_a_folder_of_a_run_with_other_settings_is_refused_by_name(tmp_path):
    RunState(tmp_path, SETTINGS)
    before = (tmp_path / "state.json").read_text()
    other = SETTINGS | {"training.learning_rate": 1e-4, "examples.num_documents": 2}
    message = (
        r"other settings \(examples.num_documents: None then, 2 now; training.learning_rate: 0.001 then, 0.0001 now\)"
    )
    with pytest.raises(ValueError, match=message):
        RunState(tmp_path, other)
    assert (tmp_path / "state.json").read_text() == before


def test_settings_compare_as_json_has_them(tmp_path):
    RunState(tmp_path, {"arguments.rows": (1, 2)})
    assert RunState(tmp_path, {"arguments.rows": [1, 2]}).results(0) == {}


def test_iterations_of_an_unknown_run_are_refused(tmp_path):
    (tmp_path / "iteration-1").mkdir()
    with pytest.raises(ValueError, match="holds iterations but no state.json"):
        RunState(tmp_path, SETTINGS)


def test_a_model_is_known_by_its_weights_and_settings_wherever_it_lies(make_model, tmp_path):
    make_model("rag", 0).save_pretrained(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "elsewhere")
    digest = model_digest(tmp_path / "model")
    assert model_digest(tmp_path / "elsewhere") == digest
    make_model("rag", 1).save_pretrained(tmp_path / "other")
    make_model("gar", 0).save_pretrained(tmp_path / "partner")
    nudged = make_model("rag", 0)
    with torch.no_grad():
        nudged.get_input_embeddings().weight[3, 3] += 1e-3
    nudged.save_pretrained(tmp_path / "nudged")
    digests = {model_digest(tmp_path / name) for name in ("model", "other", "partner", "nudged")}
    assert len(digests) == 4


def test_a_folder_without_weights_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="holds no model"):
        model_digest(tmp_path)


def test_samples_are_known_by_what_is_learnt_from_them(make_samples, make_sample):
    samples = make_samples([2, 5])
    assert samples_digest(make_samples([2, 5])) == samples_digest(samples)
    assert samples_digest(make_samples([5, 2])) != samples_digest(samples)
    asked = samples.map(lambda sample: {"query": sample["query"] + TITLES[0]})
    assert samples_digest(asked) != samples_digest(samples)
