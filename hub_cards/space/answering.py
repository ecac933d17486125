"""One question at a time: the models work in a thread of their own, are followed word by word, and can be stopped."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transformers import TextStreamer

PULSE = 1.0
"""Seconds of silence after which a question's reader is told that the models are still at it."""


class _Typing(TextStreamer):
    """Hands on the words of an answer as they are written."""

    def __init__(self, tokenizer, say: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.say = say

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.say(text)


class AnsweringDesk:
    """
    Runs a MINT pipeline for many readers, one question after the other: the two roles may share one model in memory,
    which cannot play both at once, and a second question at a time would only slow the first.

    Args:
        ask (`Callable`):
            MINT pipeline.
        time_limit (`float`):
            Seconds that a question may take, once it is its turn.
    """

    def __init__(self, ask: Callable, time_limit: float):
        self.ask = ask
        self.time_limit = time_limit
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mint")

    def follow(self, query: str, **settings: Any) -> Iterator[tuple[dict[str, str], dict[str, Any] | None]]:
        """
        Answers a question. A reader who leaves (closes the iterator) stops the models, as the time limit does, before
        their next step.

        Args:
            query (`str`):
                The question.
            settings (`Any`):
                Arguments of the pipeline.

        Yields:
            `tuple`: what each role's model has written of its answer so far, and the pipeline's reply with its
            details, which is `None` until the last time. Something comes at least once in `PULSE` seconds.

        Raises:
            TimeoutError: the time is up.
        """
        events, left = queue.SimpleQueue(), threading.Event()

        def work() -> dict[str, Any]:
            deadline = time.monotonic() + self.time_limit

            def check() -> None:
                if left.is_set() or time.monotonic() > deadline:
                    raise TimeoutError(f"The question took longer than {self.time_limit:g} seconds.")

            check()
            streamers = {
                role: _Typing(self.ask.processor.tokenizer, lambda text, role=role: events.put((role, text)))
                for role in ("rag", "gar")
            }
            return self.ask(query, details=True, streamers=streamers, on_step=check, **settings)

        job = self._worker.submit(work)
        job.add_done_callback(lambda _: events.put(None))
        written: dict[str, str] = {}
        try:
            while True:
                try:
                    event = events.get(timeout=PULSE)
                except queue.Empty:
                    event = ("", "")
                if event is None:
                    break
                role, text = event
                if role:
                    written[role] = written.get(role, "") + text
                yield {role: text.strip().split("\n")[0] for role, text in written.items()}, None
            reply = job.result()
            yield {role: answer["answer"] for role, answer in reply["details"]["answers"].items()}, reply
        finally:
            left.set()
