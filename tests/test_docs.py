import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from modeling_mint import MintForConditionalGeneration

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh.md"]


def fences(readme: str, language: str) -> list[str]:
    """Code blocks of a language in a README."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / readme).read_text(encoding="utf-8"), re.M | re.S)
    return [code for found, code in blocks if found == language]


@pytest.fixture
def demo_folder(run_folders, tmp_path):
    """A working directory in which the demo has been run, on tiny models; its adapters change nothing."""
    demo = tmp_path / "outputs" / "demo"
    shutil.copytree(run_folders["llama"], demo)
    shutil.copytree(demo / "mint-rag", demo / "mint-base")
    for role in ("rag", "gar"):
        base = MintForConditionalGeneration.from_pretrained(demo / "mint-base")
        base.config.role = role
        adapter = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
        adapter.peft_config["default"].base_model_name_or_path = "../mint-base"
        adapter.save_pretrained(demo / f"mint-{role}-adapter", save_embedding_layers=False)
        base.config.save_pretrained(demo / f"mint-{role}-adapter")
    return tmp_path


@pytest.mark.parametrize("readme", READMES)
def test_python_code_runs_as_it_stands(readme, demo_folder, tmp_path):
    blocks = fences(readme, "python")
    assert blocks
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf-home")}
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=demo_folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_to_files_that_exist(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_scripts_and_commands_that_are_named_exist(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    scripts = set(re.findall(r"`(\w+\.py)`", text)) | set(re.findall(r"examples/(\w+\.py)", text))
    assert scripts and [name for name in scripts if not (ROOT / "examples" / name).is_file()] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", "\n".join(fences(readme, "sh")))) <= targets


def test_layout_is_a_true_picture():
    """Each folder that it shows exists, and each package and folder of code is shown."""
    (layout,) = (block for block in fences("README.md", "") if "modeling_mint/" in block)
    shown, parents = set(), []
    for indent, name in re.findall(r"^( *)([\w./-]+/)", layout, re.M):
        parents = [*parents[: len(indent) // 2], name]
        shown.add("".join(parents).rstrip("/"))
    assert [folder for folder in shown if not (ROOT / folder).is_dir()] == []
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options.packages.find"]["include"].split()
    assert {package.replace(".", "/") for package in packages} | {"examples", "tests"} <= shown
