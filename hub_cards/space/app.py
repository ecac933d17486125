"""The demo page: a question in, an answer with its ranked documents out. Stands alone, as a Space or locally."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import pipeline

STRATEGIES = {
    "rag": "retrieve, then answer",
    "gar": "answer, then retrieve",
    "ensemble": "both, ranked together",
    "cascade": "GAR retrieves, RAG answers",
}
MAX_QUERY_CHARACTERS = 2000
# System fonts only: the page loads nothing from other hosts.
THEME = gr.themes.Default(
    font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"]
)


def highlight(documents: list[dict[str, Any]], answer: str) -> list[tuple[str, str | None]]:
    """
    Cuts documents into spans for [`gradio.HighlightedText`], which shows them as text, never as HTML.

    Args:
        documents (`list[dict[str, Any]]`):
            Ranked documents with `title` and `text`.
        answer (`str`):
            Answer to mark, as whole words and in any case; nothing is marked where it is empty.

    Returns:
        `list[tuple[str, str | None]]`: spans with the label `"title"`, `"answer"` or none.
    """
    spans = []
    for rank, document in enumerate(documents, start=1):
        spans += [(f"{rank}. {document['title']}", "title"), ("\n", None)]
        pieces = [document["text"]]
        if answer:  # splitting by a group leaves the matches at the odd places
            pieces = re.split(rf"(?<!\w)({re.escape(answer)})(?!\w)", document["text"], flags=re.IGNORECASE)
        spans += [(piece, "answer" if place % 2 else None) for place, piece in enumerate(pieces) if piece]
        spans.append(("\n\n", None))
    return spans


def score_bars(documents: list[dict[str, Any]]) -> dict[str, float] | None:
    """
    Scores by title for [`gradio.Label`]; documents of the same title are told apart by their rows.

    Args:
        documents (`list[dict[str, Any]]`):
            Ranked documents with `title`, `score` (probability) and `row`.

    Returns:
        `dict[str, float]`: title to probability, or `None` where there is no document.
    """
    titles = [document["title"] for document in documents]
    names = [
        f"{document['title']} (row {document['row']})" if titles.count(document["title"]) > 1 else document["title"]
        for document in documents
    ]
    return {name: document["score"] for name, document in zip(names, documents, strict=True)} or None


def respond(ask: Callable, query: str, strategy: str, top_k: int, threshold: float) -> Iterator[tuple]:
    """
    Answers one question for the page. The ensemble's answer comes first, then those of its two models beside it.

    Args:
        ask (`Callable`):
            MINT pipeline.
        query (`str`):
            The question.
        strategy (`str`):
            One of `STRATEGIES`.
        top_k (`int`):
            Number of documents.
        threshold (`float`):
            Confidence in [0, 1] below which the reply is an abstention.

    Yields:
        `tuple`: status line, answer, confidence, scores by title, spans of text, rows of the comparison.
    """
    query = query.strip()
    if not query:
        yield "Type a question first.", "", None, None, [], []
        return
    if len(query) > MAX_QUERY_CHARACTERS:
        note = f"That is {len(query)} characters long; ask in at most {MAX_QUERY_CHARACTERS}."
        yield note, "", None, None, [], []
        return

    start = time.perf_counter()
    reply = ask(query, strategy=strategy, top_k=int(top_k), threshold=threshold)
    status = f"{strategy}, {time.perf_counter() - start:.1f} s"
    if reply["abstained"]:
        status += f": no answer, its confidence {reply['score']:.2f} is below {threshold:.2f}"
    answer = "" if reply["abstained"] else reply["answer"]
    shown = (answer, reply["score"], score_bars(reply["documents"]), highlight(reply["documents"], answer))
    comparison = [_comparison_row(reply)]
    yield status, *shown, comparison
    if strategy == "ensemble":
        for role in ("rag", "gar"):
            beside = ask(query, strategy=role, top_k=int(top_k), threshold=threshold)
            comparison = [*comparison, _comparison_row(beside)]
            yield status, *shown, comparison


def build_app(ask: Callable, collection_size: int, examples: list[str]) -> gr.Blocks:
    """
    Builds the page.

    Args:
        ask (`Callable`):
            MINT pipeline: `ask(query, strategy=, top_k=, threshold=)` gives a dict with `answer`, `score`,
            `abstained`, `documents` and `strategy`.
        collection_size (`int`):
            Number of documents that the models retrieve from.
        examples (`list[str]`):
            Questions to offer.

    Returns:
        [`gradio.Blocks`]: the page; its function is called `ask` in the API.
    """

    def answer_query(query: str, strategy: str, top_k: int, threshold: float) -> Iterator[tuple]:
        yield from respond(ask, query, strategy, top_k, threshold)

    with gr.Blocks(title="MINT", analytics_enabled=False) as app:
        gr.Markdown(
            f"# MINT\nTwo language models that taught each other answer from {collection_size:,} documents, which "
            "they find by writing titles."
        )
        query = gr.Textbox(label="Question", placeholder="Type a question", autofocus=True)
        with gr.Row():
            strategy = gr.Radio(
                [(f"{name}: {what}", name) for name, what in STRATEGIES.items()],
                value="ensemble",
                label="Strategy",
                min_width=340,
            )
            top_k = gr.Slider(1, 10, value=5, step=1, label="Documents")
            threshold = gr.Slider(0, 1, value=0, step=0.01, label="Give no answer below this confidence")
        button = gr.Button("Ask", variant="primary")
        status = gr.Textbox(label="Status", interactive=False)
        with gr.Row():
            answer = gr.Textbox(label="Answer", interactive=False, scale=3)
            confidence = gr.Number(label="Confidence", interactive=False, precision=3)
        with gr.Row():
            documents = gr.Label(label="Documents", show_heading=False, min_width=340)
            comparison = gr.Dataframe(
                headers=["strategy", "answer", "confidence", "first document"],
                datatype="str",
                label="Side by side",
                interactive=False,
                wrap=True,
                min_width=340,
            )
        passages = gr.HighlightedText(
            label="What they say", color_map={"title": "gray", "answer": "green"}, show_inline_category=False
        )
        inputs = [query, strategy, top_k, threshold]
        gr.Examples([[example] for example in examples], inputs=[query], label="Examples", api_visibility="private")
        gr.on(
            [button.click, query.submit],
            answer_query,
            inputs=inputs,
            outputs=[status, answer, confidence, documents, passages, comparison],
            api_name="ask",
        )
    return app


def load_app(config: dict[str, Any]) -> gr.Blocks:
    """
    Loads both models and builds the page.

    Args:
        config (`dict[str, Any]`):
            `models` (arguments of `pipeline("mint", ...)`: `model`, and `gar_model` or `adapters`; folders or Hub
            ids), `collection_size` and `examples`.

    Returns:
        [`gradio.Blocks`]: the page.

    Raises:
        OSError: a model cannot be loaded.
    """
    ask = pipeline("mint", **config["models"], trust_remote_code=True)
    return build_app(ask, config["collection_size"], config["examples"])


def serve(app: gr.Blocks, **settings: Any) -> None:
    """
    Serves the page until it is interrupted.

    Args:
        app ([`gradio.Blocks`]):
            The page.
        settings (`Any`):
            Further arguments of [`gradio.Blocks.launch`], such as `server_port`.

    Raises:
        OSError: the port is taken.
    """
    app.launch(theme=THEME, footer_links=["api"], ssr_mode=False, **settings)


def _comparison_row(reply: dict[str, Any]) -> list[str]:
    first = reply["documents"][0]["title"] if reply["documents"] else ""
    answer = "(none)" if reply["abstained"] else reply["answer"]
    return [reply["strategy"], answer, f"{reply['score']:.3f}", first]


if __name__ == "__main__":
    settings = json.loads(Path(__file__).with_name("config.json").read_text(encoding="utf-8"))
    serve(load_app(settings))
