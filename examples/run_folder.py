"""The folder of a run: where each stage puts its work, what is done already, and what it cost."""

import json
import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import datasets
import torch
import transformers
from accelerate import PartialState
from arguments import Settings

from dataset_builders.writing import write_text

logger = logging.getLogger(__name__)

_OUR_FOLDERS = {"examples", "hub_cards", "trainers", "dataset_builders", "modeling_mint"}

# Settings that change nothing in what a run writes.
_NOT_PART_OF_A_RUN = {
    "output_dir",
    "serve",
    "strategy",
    "inference_batch_size",
    "num_proc",
    "llm_batch_size",
    "llm_concurrency",
    "requests_per_minute",
    "prompt_price",
    "completion_price",
    "report_to",
}


class RunFolder:
    """
    Paths of a run and its finished stages. Under `accelerate launch` the processes share the folder, and the main one
    writes the files that belong to no stage.

    Args:
        settings ([`Settings`]):
            Settings of the run. They are kept in `settings.json` once a stage is done; a folder that holds a run with
            other settings is refused.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """

    def __init__(self, settings: Settings):
        self.root = Path(settings.run.output_dir)
        self.collection = self.root / "mint-collection"
        self.pseudo = self.root / "mint-pseudo"
        self.work = self.root / "work"
        self.warm_up = self.work / "warm-up"
        self.co_training = self.work / "co-training"
        # With adapters: the base that both are on, the adapters, and full models that they are merged into.
        self.base = self.root / "mint-base"
        self.adapters = {role: self.root / f"mint-{role}-adapter" for role in ("rag", "gar")}
        self.models = {role: self.root / f"mint-{role}" for role in ("rag", "gar")}
        self.trained = self.adapters if settings.training.adapters else self.models
        self.cache = self.work / "cache"
        flat = {name: value for group in asdict(settings).values() for name, value in group.items()}
        self._settings = {name: value for name, value in flat.items() if name not in _NOT_PART_OF_A_RUN}
        self._check_settings()

    def _check_settings(self) -> None:
        path = self.work / "settings.json"
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(name for name, value in self._settings.items() if value != earlier.get(name))
            if changed:
                raise ValueError(
                    f"{self.root} holds a run with other settings ({', '.join(changed)}). Choose another "
                    f"--output_dir, delete that folder, or start with the settings in {path}."
                )

    def facts(self, stage: str) -> dict:
        """
        What a finished stage reported.

        Raises:
            FileNotFoundError: if the stage has not been run, with the script that runs it.
        """
        path = self.work / f"{stage}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run examples/{stage}.py with the same settings first.")
        return json.loads(path.read_text(encoding="utf-8"))

    def run_stage(self, stage: str, work: Callable[[], dict], *, on_all_processes: bool = False) -> dict:
        """
        Runs a stage unless it is done, and keeps what it reports, its wall time and the process's peak memory so far.
        All processes call it.

        Args:
            stage (`str`): name of the stage (and of its script).
            work (`Callable[[], dict]`): does it and returns its facts; the main process's are kept.
            on_all_processes (`bool`, *optional*, defaults to `False`): whether the processes share the work. If not,
                the main one does it and the others wait.

        Returns:
            `dict`: the facts, `seconds` (wall time) and `peak_memory_mb`.
        """
        path, processes = self.work / f"{stage}.json", PartialState()
        if path.is_file():
            logger.info("%s: done already.", stage)
            return self.facts(stage)
        logger.info("%s: starting.", stage)
        start = time.monotonic()
        facts = work() if on_all_processes or processes.is_main_process else {}
        # A process that comes late must not find the stage done.
        processes.wait_for_everyone()
        if processes.is_main_process:
            facts["seconds"] = round(time.monotonic() - start, 1)
            facts["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            self.work.mkdir(parents=True, exist_ok=True)
            # Not earlier: settings that fail in the first stage, a mistyped path say, must not lock the folder.
            write_text(self.work / "settings.json", json.dumps(self._settings, indent=1) + "\n")
            write_text(path, json.dumps(facts, indent=1) + "\n")
            logger.info(
                "%s: done in %.0f s, peak memory so far %d MB.", stage, facts["seconds"], facts["peak_memory_mb"]
            )
        processes.wait_for_everyone()
        return self.facts(stage)


def set_up_logging() -> None:
    """
    Progress of the stages on standard error, without the libraries' debug chatter. Of the processes that `accelerate
    launch` started, which meet here, the main one shows its progress and the others their errors.
    """
    # The others wait while the main one reads documents or asks an LLM, which may take days.
    processes = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    level = logging.INFO if processes.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    if not processes.is_main_process:
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
    for library in ("httpx", "bm25s", "datasets", "filelock", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def plain_errors() -> Iterator[None]:
    """
    Ends a script with one line on standard error and exit code 2 where the user's input or machine is at fault: a
    file or server that is not there (`OSError`), or what this project's own code refuses. Anything else keeps its
    traceback.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent.name
        if not isinstance(error, OSError) and raised_in not in _OUR_FOLDERS:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
