import json
import math
import sys

import pytest
from transformers import AutoModel, AutoProcessor, pipeline

import modeling_mint
from modeling_mint import MintPipeline, StrategyInference
from tests.tiny import TITLES

QUESTION = "Who designed the Eiffel Tower?"
QUESTIONS = [QUESTION, "moon", "In which city of which country was Frédéric Chopin born?"]


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory):
    """Neither Arrow copies of the collection nor copies of remote code stay behind."""
    root = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", root / "datasets")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(root / "modules"))
        # Another test may have loaded remote code from the user's own cache, which then comes first.
        patch.syspath_prepend(root / "modules")
        for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
            patch.delitem(sys.modules, name)
        yield


@pytest.fixture(scope="module")
def ask(run_folders):
    """The pipeline of the first screen: both models by folder, after `import modeling_mint`."""
    return pipeline(
        "mint",
        model=str(run_folders["llama"] / "mint-rag"),
        gar_model=str(run_folders["llama"] / "mint-gar"),
        pipeline_class=MintPipeline,
    )


def test_first_screen_runs_as_the_documentation_shows_it(kind, run_folders):
    folder = run_folders[kind]
    model = AutoModel.from_pretrained(folder / "mint-rag")
    processor = AutoProcessor.from_pretrained(folder / "mint-rag")
    assert type(model) is modeling_mint.MintForConditionalGeneration
    found = model.retrieve(["who designed the eiffel tower?"], processor, k=5)
    assert [len(found.docids[0]), len(found.scores[0]), len(found.rows[0])] == [5, 5, 5]

    ask = pipeline(
        "mint",
        model=str(folder / "mint-rag"),
        gar_model=str(folder / "mint-gar"),
        strategy="ensemble",
        trust_remote_code=True,
    )
    result = ask(QUESTION)
    assert set(result) == {"answer", "score", "abstained", "documents", "strategy"}
    assert result["strategy"] == "ensemble" and isinstance(result["answer"], str)
    assert 0 <= result["score"] <= 1 and result["abstained"] is False
    assert len(result["documents"]) == 5
    assert sum(document["score"] for document in result["documents"]) == pytest.approx(1)
    for document in result["documents"]:
        assert document["title"] == TITLES[document["row"]]
        assert document["text"] == f"{document['title']} is known in Paris and the world."


@pytest.mark.parametrize("strategy", modeling_mint.STRATEGIES)
def test_pipeline_gives_what_its_strategy_gives(strategy, ask, models, processors):
    pair = {role: models["llama", role] for role in ("rag", "gar")}
    expected = StrategyInference(QUESTIONS, processors["llama"], **pair, k=3).run(strategy)
    results = ask(QUESTIONS, strategy=strategy, top_k=3)
    assert [one["answer"] for one in results] == expected.answers
    assert [one["score"] for one in results] == pytest.approx(expected.scores)
    assert [[document["row"] for document in one["documents"]] for one in results] == expected.rows
    assert {one["strategy"] for one in results} == {strategy}


def test_partner_may_be_a_model_and_the_strategy_defaults_to_the_role(models, processors):
    ask = MintPipeline(models["llama", "gar"], processor=processors["llama"], rag_model=models["llama", "rag"])
    assert ask(QUESTION)["strategy"] == "gar"
    assert ask(QUESTION, strategy="cascade")["strategy"] == "cascade"


def test_list_of_questions_gives_a_list_and_a_list_of_one_a_list_of_one(ask):
    results = ask(QUESTIONS)
    assert [one["answer"] for one in results] == [ask(question)["answer"] for question in QUESTIONS]
    [alone] = ask([QUESTION])
    # A smaller batch is summed up in another order, so that scores differ in their last digits.
    assert alone == results[0] | {
        "score": pytest.approx(results[0]["score"], rel=1e-4),
        "documents": [one | {"score": pytest.approx(one["score"], rel=1e-4)} for one in results[0]["documents"]],
    }
    assert ask([]) == []


