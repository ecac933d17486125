"""What a co-training run has done so far: a journal of its steps, one file that is always whole."""

import hashlib
import json
import os
from pathlib import Path

from datasets import Dataset

from dataset_builders.writing import write_text

from .blocks import this_process

STATE_NAME = "state.json"


class RunState:
    """
    The results of all steps that are done, by iteration, in the file `state.json`. It is written anew after each step,
    whole or not at all, so that a run which was killed at any moment knows where to go on.

    Every process has the same state: the main process writes, and all read what it wrote.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the run, made if it does not exist; the processes must share it.
        settings (`dict`):
            All that decides how the run ends, fit for JSON.

    Raises:
        ValueError: if the folder belongs to a run with other settings, or holds iterations of an unknown run.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict):
        self.folder = Path(folder)
        self.path = self.folder / STATE_NAME
        process = this_process()
        if process.is_main_process:
            if self.path.is_file():
                self._check(json.loads(self.path.read_text(encoding="utf-8"))["settings"], settings)
            else:
                self._start(settings)
        process.wait_for_everyone()
        self._state = json.loads(self.path.read_text(encoding="utf-8"))

    def _check(self, earlier: dict, settings: dict) -> None:
        settings = json.loads(json.dumps(settings))
        if earlier == settings:
            return
        names = sorted(name for name in earlier | settings if earlier.get(name) != settings.get(name))
        changes = "; ".join(f"{name}: {earlier.get(name)} then, {settings.get(name)} now" for name in names)
        raise ValueError(
            f"{self.folder} belongs to a co-training run with other settings ({changes}). Set them back to go on with "
            "it, or give another `output_dir`."
        )

    def _start(self, settings: dict) -> None:
        if any(self.folder.glob("iteration-*")):
            raise ValueError(
                f"{self.folder} holds iterations but no {STATE_NAME}, so that nobody knows which run they are of: "
                "delete them or give another `output_dir`."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"settings": settings, "iterations": []})

    def _write(self, state: dict) -> None:
        write_text(self.path, json.dumps(state, indent=1, ensure_ascii=False) + "\n")

    def results(self, iteration: int) -> dict[str, dict]:
        """Results of the steps that are done of an iteration, by name, in the order in which they were done."""
        iterations = self._state["iterations"]
        return iterations[iteration] if iteration < len(iterations) else {}

    def results_of(self, step: str) -> list[dict]:
        """Results of a step in all iterations in which it is done, in their order."""
        return [results[step] for results in self._state["iterations"] if step in results]

    def finish(self, iteration: int, step: str, result: dict) -> None:
        """
        Notes a step as done, in all processes, once all of them are. What the step's files hold can be relied on from
        here on.

        Args:
            iteration (`int`): the last iteration, or the one after it.
            step (`str`): name of the step.
            result (`dict`): what later steps need of it, fit for JSON; the main process's counts.
        """
        process = this_process()
        process.wait_for_everyone()
        if process.is_main_process:
            iterations = self._state["iterations"]
            before, results = iterations[:iteration], self.results(iteration)
            self._write(self._state | {"iterations": [*before, results | {step: result}]})
        process.wait_for_everyone()
        self._state = json.loads(self.path.read_text(encoding="utf-8"))


def model_digest(folder: str | os.PathLike) -> str:
    """
    Names the content of a model folder.

    Args:
        folder (`str` or `os.PathLike`): folder of a full model or of an adapter.

    Returns:
        `str`: SHA-256 over its weights and configurations.

    Raises:
        ValueError: if it holds no weights.
    """
    weights = sorted(Path(folder).glob("*model*.safetensors"))
    if not weights:
        raise ValueError(f"{folder} holds no model: no file there matches *model*.safetensors.")
    digest = hashlib.sha256()
    for path in [*weights, *sorted(Path(folder).glob("*config.json"))]:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def samples_digest(samples: Dataset) -> str:
    """
    Names the content of samples.

    Args:
        samples (`datasets.Dataset`): samples in the common schema.

    Returns:
        `str`: SHA-256 over their ids, queries, answers and docids, in order.
    """
    digest = hashlib.sha256()
    for sample in samples.select_columns(["id", "query", "answers", "docids"]):
        digest.update(json.dumps(sample).encode())
    return digest.hexdigest()
