"""Several processes: the same end as one process, a kill included; and the launcher's configurations."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env
from warm_up import read_training_log

from modeling_mint import MintConfig, MintForConditionalGeneration
from tests.examples.conftest import ROOT
from tests.tiny import tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer
from trainers.blocks import load_json_lines

CONFIGS = ROOT / "examples" / "accelerate_configs"
ROLES = ("rag", "gar")
STAGES = ("warm-up", "co-training/iteration-1")


@pytest.mark.parametrize(
    ("name", "kind", "num_processes"),
    [
        ("cpu", DistributedType.MULTI_GPU, 2),
        ("ddp", DistributedType.MULTI_GPU, 8),
        ("fsdp2", DistributedType.FSDP, 8),
        ("deepspeed_zero2", DistributedType.DEEPSPEED, 8),
        ("deepspeed_zero3", DistributedType.DEEPSPEED, 8),
    ],
)
def test_launcher_takes_each_configuration(name, kind, num_processes):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type, config.num_processes) == (kind, num_processes)
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIGS / f"{name}.yaml"), "run_mint.py"])
    launched = _validate_launch_command(arguments)[0]
    assert launched.num_processes == num_processes
    assert (launched.multi_gpu, launched.use_fsdp, launched.use_deepspeed) == tuple(
        kind == one for one in (DistributedType.MULTI_GPU, DistributedType.FSDP, DistributedType.DEEPSPEED)
    )
    if kind == DistributedType.DEEPSPEED:
        assert launched.zero_stage == int(name[-1])


@pytest.mark.parametrize(
    ("tokenizer", "backbone", "layer"),
    [(tiny_byte_level_tokenizer, tiny_llama, "LlamaDecoderLayer"), (tiny_unigram_tokenizer, tiny_t5, "T5Block")],
)
def test_fsdp_takes_the_layers_of_the_backbone_as_its_units(tokenizer, backbone, layer):
    backbone = backbone(tokenizer())
    model = MintForConditionalGeneration(MintConfig(backbone_config=backbone.config), backbone)
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIGS / "fsdp2.yaml"), "run_mint.py"])
    with patch_environment(**prepare_multi_gpu_env(_validate_launch_command(arguments)[0])):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    plugin.set_auto_wrap_policy(model)
    units = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert [unit.__name__ for unit in units] == [layer]


def on_processes(words: list[str]) -> list[str]:
    """The same command on two CPU processes over gloo, each with half of the batch."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", f"--config_file={CONFIGS / 'cpu.yaml'}"]
    return [*launch, *words[1:], "--train_batch_size=4"]


def samples_of(folder: Path) -> dict[str, list[tuple]]:
    """What the models wrote and what of it was kept."""
    written = {role: load_json_lines(folder / f"work/co-training/iteration-1/{role}_samples.jsonl") for role in ROLES}
    return {
        role: [(one["query"], one["answers"], one["docids"], one["kept"]) for one in samples]
        for role, samples in written.items()
    }


def losses_of(folder: Path) -> dict[str, float]:
    """All losses that were logged, in the warm-up and in co-training."""
    return {
        f"{stage}, {role}, step {entry['step']}: {name}": value
        for stage in STAGES
        for role in ROLES
        for entry in read_training_log(folder / "work" / stage / f"mint-{role}")
        for name, value in entry.items()
        if "loss" in name
    }


def assert_same_end(folder: Path, other: Path) -> None:
    """Both runs have the same samples, kept and not, and the same losses."""
    assert samples_of(folder) == samples_of(other)
    assert any(kept for *_, kept in samples_of(folder)["rag"])
    losses = losses_of(folder)
    assert len(losses) > 2 * 10  # steps of the two warm-ups
    assert losses == pytest.approx(losses_of(other), rel=0, abs=1e-4)


@pytest.fixture(scope="module", params=[True, False], ids=["adapters", "full"])
def adapters(request):
    return request.param


@pytest.fixture(scope="module")
def run_words(command, adapters):
    """A run with a checkpoint every other step and with several blocks of samples, as a command."""

    def make(folder: Path) -> list[str]:
        options = {"adapters": str(adapters).lower(), "block_size": 3, "save_steps": 2, "logging_steps": 1}
        return [*command("run_mint", folder, **options), "--no_serve"]

    return make


@pytest.fixture(scope="module")
def alone(run_words, run, tmp_path_factory):
    """The folder of a run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    ended = run(run_words(folder))
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.slow
def test_two_processes_end_as_one_does(run_words, run, alone, tmp_path):
    ended = run(on_processes(run_words(tmp_path)))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_same_end(tmp_path, alone)
    # The main process alone speaks.
    assert ended.stderr.count("warm_up: starting") == ended.stdout.count("# MINT run") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "marker",
    [
        "work/warm-up/.mint-gar.checkpoints/checkpoint-2/trainer_state.json",
        "work/co-training/iteration-1/rag_samples.jsonl",
    ],
)
def test_run_of_which_a_process_was_killed_ends_the_same_when_started_again(
    marker, run_words, run, environment, alone, tmp_path
):
    words = on_processes(run_words(tmp_path))
    launcher = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / marker).exists():
        assert launcher.poll() is None, f"the run ended before it wrote {marker}"
        time.sleep(0.01)
    os.kill(workers_of(launcher.pid)[-1], signal.SIGKILL)
    # The launcher ends the other process, which waits for the one that died.
    assert launcher.wait(timeout=120) != 0
    assert not (tmp_path / "report.md").exists()
    ended = run(words)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_same_end(tmp_path, alone)


def workers_of(launcher: int) -> list[int]:
    """Ids of the processes that the launcher started."""
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
