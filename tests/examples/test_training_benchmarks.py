"""The benchmarks of training run as a user runs them, on tiny backbones and few steps; no timing is looked at."""

import pytest

from tests.examples.conftest import run_benchmark

DECODER, ENCODER_DECODER = "decoder-only", "encoder-decoder"
STEPS = ["--num_steps", "3", "--warmup_steps", "1", "--batch_size", "4", "--repeats", "1", "--bf16", "false"]


@pytest.fixture
def train(inputs, environment, tmp_path):
    """Runs training.py; returns what it printed and its report."""
    backbones = ["--backbone", str(inputs / "llama"), "--encoder_decoder", str(inputs / "t5")]
    return lambda *options: run_benchmark("training", environment, tmp_path, *backbones, *STEPS, *options)


def check(report):
    for result in report["results"].values():
        systems = result["systems"]
        grouped, plain, *_, naive = systems
        # The plain trainer has the same batches, naive batching the same examples.
        assert len(systems[grouped]["tokens_by_step"]) == 4
        assert systems[grouped]["tokens_by_step"] == systems[plain]["tokens_by_step"]
        assert systems[grouped]["tokens"] == systems[naive]["tokens"] == sum(systems[naive]["tokens_by_step"][1:])
        assert systems[grouped]["tokens_by_step"] != systems[naive]["tokens_by_step"]
        assert systems[grouped]["padding"] < systems[naive]["padding"]
        for figures in systems.values():
            assert sum(figures["tokens_by_step"]) == sum(systems[grouped]["tokens_by_step"])
            assert figures["tokens_per_second"]["calls"] == figures["peak_bytes"]["calls"] == 1
            assert figures["tokens_per_second"]["min"] > 0 and figures["peak_bytes"]["min"] > 10e6
        assert result["joint_to_plain"] == pytest.approx(
            systems[grouped]["tokens_per_second"]["median"] / systems[plain]["tokens_per_second"]["median"]
        )
    assert report["results"][DECODER]["systems"]["joint, packed"]["padding"] == 0
    assert "joint, packed" not in report["results"][ENCODER_DECODER]["systems"]


@pytest.mark.slow
def test_training_benchmark_on_made_up_examples(train):
    printed, report = train("--num_examples", "200")
    assert list(report["results"]) == [DECODER, ENCODER_DECODER]
    check(report)
    assert "at least 0.97 times plain" in printed and "at least 1.4 times naive" in printed
    assert report["settings"]["num_steps"] == 3 and "cores" in report["machine"]


@pytest.mark.slow
def test_training_benchmark_on_a_run(train, finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr[-3000:]
    _, report = train("--run", str(folder))
    check(report)


@pytest.mark.slow
def test_memory_benchmark(inputs, environment, tmp_path):
    options = ["--backbone", str(inputs / "llama"), "--num_steps", "2", "--batch_size", "4", "--repeats", "1"]
    effort = ["--lora_rank", "2", "--num_documents", "3", "--bf16", "false"]
    printed, report = run_benchmark("co_training_memory", environment, tmp_path, *options, *effort)
    one, two, full = report["steps"]
    assert list(report["steps"][one]) == ["before", "warm_up_rag"]
    for system in (two, full):
        steps = list(report["steps"][system].items())
        assert [name for name, _ in steps] == [
            "before",
            "warm_up_rag",
            "warm_up_gar",
            "generate",
            "train_rag",
            "train_gar",
        ]
        assert [most for _, most in steps] == sorted(most for _, most in steps)
    for system in (one, two, full):
        taken = report["steps"][system]
        assert report["peak_bytes"][system]["median"] == max(taken.values()) > 10e6
        assert report["net_bytes"][system]["median"] == max(taken.values()) - taken["before"] > 0
        net = report["net_bytes"]
        assert report["to_one_adapter"][system] == pytest.approx(net[system]["median"] / net[one]["median"])
    assert "two adapters at most 1.2 times one" in printed
