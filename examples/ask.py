"""Asks a run's models a question.

python examples/ask.py --output_dir outputs/demo --question "Who designed the Eiffel Tower?" --strategy cascade
"""

from dataclasses import dataclass, field
from pathlib import Path

from arguments import parse_settings
from run_folder import plain_errors
from transformers import pipeline
from transformers.utils import logging

import modeling_mint  # noqa: F401  (registers the pipeline)
from modeling_mint.compute_dtype import compute_dtype


@dataclass
class QuestionArguments:
    """
    What to ask.

    Args:
        question (`str`): the question.
        top_k (`int`, *optional*, defaults to 5): documents to show.
        threshold (`float`, *optional*, defaults to 0.0): abstain when the answer's confidence is lower.
    """

    question: str = field(metadata={"help": "The question."})
    top_k: int = field(default=5, metadata={"help": "Documents to show."})
    threshold: float = field(default=0.0, metadata={"help": "Abstain when the answer's confidence is lower."})


def main() -> None:
    """Prints the answer and the documents."""
    settings, question = parse_settings(also=QuestionArguments)
    root = Path(settings.run.output_dir)
    models = {"model": str(root / "mint-rag"), "gar_model": str(root / "mint-gar")}
    folders = list(models.values())
    if (root / "mint-base").is_dir():
        # One base in memory for both roles, where two full models would take twice as much.
        adapters = {role: str(root / f"mint-{role}-adapter") for role in ("rag", "gar")}
        models = {"model": str(root / "mint-base"), "adapters": adapters}
        folders = [models["model"], *adapters.values()]
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is missing: run examples/run_mint.py first.")
    logging.disable_progress_bar()
    ask = pipeline("mint", **models, dtype=compute_dtype(), strategy=settings.run.strategy, trust_remote_code=True)
    reply = ask(question.question, top_k=question.top_k, threshold=question.threshold)
    print("(no answer: too unsure)" if reply["abstained"] else reply["answer"], f"  confidence {reply['score']:.2f}")
    for document in reply["documents"]:
        print(f"  {document['score']:.2f}  {document['title']}: {document['text'][:100]}")


if __name__ == "__main__":
    with plain_errors():
        main()