def test_threshold_abstains_and_keeps_score_and_documents(ask):
    sure = ask(QUESTION)
    doubtful = ask(QUESTION, threshold=math.nextafter(sure["score"], 1))
    assert doubtful["abstained"] is True and doubtful["answer"] == ""
    assert (doubtful["score"], doubtful["documents"]) == (sure["score"], sure["documents"])
    assert ask(QUESTION, threshold=sure["score"])["abstained"] is False


def test_arguments_of_a_call_go_before_those_of_the_pipeline(models, processors):
    ask = MintPipeline(models["llama", "rag"], processor=processors["llama"], top_k=2, threshold=1.1)
    assert len(ask(QUESTION)["documents"]) == 2 and ask(QUESTION)["abstained"]
    result = ask(QUESTION, top_k=4, threshold=0.0)
    assert len(result["documents"]) == 4 and not result["abstained"]


@pytest.mark.parametrize("question", ["", " \n", None, 7, ["fine?", ""]])
def test_question_that_is_none_is_refused(ask, question):
    with pytest.raises((ValueError, TypeError), match="string that is not empty|iterable"):
        ask(question)


def test_unknown_argument_is_refused_with_the_known_ones(ask, models, processors):
    with pytest.raises(ValueError, match=r"Unknown argument\(s\) \['topk'\]; this pipeline takes .*'top_k'"):
        ask(QUESTION, topk=3)
    with pytest.raises(ValueError, match="'topk'"):
        MintPipeline(models["llama", "rag"], processor=processors["llama"], topk=3)


def test_unknown_strategy_is_refused(ask):
    with pytest.raises(ValueError, match="`strategy` is 'vote'"):
        ask(QUESTION, strategy="vote")


def test_strategy_without_its_partner_says_which_to_give(models, processors):
    ask = MintPipeline(models["llama", "rag"], processor=processors["llama"])
    with pytest.raises(ValueError, match="needs a GAR model: give `gar_model`"):
        ask(QUESTION, strategy="ensemble")


def test_partner_of_the_wrong_role_is_refused(models, processors, run_folders):
    rag, gar, processor = models["llama", "rag"], models["llama", "gar"], processors["llama"]
    with pytest.raises(ValueError, match="`gar_model` has the role 'rag'"):
        MintPipeline(rag, processor=processor, gar_model=rag)
    with pytest.raises(ValueError, match="`gar_model` has the role 'rag'"):
        MintPipeline(rag, processor=processor, gar_model=run_folders["llama"] / "mint-rag")
    with pytest.raises(ValueError, match="`model` is itself the RAG model; give its partner, not `rag_model`"):
        MintPipeline(rag, processor=processor, rag_model=gar)


@pytest.mark.parametrize("strategy", modeling_mint.STRATEGIES)
def test_details_tell_what_each_model_did_and_change_nothing(strategy, ask):
    plain, detailed = ask(QUESTIONS, strategy=strategy), ask(QUESTIONS, strategy=strategy, details=True)
    for one, other in zip(plain, detailed, strict=True):
        details = other.pop("details")
        assert other["answer"] == one["answer"] and other["score"] == pytest.approx(one["score"])
        assert [document["row"] for document in other["documents"]] == [
            document["row"] for document in one["documents"]
        ]
        roles = {"rag": {"rag"}, "gar": {"gar"}}.get(strategy, {"rag", "gar"})
        assert set(details["answers"]) == roles
        assert set(details["documents"]) == set(details["trees"]) == ({"gar"} if strategy == "cascade" else roles)
        assert one["answer"] in [answer["answer"] for answer in details["answers"].values()]
        assert set(details["seconds"]) == {"retrieval", "answer"}
        assert json.loads(json.dumps(details)) == details


def test_documents_come_from_the_trie_that_is_given(ask):
    rows = [4, 7, 11]
    reply = ask(QUESTION, strategy="ensemble", trie=ask.processor.trie.subset(rows), details=True)
    assert {document["row"] for document in reply["documents"]} == set(rows)
    assert all({one["row"] for one in found} == set(rows) for found in reply["details"]["documents"].values())
