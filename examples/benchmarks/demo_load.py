"""How many users the demo page of a run answers at once: requests per second, waiting times, errors.

Serves the page in a process of its own. Each user is a thread with a client of its own; all ask at the same moment.

python examples/benchmarks/demo_load.py --run outputs/demo --users 50 --json demo_load.json
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from gradio_client import Client
from measuring import machine, print_table, write_json

from hub_cards.demo_space import space_config
from hub_cards.space.app import STRATEGIES

ROOT = Path(__file__).parents[2]
SERVE = "import sys; from hub_cards.serve import launch_app; launch_app(sys.argv[1], server_port=int(sys.argv[2]))"
START_SECONDS = 300


@contextmanager
def served(run: str) -> Iterator[str]:
    """
    Serves the page of a run.

    Args:
        run (`str`):
            Output folder of the run.

    Yields:
        `str`: the page's address, once it answers.

    Raises:
        RuntimeError: the page does not come up; the message ends with what it printed last.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-c", SERVE, str(Path(run).resolve()), str(port)]
        server = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"The page of {run} did not come up: {log.read()[-1000:]}")
                time.sleep(0.5)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def measure(url: str, questions: list[str], users: int, strategy: str) -> dict:
    """
    Lets users ask one question each, all at once.

    Args:
        url (`str`):
            Address of the page.
        questions (`list[str]`):
            Questions, taken in turn.
        users (`int`):
            Number of users.
        strategy (`str`):
            Strategy to answer by.

    Returns:
        `dict`: `users`, `strategy`, `requests_per_second` (answers by the time until the last came), `p50`, `p95` and
        `max` (seconds from question to complete answer, waiting included), `errors` (what went wrong, one each).
    """
    together = threading.Barrier(users)

    def use(number: int) -> tuple[float, str]:
        """Seconds until the answer, and what went wrong."""
        client = Client(url, verbose=False, analytics_enabled=False)
        together.wait()
        start = time.perf_counter()
        try:
            reply = client.predict(query=questions[number % len(questions)], strategy=strategy, api_name="/ask")
            error = "" if reply["confidence"] is not None else reply["status"]
        except Exception as problem:  # whatever it is, it is a figure here
            error = f"{type(problem).__name__}: {problem}"
        return time.perf_counter() - start, error

    with ThreadPoolExecutor(users) as pool:
        results = list(pool.map(use, range(users)))
    errors = [error for _, error in results if error]
    seconds = sorted(second for second, error in results if not error) or [float("nan")]
    return {
        "users": users,
        "strategy": strategy,
        "requests_per_second": (users - len(errors)) / seconds[-1],
        "p50": statistics.median(seconds),
        "p95": seconds[round(0.95 * (len(seconds) - 1))],
        "max": seconds[-1],
        "errors": errors,
    }


def main() -> None:
    """Measures, prints the table, and writes the report where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="outputs/demo", help="Output folder of a finished run.")
    parser.add_argument("--users", type=int, nargs="+", default=[50], help="Users at once; several are several runs.")
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="rag")
    parser.add_argument("--json", help="File to write the report to.")
    arguments = parser.parse_args()

    questions = space_config(arguments.run, "")["examples"]
    with served(arguments.run) as url:
        measure(url, questions, 1, arguments.strategy)  # the first answer also warms everything up
        results = [measure(url, questions, users, arguments.strategy) for users in arguments.users]
    print_table(
        ["users", "strategy", "requests per second", "p50 s", "p95 s", "max s", "errors"],
        [
            [
                str(one["users"]),
                one["strategy"],
                *(f"{one[key]:.2f}" for key in ("requests_per_second", "p50", "p95", "max")),
                str(len(one["errors"])),
            ]
            for one in results
        ],
    )
    for error in sorted({error for one in results for error in one["errors"]}):
        print(error)
    report = {"machine": machine(), "results": results}
    print(report["machine"])
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
