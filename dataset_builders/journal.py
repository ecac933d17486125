"""Replies of the external LLM, written down as they come, so that nothing is asked twice."""

import hashlib
import json
import logging
import os
from pathlib import Path

from tqdm.auto import tqdm

from .llm import LLM
from .replies import Reply, ReplyForm

logger = logging.getLogger(__name__)


class Journal:
    """
    Replies by key, kept in a folder of append-only JSONL files of {"key", "reply", "prompt_tokens",
    "completion_tokens"}. Every writing process has a file of its own there and reads all files, so that the shards of
    one job share a folder, or have theirs copied into one.

    A last line that an interruption tore is cut off the own file and passed over in the others, which may be at work.
    Of several entries with one key the first counts, files taken by name. Entries without token counts (journals of
    version 0.1) count as 0 tokens.

    Args:
        folder (`str` or `Path`):
            The folder, made if it does not exist.
        writer (`str`, *optional*, defaults to `"replies"`):
            Name of the own file, without ".jsonl". No two processes that run at the same time may share it.

    Attributes:
        replies (`dict[str, Reply]`): the replies by key.
        written (`int`): entries that this object has written.
        doubled (`int`): entries read whose key an earlier one had.

    Raises:
        `NotADirectoryError`: if `folder` is a file.
        `ValueError`: if a line other than a torn last one is malformed, naming file and line.
    """

    def __init__(self, folder: str | Path, writer: str = "replies"):
        self.folder = Path(folder)
        if self.folder.is_file():
            raise NotADirectoryError(
                f"The journal {folder} is a file, expected a folder of such files. Move it into one."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.replies: dict[str, Reply] = {}
        self.written = 0
        self.doubled = 0
        self._used: set[str] = set()
        self._own_path = self.folder / f"{writer}.jsonl"
        for path in sorted(self.folder.glob("*.jsonl")):
            self._read(path)
        if self.doubled:
            logger.warning(
                "%s: %d entries have a key that an earlier entry has; passing over them.", folder, self.doubled
            )

    def _read(self, path: Path) -> None:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self._pass_over_torn_line(path, len(line))
                    return
                try:
                    entry = json.loads(line)
                    key, text = entry["key"], entry["reply"]
                    if not isinstance(text, str):
                        raise TypeError(f"the reply is {text!r}")
                    reply = Reply(text, entry.get("prompt_tokens", 0), entry.get("completion_tokens", 0))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path}, line {number}: not an entry of the journal. Delete this line."
                    ) from error
                if key in self.replies:
                    self.doubled += 1
                else:
                    self.replies[key] = reply

    def _pass_over_torn_line(self, path: Path, length: int) -> None:
        if path == self._own_path:
            logger.warning("%s ends in a torn line (an interrupted run): cutting it off.", path)
            os.truncate(path, path.stat().st_size - length)
        else:
            logger.warning("%s ends in a torn line: passing over it.", path)

    @staticmethod
    def key(model: str, prompt: str) -> str:
        """
        Makes the key of a prompt.

        Args:
            model (`str`):
                Name of the LLM.
            prompt (`str`):
                The whole prompt.

        Returns:
            `str`: hexadecimal SHA-256.
        """
        return hashlib.sha256(f"{model}\0{prompt}".encode()).hexdigest()

    def ask(
        self,
        llm: LLM,
        shared_prefix: str,
        prompts: list[str],
        form: ReplyForm,
        max_new_tokens: int = 48,
    ) -> list[Reply]:
        """
        Has prompts answered, each reply written down as it comes, and takes from the journal what is there.

        Args:
            llm ([`~dataset_builders.llm.LLM`]):
                Whom to ask.
            shared_prefix (`str`):
                Text in front of all prompts.
            prompts (`list[str]`):
                What follows it. Equal ones are asked once.
            form ([`ReplyForm`]):
                The form that replies must have.
            max_new_tokens (`int`, *optional*, defaults to `48`):
                Longest reply, in tokens.

        Returns:
            `list[Reply]`: the replies, in the order of the prompts.
        """
        keys = [self.key(llm.name, shared_prefix + prompt) for prompt in prompts]
        prompt_of_key = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self.replies}
        missing = list(prompt_of_key)
        if missing:
            answers = llm.complete(
                list(prompt_of_key.values()), form, shared_prefix=shared_prefix, max_new_tokens=max_new_tokens
            )
            with open(self._own_path, "a", encoding="utf-8") as file:
                for index, reply in tqdm(answers, total=len(missing), desc="Asking the LLM", unit="prompt"):
                    self.replies[missing[index]] = reply
                    entry = {
                        "key": missing[index],
                        "reply": reply.text,
                        "prompt_tokens": reply.prompt_tokens,
                        "completion_tokens": reply.completion_tokens,
                    }
                    file.write(json.dumps(entry) + "\n")
                    file.flush()
                    self.written += 1
        self._used.update(keys)
        return [self.replies[key] for key in keys]

    def usage(self, prompt_price: float, completion_price: float) -> dict:
        """
        Sums up all replies that [`Journal.ask`] has returned, each once, in whichever run they were asked for.

        Args:
            prompt_price (`float`), completion_price (`float`):
                Price of a million tokens read or written.

        Returns:
            `dict`: `replies_from_journal`, `replies_asked_now`, `prompt_tokens`, `completion_tokens`, `cost`.
        """
        used = [self.replies[key] for key in self._used]
        prompt_tokens = sum(reply.prompt_tokens for reply in used)
        completion_tokens = sum(reply.completion_tokens for reply in used)
        return {
            "replies_from_journal": len(used) - self.written,
            "replies_asked_now": self.written,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cost": (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6,
        }
