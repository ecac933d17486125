"""The Hub of the tests against the real `huggingface_hub`: repositories, tokens, cards, Collections."""

from functools import partial

import pytest

from tests.hub_server import API, Account, HubServer, run_fresh

CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\ntags:\n- mint\n---\n# A model\n"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def fresh(hub, tmp_path):
    return partial(run_fresh, hub, tmp_path)


def test_repositories_are_created_once_listed_and_deleted(hub, fresh):
    code = """
urls = [api.create_repo("org/x", repo_type=kind, space_sdk=kind == "space" and "gradio" or None)
        for kind in ("model", "dataset", "space")]
ids = [url.repo_id + " " + url.repo_type for url in urls] + [api.create_repo("own").repo_id]
ids.append(api.create_repo("org/x", exist_ok=True).repo_id)
listed = [[repo.id for repo in repos(author="org")] for repos in (api.list_models, api.list_datasets, api.list_spaces)]
errors = [error_of(api.create_repo, "org/x")]
api.delete_repo("org/x")
errors += [error_of(api.delete_repo, "org/x"), error_of(api.model_info, "org/x"), api.repo_exists("org/x")]
print(json.dumps([ids, listed, errors, api.space_info("org/x").sdk]))
"""
    ids, listed, errors, sdk = fresh(API + code)
    assert ids == ["org/x model", "org/x dataset", "org/x space", "user/own", "org/x"]
    assert listed == [["org/x"]] * 3 and sdk == "gradio"
    not_found = ["RepositoryNotFoundError", 404]
    assert errors == [["HfHubHTTPError", 409], not_found, not_found, False]
    assert set(hub.store.repos) == {("dataset", "org/x"), ("space", "org/x"), ("model", "user/own")}


def test_tokens_open_what_they_should_and_nothing_else(hub, fresh):
    hub.store.accounts["hf_other"] = Account("other")
    code = """
if sys.argv[1:] == ["owner"]:
    api.create_repo("org/public")
    api.create_repo("org/private", private=True)
    api.create_repo("org/gated")
    api.update_repo_settings("org/gated", gated="auto")
add = lambda repo_id: api.upload_file(repo_id=repo_id, path_in_repo="config.json", path_or_fileobj=b"{}")
print(json.dumps([error_of(add, "org/public"), error_of(add, "org/private"), error_of(api.create_repo, "org/new")]
    + [error_of(hf_hub_download, f"org/{name}", "config.json") for name in ("public", "private", "gated")]
    + [error_of(api.whoami)]))
"""
    fresh(API + code, "owner")
    hub.put_file("org/gated", "config.json", b"{}")
    hidden, forbidden = ["RepositoryNotFoundError", 404], ["HfHubHTTPError", 403]
    gated = ["GatedRepoError", 403]
    assert fresh(API + code, token=hub.read_token) == [forbidden, forbidden, forbidden, None, None, None, None]
    assert fresh(API + code, token="hf_other") == [forbidden, hidden, forbidden, None, hidden, gated, None]
    hidden, login = ["RepositoryNotFoundError", 401], ["HfHubHTTPError", 401]
    *errors, whoami = fresh(API + code, token=None)
    assert errors == [login, hidden, login, None, hidden, ["GatedRepoError", 401]]
    assert whoami[0] == "LocalTokenNotFoundError" and "hf auth login" in whoami[1]
    assert fresh(API + code, token="hf_wrong") == [login] * 7


def test_cards_are_checked_and_pushed(hub, fresh):
    code = """
from huggingface_hub import EvalResult, ModelCard, SpaceCard
api.create_repo("org/m")
card = ModelCard(sys.argv[1])
card.data.model_name = "m"
card.data.eval_results = [EvalResult(task_type="question-answering", dataset_type="org/d", dataset_name="D",
                                     metric_type="em", metric_value=0.5)]
card.validate()
card.push_to_hub("org/m")
upload = lambda content: api.upload_file(repo_id="org/m", path_in_repo="README.md", path_or_fileobj=content)
errors = [
    error_of(ModelCard("---\\nlicense: 3\\n---\\n").validate),
    error_of(SpaceCard("---\\ntitle: T\\nsdk: gradio\\ncolorFrom: magenta\\n---\\n").validate),
    error_of(upload, b"---\\nmodel-index:\\n- results:\\n  - task: {}\\n---\\n"),
    error_of(upload, b"---\\n{\\n---\\n"),
]
print(json.dumps([ModelCard.load("org/m").data.eval_results[0].metric_value, errors]))
"""
    value, errors = fresh(API + code, CARD)
    assert value == 0.5
    assert [kind for kind, _ in errors] == ["ValueError"] * 4
    for (_, message), words in zip(errors, ("license", "colorFrom", "results.task.type", "not YAML"), strict=True):
        assert words in message
    assert hub.read("org/m", "README.md").startswith(b"---\n")


def test_collections_tie_repositories_together(hub, fresh):
    code = """
api.create_repo("org/m"), api.create_repo("org/d", repo_type="dataset")
made = api.create_collection("MINT: models & data", namespace="org", description="All of it")
again = api.create_collection("MINT: models & data", namespace="org", exists_ok=True)
api.add_collection_item(made.slug, "org/m", "model", note="Answers")
api.add_collection_item(made.slug, "org/m", "model", exists_ok=True)
items = api.add_collection_item(made.slug, "org/d", "dataset").items
api.update_collection_item(made.slug, items[1].item_object_id, position=0, note="Trains")
title = api.update_collection_metadata(made.slug, title="MINT").title
errors = [error_of(api.add_collection_item, made.slug, *item) for item in (("org/m", "model"), ("org/x", "model"))]
read = api.get_collection(made.slug)
found = [[item.item_id, item.item_type, item.note, item.position] for item in read.items]
api.delete_collection_item(made.slug, items[0].item_object_id)
left = len(api.get_collection(made.slug).items)
api.delete_collection(made.slug)
errors.append(error_of(api.get_collection, made.slug))
print(json.dumps([made.slug == again.slug, made.slug, title, read.description, found, left, errors]))
"""
    same, slug, title, description, items, left, errors = fresh(API + code)
    assert same and slug.startswith("org/mint-models-data-")
    assert (title, description, left) == ("MINT", "All of it", 1)
    assert items == [["org/d", "dataset", "Trains", 0], ["org/m", "model", "Answers", 1]]
    assert errors == [["HfHubHTTPError", 409], ["RepositoryNotFoundError", 404], ["HfHubHTTPError", 404]]


def test_another_host_is_refused_and_remembered(hub, fresh):
    code = """
hosts = [HfApi(f"{scheme}://hub.example", token=False) for scheme in ("https", "http")]
print(json.dumps([error_of(host.model_info, "org/m")[0] for host in hosts]))
"""
    assert fresh(API + code) == ["ProxyError", "HfHubHTTPError"]
    assert hub.strays == ["hub.example:443", "http://hub.example/api/models/org/m"]


def test_a_fresh_process_cannot_import_the_project_and_says_why_it_failed(fresh):
    for package in ("dataset_builders", "hub_cards", "modeling_mint", "trainers"):
        with pytest.raises(AssertionError, match=f"ModuleNotFoundError.*{package}"):
            fresh(f"import {package}")
