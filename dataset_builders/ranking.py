"""Related documents put into order by the external LLM."""

import re

from datasets import Dataset

from .journal import Journal
from .llm import LLM
from .passages import single_line, split_passages
from .prompt_template import PromptTemplate
from .replies import RANKING


def rank_related(
    llm: LLM,
    template: PromptTemplate,
    journal: Journal,
    queries: list[str],
    related: list[list[int]],
    collection: Dataset,
    passage_chars: int,
) -> tuple[list[list[int]], int]:
    """
    Has the LLM order the documents related to each query by how well they answer it. A reply that does not name every
    document once leaves their order as it was.

    Args:
        llm ([`~dataset_builders.llm.LLM`]):
            Whom to ask.
        template ([`PromptTemplate`]):
            Prompt with the variables `query` and `documents` (each with `title` and `text`).
        journal ([`Journal`]):
            Where replies go and come from.
        queries (`list[str]`):
            The queries.
        related (`list[list[int]]`):
            For each query the rows of the documents to order. Where there is but one, nobody is asked.
        collection ([`~datasets.Dataset`]):
            The documents.
        passage_chars (`int`):
            Longest beginning of a text that the LLM sees, in characters.

    Returns:
        `tuple[list[list[int]], int]`: the same rows in their new order; and the number of replies that were no order.
    """
    asked = [i for i, rows in enumerate(related) if len(rows) > 1]
    prompts = []
    for i in asked:
        documents = collection.select(related[i])
        shown = [
            {"title": single_line(title), "text": "".join(split_passages(title, text, passage_chars)[:1])}
            for title, text in zip(documents["title"], documents["text"], strict=True)
        ]
        prompts.append(template.render(query=queries[i], documents=shown).removeprefix(template.shared_prefix))
    ranked, failures = list(related), 0
    for i, reply in zip(asked, journal.ask(llm, template.shared_prefix, prompts, RANKING), strict=True):
        order = read_ranking(reply.text, len(related[i]))
        if order is None:
            failures += 1
        else:
            ranked[i] = [related[i][place] for place in order]
    return ranked, failures


def read_ranking(reply: str, length: int) -> list[int] | None:
    """
    Reads a ranking such as "2, 1, 3".

    Args:
        reply (`str`):
            The LLM's reply.
        length (`int`):
            Number of documents that it had to order.

    Returns:
        `list[int]` or `None`: the same order counted from 0; `None` if the reply is no order of all documents.
    """
    parsed = RANKING.parse(reply)
    if parsed is None or not re.fullmatch(r"\d{1,9}(?: ?, ?\d{1,9})*", parsed["Ranking"], re.ASCII):
        return None
    order = [int(number) - 1 for number in parsed["Ranking"].split(",")]
    return order if sorted(order) == list(range(length)) else None
