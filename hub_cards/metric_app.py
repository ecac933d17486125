"""The page of a metric's Space: predictions and references in as JSON, scores out. Stands alone beside the metric."""

import inspect
import json
from pathlib import Path

import evaluate
import gradio as gr


def build_page(script: Path) -> gr.Interface:
    """
    Makes the page.

    Args:
        script (`Path`):
            Module of the metric.

    Returns:
        [`~gradio.Interface`]: the page, not yet served.
    """
    metric = evaluate.load(str(script), keep_in_memory=True)

    def score(predictions: str, references: str) -> dict[str, float]:
        try:
            return metric.compute(predictions=json.loads(predictions), references=json.loads(references))
        except (KeyError, TypeError, ValueError) as error:
            raise gr.Error(f"These cannot be scored: {error}") from error

    return gr.Interface(
        score,
        [gr.Textbox(label=f"{name} (JSON)", lines=4) for name in ("Predictions", "References")],
        gr.JSON(label="Scores"),
        title=script.stem,
        description=inspect.cleandoc(metric.description),
        flagging_mode="never",
        api_name="score",
    )


if __name__ == "__main__":
    (module,) = (path for path in Path(__file__).parent.glob("*.py") if path.name != "app.py")
    build_page(module).launch()
