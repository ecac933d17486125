"""A push that goes wrong leaves no repository half changed, says what to do, and is finished by the next one."""

import json
import subprocess
import sys

import pytest

from tests.hub_cards.conftest import ROOT

GAR = "/my-org/mint-gar"
FAULTS = {
    "preupload is refused": lambda hub: hub.fail(403, method="POST", path_contains=f"{GAR}/preupload/"),
    "large file is refused": lambda hub: hub.fail(403, method="PUT", path_contains="/storage/"),
    # As often as the client tries by itself.
    "large file is cut": lambda hub: hub.cut("request", after=10, times=6, method="PUT", path_contains="/storage/"),
    "commit is cut": lambda hub: hub.cut("request", after=10, method="POST", path_contains=f"{GAR}/commit/"),
    "commit finds the Hub busy again and again": lambda hub: hub.fail(
        503, headers={"Retry-After": "0"}, times=3, method="POST", path_contains=f"{GAR}/commit/"
    ),
}
REMEDIES = {
    401: "hf auth login",
    403: "role `write`",
    404: "Check --org and --revision",
    409: "changed by someone else",
    412: "has moved",
    429: "Wait a few minutes",
    500: "out of order",
}
PUSH_UNTIL_IT_WORKS = """
import json, sys
from hub_cards.push import PushError, push_run
errors = []
for _ in range(int(sys.argv[2])):
    try:
        push_run(sys.argv[1], "my-org")
    except PushError as error:
        errors.append(str(error))
print(json.dumps(errors))
"""


def revisions(hub):
    return {repo_id: repo.commit_at("main").sha for (_, repo_id), repo in hub.store.repos.items()}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_push_that_breaks_off_leaves_the_old_revision_and_the_next_one_finishes_it(run_folder, hub, push, fault):
    process = push(run_folder)
    assert process.returncode == 0, process.stderr
    before = revisions(hub)
    weights, report = run_folder / "mint-gar" / "model.safetensors", run_folder / "run.json"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    report.write_text(report.read_text().replace('"seed": 42', '"seed": 43'))

    FAULTS[fault](hub)
    process = push(run_folder)
    assert process.returncode == 1
    after = revisions(hub)
    assert {name for name in before if before[name] != after[name]} == {"my-org/mint-pseudo", "my-org/mint-rag"}
    message = process.stderr.splitlines()[-1]
    assert message.startswith("error: ")
    assert "Not pushed, and as it was before: my-org/mint-gar, my-org/mint-docid-search" in message
    assert "The same command goes on from here" in message
    assert "Traceback" not in process.stderr

    process = push(run_folder)
    assert process.returncode == 0, process.stderr
    assert hub.read("my-org/mint-gar", "model.safetensors").endswith(b"\x01")
    assert "43" in hub.read("my-org/mint-gar", "README.md").decode()
    assert revisions(hub)["my-org/mint-rag"] == after["my-org/mint-rag"]


@pytest.mark.slow
def test_each_refusal_of_the_hub_is_explained_with_its_remedy(run_folder, hub, tmp_path):
    for number, status in enumerate(REMEDIES, 1):
        hub.fail(status, headers={"Retry-After": "3600"}, nth=number, method="POST", path_contains="/commit/")
    environment = hub.environment(tmp_path / "hf") | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PUSH_UNTIL_IT_WORKS, str(run_folder), str(len(REMEDIES))]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    for (status, remedy), message in zip(REMEDIES.items(), json.loads(process.stdout), strict=True):
        assert message.startswith(f"{status}, ")
        assert remedy in message
        assert "Pushed: nothing." in message
    assert hub.paths("my-org/mint-collection", "dataset") == set()


@pytest.mark.slow
def test_push_survives_a_hub_that_is_busy_for_a_moment(run_folder, hub, push):
    busy = {"headers": {"Retry-After": "0"}, "method": "POST"}
    for path in ("/api/validate-yaml", "/api/repos/create", "/mint-rag/branch/", "/mint-rag/commit/", "/items"):
        hub.fail(503, path_contains=path, **busy)
    hub.fail(429, path_contains="/api/collections", **busy)
    process = push(run_folder, "--revision", "v2")
    assert process.returncode == 0, process.stderr
    assert "config.json" in hub.paths("my-org/mint-rag", revision="v2")
    statuses = [request.status for request in hub.requests]
    assert (statuses.count(503), statuses.count(429)) == (5, 1)


@pytest.mark.slow
def test_card_that_the_hub_refuses_stops_the_push_before_anything_is_made(run_folder, hub, push):
    hub.fail(400, nth=3, method="POST", path_contains="/api/validate-yaml")
    process = push(run_folder)
    assert process.returncode == 1
    assert "error: The Hub refuses the card of my-org/mint-rag" in process.stderr
    assert hub.store.repos == {}
