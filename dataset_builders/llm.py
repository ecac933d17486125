"""The external LLM that writes auxiliary data: a local model or an OpenAI-compatible server, one interface."""

import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx2
import torch
from huggingface_hub import InferenceClient, get_session
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
from transformers import AutoModelForCausalLM, AutoTokenizer

from .shared_prefix import SHARED_PREFIX

logger = logging.getLogger(__name__)


def load_llm(name_or_url: str, **kwargs) -> "LocalLLM | EndpointLLM":
    """
    Loads an LLM by what its name looks like.

    Args:
        name_or_url (`str`):
            URL ("http://..." or "https://...") of an OpenAI-compatible server, or else a folder or Hub id of a
            causal language model.
        **kwargs:
            Arguments of [`EndpointLLM`] or [`LocalLLM`].
    """
    if name_or_url.startswith(("http://", "https://")):
        return EndpointLLM(name_or_url, **kwargs)
    return LocalLLM(name_or_url, **kwargs)


class LocalLLM:
    """
    A causal language model on this machine, on its accelerator where it has one. Decoding is greedy, thus the same
    prompts give the same replies.

    What all prompts have in common (the few-shot part) is computed and kept once, see
    [`~dataset_builders.shared_prefix.shared_prefix_attention`];
    prompts of like length share a batch; a row that has reached `stop` leaves it.

    Args:
        name_or_path (`str`):
            Folder or Hub id of the model.
        dtype (`str`, *optional*, defaults to `"bfloat16"`):
            Data type of the weights.
        batch_size (`int`, *optional*, defaults to `32`):
            Prompts computed together.
    """

    def __init__(self, name_or_path: str, dtype: str = "bfloat16", batch_size: int = 32):
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        self.name = Path(name_or_path).name if Path(name_or_path).is_dir() else name_or_path
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self.model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, attn_implementation=SHARED_PREFIX)
        self.model.to(device).eval()
        self.batch_size = batch_size

    def complete(
        self, prompts: list[str], *, shared_prefix: str = "", max_new_tokens: int = 48, stop: str = "\n\n"
    ) -> Iterator[tuple[int, str]]:
        r"""
        Continues each prompt.

        Args:
            prompts (`list[str]`):
                The prompts.
            shared_prefix (`str`, *optional*, defaults to `""`):
                Text in front of every prompt.
            max_new_tokens (`int`, *optional*, defaults to `48`):
                Longest reply, in tokens.
            stop (`str`, *optional*, defaults to `"\n\n"`):
                A reply ends before this text.

        Yields:
            `tuple[int, str]`: index of the prompt and the reply to it, in the order in which they get ready.
        """
        if not prompts:
            return
        token_ids = self.tokenizer([shared_prefix + prompt for prompt in prompts])["input_ids"]
        order = sorted(range(len(prompts)), key=lambda i: len(token_ids[i]))
        # The border is looked for in tokens, not in characters: a token may reach across the end of shared_prefix.
        prefix_length = min(len(os.path.commonprefix(token_ids)), len(token_ids[order[0]]) - 1)
        prefix = self._prefill(token_ids[0][:prefix_length]) if prefix_length else None
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            suffixes = [token_ids[i][prefix_length:] for i in batch]
            for row, reply in self._decode(suffixes, prefix, prefix_length, max_new_tokens, stop):
                yield batch[row], reply

    @torch.inference_mode()
    def _prefill(self, token_ids):
        ids = torch.tensor([token_ids], device=self.model.device)
        return self.model(ids, use_cache=True, logits_to_keep=1, shared_prefix=None).past_key_values

    @torch.inference_mode()
    def _decode(self, suffixes, prefix, prefix_length, max_new_tokens, stop):
        """Greedy search for the rows `prefix` + suffix, suffixes padded on the left; returns (row, reply) pairs."""
        device = self.model.device
        length = max(map(len, suffixes))
        ids = torch.tensor([[0] * (length - len(suffix)) + suffix for suffix in suffixes], device=device)
        mask = torch.tensor([[0] * (length - len(suffix)) + [1] * len(suffix) for suffix in suffixes], device=device)
        positions = (prefix_length + mask.cumsum(dim=1) - 1).clamp(min=0)
        cache = None
        rows, replies = list(range(len(suffixes))), [[] for _ in suffixes]
        for _ in range(max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                shared_prefix=prefix,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            ids = output.logits[:, -1].argmax(dim=-1, keepdim=True)
            going = []
            for i, (row, token) in enumerate(zip(rows, ids[:, 0].tolist(), strict=True)):
                replies[row].append(token)
                if token != self.tokenizer.eos_token_id and stop not in self.tokenizer.decode(replies[row]):
                    going.append(i)
            if not going:
                break
            if len(going) < len(rows):
                rows = [rows[i] for i in going]
                keep = torch.tensor(going, device=device)
                ids, mask, positions = ids[keep], mask[keep], positions[keep]
                cache.batch_select_indices(keep)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        texts = self.tokenizer.batch_decode(replies, skip_special_tokens=True)
        return [(row, text.split(stop)[0]) for row, text in enumerate(texts)]


class EndpointLLM:
    """
    Any server that speaks OpenAI's chat completions (vLLM, TGI, llama.cpp, a hosted service), asked several prompts
    at a time. Each prompt goes out as one user message, at temperature 0 and with a fixed seed. What passes (429,
    5xx, time-outs, cut connections, torn replies) is tried again after a pause that doubles.

    Args:
        base_url (`str`):
            URL of the server up to and including its version, such as `"http://127.0.0.1:8000/v1"`.
        model (`str`, *optional*):
            Model to ask for. Defaults to the first that the server lists.
        api_key (`str`, *optional*):
            Bearer token. Defaults to the environment variable `OPENAI_API_KEY`. A Hugging Face token is never sent.
        concurrency (`int`, *optional*, defaults to `8`):
            Requests under way at the same time.
        timeout (`float`, *optional*, defaults to `120.0`):
            Longest wait for one reply, in seconds.
        max_retries (`int`, *optional*, defaults to `5`):
            Further tries for one prompt.
        first_pause (`float`, *optional*, defaults to `1.0`):
            Pause before the first further try, in seconds.
        seed (`int`, *optional*, defaults to `42`):
            Seed sent with every request.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        max_retries: int = 5,
        first_pause: float = 1.0,
        seed: int = 42,
    ):
        self.base_url = base_url.rstrip("/")
        self.concurrency = concurrency
        self.timeout = timeout
        self.max_retries = max_retries
        self.first_pause = first_pause
        self.seed = seed
        # Set explicitly, since the client would otherwise send the user's Hugging Face token to this server.
        self._headers = {"authorization": f"Bearer {api_key or os.environ.get('OPENAI_API_KEY', 'none')}"}
        self._client = InferenceClient(base_url=self.base_url, headers=self._headers, timeout=timeout)
        self.name = model or self._retrying(self._first_model)

    def complete(
        self, prompts: list[str], *, shared_prefix: str = "", max_new_tokens: int = 48, stop: str = "\n\n"
    ) -> Iterator[tuple[int, str]]:
        """
        Continues each prompt; see [`LocalLLM.complete`].

        Raises:
            `ConnectionError`: if a prompt got no reply in `1 + max_retries` tries.
        """
        # Handed out in slices, so that a million prompts do not become a million futures.
        slice_size = 8 * self.concurrency
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            for start in range(0, len(prompts), slice_size):
                futures = {
                    pool.submit(self._retrying, self._ask, shared_prefix + prompt, max_new_tokens, stop): start + i
                    for i, prompt in enumerate(prompts[start : start + slice_size])
                }
                for future in as_completed(futures):
                    yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, prompt, max_new_tokens, stop):
        reply = self._client.chat_completion(
            [{"role": "user", "content": prompt}],
            model=self.name,
            max_tokens=max_new_tokens,
            stop=[stop],
            temperature=0.0,
            seed=self.seed,
        )
        return (reply.choices[0].message.content or "").split(stop)[0]

    def _first_model(self):
        response = get_session().get(f"{self.base_url}/models", headers=self._headers, timeout=self.timeout)
        response.raise_for_status()
        return response.json()["data"][0]["id"]

    def _retrying(self, ask, *args):
        for tries in range(1, self.max_retries + 2):
            try:
                return ask(*args)
            except (HfHubHTTPError, httpx2.HTTPStatusError) as error:
                if error.response.status_code != 429 and error.response.status_code < 500:
                    raise
                failure = error
            except (InferenceTimeoutError, httpx2.TransportError, json.JSONDecodeError) as error:
                failure = error
            if tries <= self.max_retries:
                pause = self.first_pause * 2 ** (tries - 1)
                logger.warning("%s (try %d), trying again in %.1f s: %s", self.base_url, tries, pause, failure)
                time.sleep(pause)
        raise ConnectionError(
            f"No reply from {self.base_url} in {tries} tries: {failure}. Check that the server runs; the "
            "replies so far are in the journal, starting again goes on from there."
        ) from failure
