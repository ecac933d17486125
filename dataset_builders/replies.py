"""What an LLM replies, and the form that a reply must have to be read."""

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """
    What an LLM answered to one prompt.

    Args:
        text (`str`):
            The reply as it came, in its form or not.
        prompt_tokens (`int`):
            Tokens of the whole prompt, a shared prefix and a chat template included; 0 where a server does not say.
        completion_tokens (`int`):
            Tokens of the reply, an end token included; 0 where a server does not say.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class ReplyForm:
    r"""
    The form that a reply must have: lines in this order, each behind its label.

    Args:
        labels (`tuple[str, ...]`):
            Label of each line, without its colon.

    Example:

    ```python
    >>> QUERY_AND_ANSWER.parse(" Who built it?\nAnswer: Gustave Eiffel.")
    {'Question': 'Who built it?', 'Answer': 'Gustave Eiffel'}
    >>> QUERY_AND_ANSWER.parse('{"question": "Who built it?", "answer": "Gustave Eiffel"}')
    {'Question': 'Who built it?', 'Answer': 'Gustave Eiffel'}
    >>> QUERY_AND_ANSWER.parse("Who built it?") is None
    True
    ```
    """

    labels: tuple[str, ...]

    def parse(self, text: str) -> dict[str, str] | None:
        """
        Reads a reply strictly: labelled lines, of which the first may lack its label (the prompt may have said it
        already), or a JSON object with the lower-cased labels as keys; and nothing else.

        Args:
            text (`str`):
                The reply.

        Returns:
            `dict[str, str]` or `None`: text by label, each one line and not blank; behind the first line a full stop
            at the end and quotes around are dropped, since an answer is no sentence. `None` if the reply has another
            form.
        """
        text = text.strip()
        values = self._read_object(text) if text.startswith("{") else self._read_lines(text)
        values = [value.strip() for value in values]
        values[1:] = [value.removesuffix(".").strip("\"' ") for value in values[1:]]
        if not values or any(len(value.splitlines()) != 1 for value in values):
            return None
        return dict(zip(self.labels, values, strict=True))

    def json_schema(self) -> dict:
        """JSON schema (`dict`) of the object that [`ReplyForm.parse`] reads, for an endpoint's `response_format`."""
        keys = [label.lower() for label in self.labels]
        return {
            "type": "object",
            "properties": {key: {"type": "string"} for key in keys},
            "required": keys,
            "additionalProperties": False,
        }

    def _read_lines(self, text):
        lines = [rf"(?:{re.escape(self.labels[0])}:)?+([^\n]+)"]
        lines += [rf"{re.escape(label)}:([^\n]+)" for label in self.labels[1:]]
        match = re.fullmatch("\n".join(lines), text)
        return list(match.groups()) if match else []

    def _read_object(self, text):
        keys = [label.lower() for label in self.labels]
        try:
            found = json.loads(text)
            # JSON can spell half a character ("\ud800"), which no file can hold.
            values = [found[key] for key in keys if found[key].encode()]
        except (ValueError, KeyError, AttributeError, RecursionError):
            return []
        return values if len(found) == len(values) == len(keys) else []


QUERY_AND_ANSWER = ReplyForm(("Question", "Answer"))
"""A question and its short answer."""

RANKING = ReplyForm(("Ranking",))
"""A ranked list on one line."""
