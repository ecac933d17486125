"""The demo page: a question in, an answer with its ranked documents out. Stands alone, as a Space or locally."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import pipeline

if __package__:  # imported as a part of the project
    from .answering import AnsweringDesk
    from .facts import compute_dtype, read_topics, resident_bytes
    from .panels import article_link, documents_panel, side_by_side
    from .questions import MAX_DOCUMENTS, STRATEGIES, clean_question, looks_foreign, refusal, wrong_settings
    from .tree_picture import draw_trees
else:  # run by a Space, which has no packages
    from answering import AnsweringDesk
    from facts import compute_dtype, read_topics, resident_bytes
    from panels import article_link, documents_panel, side_by_side
    from questions import MAX_DOCUMENTS, STRATEGIES, clean_question, looks_foreign, refusal, wrong_settings
    from tree_picture import draw_trees

logger = logging.getLogger(__name__)

MAX_WAITING = 200
"""Questions that may wait; whoever comes then is told to come back."""
TIME_LIMIT = 60.0
"""Seconds that a question may take once it is its turn."""
NOTHING_YET = "<p>Ask a question to see this.</p>"
# System fonts only: the page loads nothing from other hosts. The shades of text give it a contrast of 4.5 or more.
THEME = gr.themes.Default(
    primary_hue="green", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_text_color_subdued="*neutral_500",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
)


class Demo:
    """
    What the page shows, without the page: questions in, states of the answer out.

    Args:
        ask (`Callable`):
            MINT pipeline.
        topics (`dict[str, list[int]]`, *optional*):
            Rows of the collection by topic, to choose from.
        article_url (`str`, *optional*):
            Address of a document's article, with `{title}` in it.
        language (`str`, *optional*):
            `"en"`: the models know English only, so that a question in another language gets a note.
        time_limit (`float`, *optional*, defaults to `TIME_LIMIT`):
            Seconds that a question may take.
    """

    def __init__(
        self,
        ask: Callable,
        topics: dict[str, list[int]] | None = None,
        article_url: str | None = None,
        language: str | None = None,
        time_limit: float = TIME_LIMIT,
    ):
        self.desk = AnsweringDesk(ask, time_limit)
        self.processor = ask.processor
        self.topics = topics or {}
        self.article_url = article_url
        self.language = language
        self.topic_trie = lru_cache(maxsize=None)(lambda topic: self.processor.trie.subset(self.topics[topic]))

    def respond(self, query: str, strategy: str, top_k: int, threshold: float, topic: str) -> Iterator[dict[str, Any]]:
        """
        Answers one question, or says why not. Arguments and the last state are those of the endpoint `ask`.

        Yields:
            `dict[str, Any]`: states of the answer, more complete each time.
        """
        problem = "A question is a text."
        if isinstance(query, str):
            query = clean_question(query)
            problem = refusal(query) or wrong_settings(strategy, top_k, threshold, topic, self.topics)
        if problem:
            yield _state(problem)
            return
        start = time.monotonic()
        try:
            trie = self.topic_trie(topic) if topic else self.processor.trie
            yield _state(f"{strategy}: looking through {len(trie):,} titles …")
            settings = {"strategy": strategy, "top_k": int(top_k), "threshold": threshold, "trie": trie}
            for written, reply in self.desk.follow(query, **settings):
                if reply is None:
                    status = f"{strategy}: at work for {time.monotonic() - start:.0f} s …"
                    answers = {role: {"answer": text} for role, text in written.items()}
                    # What may turn out to be below the threshold is not shown.
                    yield _state(status, answer="" if threshold else _latest(written), answers=answers)
                else:
                    yield self._complete(query, reply, threshold)
        except TimeoutError:
            yield _state(
                f"This took longer than {self.desk.time_limit:g} seconds and was stopped. Ask again in a moment, or "
                "choose rag or gar, which take half as long."
            )
        except Exception:
            logger.exception("A question failed.")
            yield _state("Something went wrong here; the page works on. Ask again, or ask something else.")

    def _complete(self, query: str, reply: dict[str, Any], threshold: float) -> dict[str, Any]:
        details, seconds = reply["details"], reply["details"]["seconds"]
        memory = {"process": resident_bytes(), "titles": self.processor.trie.nbytes}
        parts = [
            f"{reply['strategy']}: retrieval {seconds['retrieval']:.2f} s, answer {seconds['answer']:.2f} s",
            f"Memory {memory['process'] / 1e6:,.0f} MB, of which the titles of {self.processor.trie.num_rows:,} "
            f"documents {memory['titles'] / 1e6:,.2f} MB",
        ]
        if reply["abstained"]:
            parts.insert(0, f"No answer: its confidence {reply['score']:.2f} is below {threshold:.2f}")
        if self.language == "en" and looks_foreign(query):
            parts.insert(0, "This does not look like English, the only language that the models know")
        documents = [
            document | {"url": article_link(self.article_url, self.processor.page(document["row"]))}
            for document in reply["documents"]
        ]
        return _state(
            ". ".join(parts) + ".",
            answer=reply["answer"],
            confidence=reply["score"],
            documents=documents,
            answers=details["answers"],
            ranked={
                role: [{"title": one["title"], "score": one["score"]} for one in found]
                for role, found in details["documents"].items()
            },
            trees=details["trees"],
            seconds=seconds,
            memory=memory,
        )


def _state(status: str, **known: Any) -> dict[str, Any]:
    blank = {"answer": "", "confidence": None, "documents": [], "answers": {}, "ranked": {}, "trees": {}}
    return {"status": status} | blank | {"seconds": {}, "memory": {}} | known


def _latest(written: dict[str, str]) -> str:
    """The answer that is being written now."""
    return next((text for text in reversed(written.values()) if text), "")


def build_app(demo: Demo, examples: list[str]) -> gr.Blocks:
    """
    Builds the page.

    Args:
        demo ([`Demo`]):
            What it shows.
        examples (`list[str]`):
            Questions to offer.

    Returns:
        [`gradio.Blocks`]: the page; programs call its endpoint `ask`.
    """
    num_documents = demo.processor.trie.num_rows

    def show(query: str, strategy: str, top_k: int, threshold: float, topic: str) -> Iterator[tuple]:
        for state in demo.respond(query, strategy, top_k, threshold, topic):
            yield (
                state["status"],
                state["answer"],
                state["confidence"],
                documents_panel(state["documents"], state["answer"]),
                side_by_side(state["answers"], state["ranked"]),
                draw_trees(state["trees"]),
            )

    def ask(
        query: str, strategy: str = "ensemble", top_k: int = 5, threshold: float = 0.0, topic: str = ""
    ) -> Iterator[dict]:
        """
        Answers a question from the collection.

        Args:
            query: The question.
            strategy: "rag", "gar", "ensemble" or "cascade".
            top_k: Documents to return, 1 to 10.
            threshold: Give no answer if its confidence, between 0 and 1, is lower.
            topic: Retrieve documents on this topic only; empty for all.

        Returns:
            A dict with "status" (what happened, to read), "answer", "confidence", "documents" (title, score, text,
            row and url of each, best first), by model "answers", "ranked" and "trees", then "seconds" and "memory"
            (bytes). Before it come states that are less complete, with the answer as far as it is written.
        """
        yield from demo.respond(query, strategy, top_k, threshold, topic)

    with gr.Blocks(title="MINT", analytics_enabled=False) as app:
        gr.Markdown(
            f"# MINT\nTwo language models that taught each other answer from {num_documents:,} documents, which they "
            "find by writing titles."
        )
        query = gr.Textbox(label="Question", placeholder="Type a question", autofocus=True, elem_id="question")
        gr.Examples([[example] for example in examples], [query], label="Examples", api_visibility="private")
        strategy = gr.Radio(
            [(f"{name}: {what}", name) for name, what in STRATEGIES.items()],
            value="ensemble",
            label="Strategy",
            elem_id="strategy",
        )
        with gr.Row():
            topic = gr.Dropdown(
                [(f"all ({num_documents:,} documents)", "")]
                + [(f"{name} ({len(rows):,})", name) for name, rows in demo.topics.items()],
                value="",
                label="Topic",
                visible=bool(demo.topics),
                min_width=200,
                elem_id="topic",
            )
            top_k = gr.Slider(1, MAX_DOCUMENTS, value=5, step=1, label="Documents", min_width=200)
            threshold = gr.Slider(
                0, 1, value=0, step=0.01, label="Give no answer below this confidence", min_width=200
            )
        button = gr.Button("Ask", variant="primary", elem_id="ask")
        status = gr.Textbox(label="Status", interactive=False, lines=2, elem_id="status")
        with gr.Row():
            answer = gr.Textbox(label="Answer", interactive=False, scale=3, min_width=240, elem_id="answer")
            confidence = gr.Number(label="Confidence", interactive=False, precision=3, elem_id="confidence")
        with gr.Row():
            with gr.Column(min_width=320):
                gr.Markdown("## Documents")
                documents = gr.HTML(NOTHING_YET, elem_id="documents")
            with gr.Column(min_width=320):
                gr.Markdown("## Side by side")
                models = gr.HTML(NOTHING_YET, elem_id="models")
        with gr.Accordion("The decoding tree: how the beams walked to the titles", open=True, elem_id="tree-box"):
            tree = gr.HTML(NOTHING_YET, elem_id="tree")
        gr.on(
            [button.click, query.submit],
            show,
            inputs=[query, strategy, top_k, threshold, topic],
            outputs=[status, answer, confidence, documents, models, tree],
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="models",
        )
        gr.api(ask, api_name="ask", concurrency_limit=1, concurrency_id="models")
    return app.queue(max_size=MAX_WAITING)


def load_app(config: dict[str, Any]) -> gr.Blocks:
    """
    Loads both models and builds the page.

    Args:
        config (`dict[str, Any]`):
            `models` (arguments of `pipeline("mint", ...)`: `model`, and `gar_model` or `adapters`; folders or Hub
            ids) and `examples`; where the collection has them, `topic_field` (see [`read_topics`]) and `article_url`
            (address of an article with `{title}` in it), and `language`, see [`Demo`]; `time_limit` in seconds.

    Returns:
        [`gradio.Blocks`]: the page.

    Raises:
        OSError: a model cannot be loaded.
    """
    ask = pipeline("mint", **config["models"], dtype=compute_dtype(), trust_remote_code=True)
    field = config.get("topic_field")
    topics = read_topics(ask.processor.collection, field) if field else None
    limit = config.get("time_limit", TIME_LIMIT)
    demo = Demo(ask, topics, config.get("article_url"), config.get("language"), limit)
    return build_app(demo, config["examples"])


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
    style = Path(__file__).with_name("style.css")
    app.launch(theme=THEME, css_paths=style, footer_links=["api"], ssr_mode=False, run_history=False, **settings)


if __name__ == "__main__":
    serve(load_app(json.loads(Path(__file__).with_name("config.json").read_text(encoding="utf-8"))))
