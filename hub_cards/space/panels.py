"""Documents and answers as HTML. Every text of a user, a model or a document is escaped, here and nowhere else."""

import re
from html import escape
from typing import Any
from urllib.parse import quote

ROLES = {"rag": "RAG: finds documents, then answers", "gar": "GAR: answers, then finds documents"}
OPEN_DOCUMENTS = 2


def article_link(template: str | None, title: str) -> str | None:
    """
    Address of an article.

    Args:
        template (`str`, *optional*): an address with `{title}` in it.
        title (`str`): the article's title, any text.

    Returns:
        `str`: the address, or `None` without a template.
    """
    return template.replace("{title}", quote(title.replace(" ", "_"), safe="")) if template else None


def marked(text: str, answer: str) -> str:
    """The text as HTML, the answer marked in it as whole words and in any case."""
    if not answer:
        return escape(text)
    # Splitting by a group leaves the matches at the odd places.
    pieces = re.split(rf"(?<!\w)({re.escape(answer)})(?!\w)", text, flags=re.IGNORECASE)
    return "".join(f"<mark>{escape(piece)}</mark>" if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def bar(share: float) -> str:
    """A score in [0, 1] as a bar with its figure."""
    return (
        f'<span class="mint-score"><span class="mint-bar" aria-hidden="true"><span style="width:{100 * share:.1f}%">'
        f"</span></span>{100 * share:.1f}%</span>"
    )


def documents_panel(documents: list[dict[str, Any]], answer: str) -> str:
    """
    Ranked documents, each with its score as a bar, its text with the answer marked and the link to its article. The
    first ones, which RAG's generator reads, are open.

    Args:
        documents (`list[dict[str, Any]]`): each with `title`, `score`, `text` and `url` (`str` or `None`).
        answer (`str`): the answer to mark.

    Returns:
        `str`: HTML.
    """
    items = []
    for rank, document in enumerate(documents, start=1):
        link = ""
        if document["url"]:
            link = (
                f'<p><a href="{escape(document["url"])}" target="_blank" rel="noopener noreferrer">Read the article '
                f"<bdi>{escape(document['title'])}</bdi></a></p>"
            )
        items.append(
            f"<li><details{' open' if rank <= OPEN_DOCUMENTS else ''}><summary><b>{rank}. "
            f"<bdi>{escape(document['title'])}</bdi></b> {bar(document['score'])}</summary>"
            f'<p dir="auto">{marked(document["text"], answer)}</p>{link}</details></li>'
        )
    return f'<ol class="mint-documents">{"".join(items)}</ol>' if items else ""


def side_by_side(answers: dict[str, dict[str, Any]], documents: dict[str, list[dict[str, Any]]]) -> str:
    """
    What each model made on its own: its answer and its documents.

    Args:
        answers (`dict[str, dict[str, Any]]`): by role `answer`, and once it is complete `score`.
        documents (`dict[str, list[dict[str, Any]]]`): by role documents with `title` and `score`.

    Returns:
        `str`: HTML.
    """
    cards = []
    for role, heading in ROLES.items():
        if role not in answers and role not in documents:
            continue
        parts = [f"<h3>{heading}</h3>"]
        if role in answers:
            answer = answers[role]
            parts.append(f'<p class="mint-answer" dir="auto">{escape(answer["answer"]) or "(nothing)"}</p>')
            if "score" in answer:
                parts.append(f"<p>Confidence {bar(answer['score'])}</p>")
        titles = "".join(
            f"<li><bdi>{escape(document['title'])}</bdi> {bar(document['score'])}</li>"
            for document in documents.get(role, [])
        )
        parts.append(f"<ol>{titles}</ol>" if titles else "")
        cards.append(f'<section class="mint-card">{"".join(parts)}</section>')
    return f'<div class="mint-cards">{"".join(cards)}</div>' if cards else ""
