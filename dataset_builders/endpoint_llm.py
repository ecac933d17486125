"""An LLM behind OpenAI-compatible servers, asked many prompts at a time."""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from .replies import Reply, ReplyForm

logger = logging.getLogger(__name__)

STOP = "\n\n"
LONGEST_PAUSE = 60.0
FAILURES_BEFORE_REST = 3
MALFORMED = (ValueError, TypeError, AttributeError, LookupError)
"""What reading a reply raises that is no JSON, no object, or lacks its parts."""


@dataclass
class Endpoint:
    """
    A server and how it does.

    Args:
        url (`str`):
            URL up to and including its version, without a slash at the end.
        in_flight (`int`):
            Requests under way.
        failures (`int`):
            Failures since the last reply.
        rests_until (`float`):
            Time (seconds of `time.monotonic`) before which it is not asked.
    """

    url: str
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0


class EndpointLLM:
    """
    Servers that speak OpenAI's chat completions (vLLM, TGI, llama.cpp, a hosted service) and serve the same model.
    Each prompt goes out as one user message, at temperature 0 and with a fixed seed, to the server with the fewest
    requests in flight. What passes (429, 5xx, time-outs, cut connections, malformed bodies) is tried again after a
    pause that doubles, at another server if there is one; a server that fails three times in a row, or sends
    `Retry-After`, is left alone for a while.

    Args:
        base_urls (`str` or `list[str]`):
            URL of each server up to and including its version, such as `"http://127.0.0.1:8000/v1"`.
        model (`str`, *optional*):
            Model to ask for. Defaults to the first that a server lists.
        api_key (`str`, *optional*):
            Bearer token. Defaults to the environment variable `OPENAI_API_KEY`. A Hugging Face token is never sent.
        structured (`bool`, *optional*, defaults to `True`):
            Whether to have the server hold its replies to the form, as JSON (`response_format` with a JSON schema).
        concurrency (`int`, *optional*, defaults to `8`):
            Requests under way at the same time, for each server.
        requests_per_minute (`float`, *optional*):
            Most requests in a minute, tries included, over all servers. Defaults to no limit.
        timeout (`float`, *optional*, defaults to `120.0`):
            Longest wait for one reply, in seconds.
        max_retries (`int`, *optional*, defaults to `5`):
            Further tries for one prompt.
        first_pause (`float`, *optional*, defaults to `1.0`):
            Pause before the first further try, in seconds.
        seed (`int`, *optional*, defaults to `42`):
            Seed sent with every request.

    Raises:
        `ConnectionError`: if no server names its model.
    """

    chat = True

    def __init__(
        self,
        base_urls: str | list[str],
        model: str | None = None,
        api_key: str | None = None,
        structured: bool = True,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        max_retries: int = 5,
        first_pause: float = 1.0,
        seed: int = 42,
    ):
        self.structured = structured
        self.concurrency = concurrency
        self.timeout = timeout
        self.max_retries = max_retries
        self.first_pause = first_pause
        self.seed = seed
        # Never the user's Hugging Face token, which is no business of these servers.
        self._headers = {"authorization": f"Bearer {api_key or os.environ.get('OPENAI_API_KEY', 'none')}"}
        base_urls = [base_urls] if isinstance(base_urls, str) else base_urls
        self._endpoints = [Endpoint(url.rstrip("/")) for url in base_urls]
        self._lock = threading.Lock()
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_request = 0.0
        self.name = model or self._retrying(threading.Event(), self._first_model)

    def complete(
        self, prompts: list[str], form: ReplyForm, *, shared_prefix: str = "", max_new_tokens: int = 48
    ) -> Iterator[tuple[int, Reply]]:
        """
        Answers each prompt; see [`~dataset_builders.llm.LLM.complete`]. A reply without the form is handed out as it
        came: asked again, the model would say the same.

        Raises:
            `ConnectionError`: if a prompt got no reply in `1 + max_retries` tries.
            `ValueError`: if a server refuses `response_format`.
            `huggingface_hub.errors.HfHubHTTPError`: if a server refuses a request otherwise (wrong key, wrong model).
        """
        prompts_to_ask, replies, stopped = queue.Queue(), queue.Queue(), threading.Event()

        def work():
            while True:
                index, prompt = prompts_to_ask.get()
                if stopped.is_set():
                    return
                try:
                    reply = self._retrying(stopped, self._ask, shared_prefix + prompt, form, max_new_tokens)
                except Exception as error:
                    # To be raised where the replies are read.
                    reply = error
                replies.put((index, reply))

        # Daemons, not a pool: an interruption must not wait for replies that are still under way.
        num_threads = min(self.concurrency * len(self._endpoints), len(prompts))
        for _ in range(num_threads):
            threading.Thread(target=work, daemon=True).start()
        num_ahead = 2 * num_threads
        try:
            for number in range(len(prompts) + num_ahead):
                if number < len(prompts):
                    prompts_to_ask.put((number, prompts[number]))
                if number >= num_ahead:
                    index, reply = replies.get()
                    if isinstance(reply, Exception):
                        raise reply
                    yield index, reply
        finally:
            stopped.set()
            for _ in range(num_threads):
                prompts_to_ask.put((None, None))

    def _ask(self, endpoint, prompt, form, max_new_tokens):
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_new_tokens,
            "temperature": 0.0,
            "seed": self.seed,
        }
        if self.structured:
            schema = {"name": "_".join(form.labels).lower(), "schema": form.json_schema(), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            request["stop"] = [STOP]
        reply = self._request("POST", f"{endpoint.url}/chat/completions", json=request)
        text = reply["choices"][0]["message"]["content"] or ""
        if not isinstance(text, str):
            raise ValueError(f"content of the reply is no text: {text!r:.100}")
        usage = reply.get("usage") or {}
        return Reply(
            # A server may not know `stop`.
            text if self.structured else text.split(STOP)[0],
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
        )

    def _first_model(self, endpoint):
        return self._request("GET", f"{endpoint.url}/models")["data"][0]["id"]

    def _request(self, method, url, **options):
        # Not InferenceClient.chat_completion: huggingface_hub 2.4 turns response_format's JSON schema into an older
        # dialect for every server given by its URL, which only TGI reads.
        response = get_session().request(method, url, headers=self._headers, timeout=self.timeout, **options)
        hf_raise_for_status(response)
        return response.json()

    def _retrying(self, stopped, ask, *args):
        endpoint = None
        for tries in range(1, self.max_retries + 2):
            endpoint = self._next_endpoint(stopped, endpoint)
            seconds_to_wait = 0.0
            try:
                reply = ask(endpoint, *args)
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (400, 422) and self.structured:
                    raise ValueError(
                        f"{endpoint.url} refuses the request: {error}. If it does not know response_format with a "
                        "JSON schema, pass structured=False."
                    ) from error
                if status not in (408, 429) and status < 500:
                    raise
                failure, seconds_to_wait = error, retry_after(error.response)
            except (httpx2.RequestError, *MALFORMED) as error:
                failure = error
            else:
                self._release(endpoint)
                return reply
            self._release(endpoint, failed=True, seconds_to_wait=seconds_to_wait)
            if tries <= self.max_retries:
                pause = self._pause(tries)
                logger.warning("%s (try %d), trying again in %.1f s: %s", endpoint.url, tries, pause, failure)
                stopped.wait(pause)
        raise ConnectionError(
            f"No reply from {endpoint.url} in {tries} tries: {failure}. Check that the server runs; the replies so "
            "far are in the journal, starting again goes on from there."
        ) from failure

    def _pause(self, failures):
        return min(self.first_pause * 2 ** (failures - 1), LONGEST_PAUSE)

    def _next_endpoint(self, stopped, failed):
        """Waits for the next request's turn; returns the server to ask, if possible not the one that just failed."""
        while not stopped.is_set():
            with self._lock:
                now = time.monotonic()
                awake = [endpoint for endpoint in self._endpoints if endpoint.rests_until <= now]
                turn = self._next_request if awake else min(endpoint.rests_until for endpoint in self._endpoints)
                if turn <= now:
                    others = [endpoint for endpoint in awake if endpoint is not failed]
                    endpoint = min(others or awake, key=lambda endpoint: endpoint.in_flight)
                    endpoint.in_flight += 1
                    self._next_request = now + self._seconds_per_request
                    return endpoint
            stopped.wait(turn - now)
        raise InterruptedError("Nobody waits for this reply any more.")

    def _release(self, endpoint, failed=False, seconds_to_wait=0.0):
        with self._lock:
            now = time.monotonic()
            endpoint.in_flight -= 1
            if not failed:
                endpoint.failures = 0
            elif endpoint.rests_until <= now:
                # Requests that were under way when it fell ill, and fail while it rests, are no further failures.
                endpoint.failures += 1
                if endpoint.failures >= FAILURES_BEFORE_REST:
                    seconds_to_wait = max(seconds_to_wait, self._pause(endpoint.failures - FAILURES_BEFORE_REST + 1))
            endpoint.rests_until = max(endpoint.rests_until, now + seconds_to_wait)


def retry_after(response: httpx2.Response) -> float:
    """
    Reads how long a server wants to be left alone.

    Args:
        response (`httpx2.Response`):
            The response, whose header `Retry-After` holds seconds or a date, if it is there.

    Returns:
        `float`: seconds from now; 0 if the server does not say.
    """
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
