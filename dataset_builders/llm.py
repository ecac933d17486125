"""The external LLM that writes auxiliary data: a local model or OpenAI-compatible servers, one interface."""

from collections.abc import Iterator
from typing import Protocol

from .endpoint_llm import EndpointLLM
from .local_llm import LocalLLM
from .replies import Reply, ReplyForm


class LLM(Protocol):
    """
    Whoever answers prompts: [`~dataset_builders.local_llm.LocalLLM`] or
    [`~dataset_builders.endpoint_llm.EndpointLLM`].

    Attributes:
        name (`str`): name of the model, which samples carry.
        chat (`bool`): whether it wants an instruction, or else a text to continue, which ends with the first label of
            the form.
    """

    name: str
    chat: bool

    def complete(
        self, prompts: list[str], form: ReplyForm, *, shared_prefix: str = "", max_new_tokens: int = 48
    ) -> Iterator[tuple[int, Reply]]:
        """
        Answers each prompt.

        Args:
            prompts (`list[str]`):
                The prompts.
            form ([`~dataset_builders.replies.ReplyForm`]):
                Form that the replies should have; [`~dataset_builders.replies.ReplyForm.parse`] tells whether one has.
            shared_prefix (`str`, *optional*, defaults to `""`):
                Text in front of every prompt.
            max_new_tokens (`int`, *optional*, defaults to `48`):
                Longest reply, in tokens.

        Yields:
            `tuple[int, Reply]`: index of the prompt and the reply to it, in the order in which they get ready.
        """
        ...


def load_llm(name_or_urls: str, **kwargs) -> LocalLLM | EndpointLLM:
    """
    Loads an LLM by what its name looks like.

    Args:
        name_or_urls (`str`):
            URL ("http://..." or "https://...") of an OpenAI-compatible server, or several, separated by commas; or
            else a folder or Hub id of a causal language model.
        **kwargs:
            Arguments of [`~dataset_builders.endpoint_llm.EndpointLLM`] or
            [`~dataset_builders.local_llm.LocalLLM`].
    """
    if name_or_urls.startswith(("http://", "https://")):
        return EndpointLLM([url.strip() for url in name_or_urls.split(",")], **kwargs)
    return LocalLLM(name_or_urls, **kwargs)
