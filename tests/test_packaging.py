import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ["modeling_mint", "dataset_builders", "trainers", "hub_cards"]

API = """
from pathlib import Path
import sys

from transformers import AutoModel, AutoProcessor, pipeline
import modeling_mint, dataset_builders, trainers, hub_cards

for package in (modeling_mint, dataset_builders, trainers, hub_cards):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__

model = AutoModel.from_pretrained("outputs/mint-rag")
processor = AutoProcessor.from_pretrained("outputs/mint-rag")
found = model.retrieve(["who designed the eiffel tower?"], processor, k=5)
assert len(found.docids[0]) == len(found.scores[0]) == len(found.rows[0]) == 5
ask = pipeline(
    "mint", model="outputs/mint-rag", gar_model="outputs/mint-gar", strategy="ensemble", trust_remote_code=True
)
reply = ask("Who designed the Eiffel Tower?")
assert reply["strategy"] == "ensemble" and {"answer", "score", "documents"} <= reply.keys()
assert {"title", "score", "text"} <= reply["documents"][0].keys()

from trainers.metrics import load_metric
assert load_metric("kilt_retrieval").compute(predictions=[["A"]], references=[[["A"]]], ks=[5])["r_precision"] == 1
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what a clone holds: a build leaves its traces in the source folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in [*PACKAGES, "examples", "tests"]:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    in_source = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_wheel == in_source
    for kind in ("prompts/", "templates/", "space/app.py", "kilt_retrieval.py", "py.typed"):
        assert any(kind in name for name in in_wheel)


def test_api_works_where_only_the_wheel_is_installed(wheel, run_folders, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    # The dependencies are two gigabytes: they are read where they are. The .pth files of a folder that is named in one
    # are not read, so an editable install of this project does not come along.
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copytree(run_folders["llama"], tmp_path / "outputs")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["HF_HOME"] = str(tmp_path / "hf-home")
    done = subprocess.run([str(python), "-c", API], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
