"""The one schema of all samples and of the collection."""

from datasets import Features, List, Value

SOURCES = ("labelled", "llm", "rag", "gar", "collection", "substituted", "sentence")
"""
Who wrote a sample: a human, the external LLM, one of the two models, or nobody: a bare document, or, while training, a
query in which another title was put ([`~dataset_builders.title_substitution.substitute_titles`]), or a sentence of a
document as a query ([`~dataset_builders.sentence_queries.sentence_queries`]).
"""

CONFIDENCE_FEATURES = {
    # Length-normalised log-probability (natural logarithm, mean per token) of the first docid, and of the answer.
    "docid_log_prob": Value("float32"),
    "answer_log_prob": Value("float32"),
    # Round trip: rank of the source document among the docids, 1 = first, 0 = not among them.
    "round_trip_rank": Value("int32"),
    # Agreement with the other model on the docids and on the answer, each in [0, 1].
    "docid_agreement": Value("float32"),
    "answer_agreement": Value("float32"),
    # What the filter made of the signals above; higher is better.
    "score": Value("float32"),
}

SAMPLE_FEATURES = Features(
    {
        # Unique within its config.
        "id": Value("string"),
        # "train", "validation" or "test". Only labelled samples are ever in another split than "train".
        "split": Value("string"),
        # KILT task, such as "open_qa" or "fact_verification".
        "task": Value("string"),
        # The question or claim; empty for source "collection".
        "query": Value("string"),
        # All accepted answers, the first one is the training target; empty where there is none.
        "answers": List(Value("string")),
        # Ranked titles. Labelled: the relevant ones, in the order of the record; llm: the source document and, behind
        # it, its related ones; rag and gar: what the model retrieved.
        "docids": List(Value("string")),
        # Rows of `docids` in the collection, in the same order.
        "rows": List(Value("int32")),
        # Alternative complete evidence sets (titles): any one of them proves the answer. Of a model's sample: the
        # document that it wrote the query from, or was asked of.
        "provenance": List(List(Value("string"))),
        # The part of the source document that a model wrote the query from; empty where no model did.
        "passage": Value("string"),
        # One of SOURCES.
        "source": Value("string"),
        # Id of the model that wrote the sample, "" for humans.
        "model": Value("string"),
        # Co-training iteration, counted from 1; 0 for everything else.
        "iteration": Value("int32"),
        # Signals of the confidence filter, each null where there is none.
        "confidence": CONFIDENCE_FEATURES,
        # False only for samples that the confidence filter dropped.
        "kept": Value("bool"),
        # All other fields of the record as a JSON object, such as KILT's '{"template_questions": [...]}'.
        "metadata": Value("string"),
    }
)
"""Schema of every sample: basic, auxiliary and co-training data alike, so that they concatenate as they are."""

COLLECTION_FEATURES = Features(
    {
        # The docid, normalised. Several documents may share one.
        "title": Value("string"),
        # Plain text of the document.
        "text": Value("string"),
        # Titles that the corpus itself links to; empty where it links to none.
        "related": List(Value("string")),
        # All other fields of the raw document as a JSON object, such as '{"topic": "Arts"}'.
        "metadata": Value("string"),
    }
)
"""Schema of the collection. A document is known by its row in it."""

SECTION_COLLECTION_FEATURES = Features(
    {
        **COLLECTION_FEATURES,
        # Normalised title of the page that the section belongs to; `title` is its docid, see
        # [`~dataset_builders.titles.section_docid`].
        "page": Value("string"),
    }
)
"""Schema of a collection whose documents are sections of pages (`docid_granularity="section"`)."""


def new_sample(**fields) -> dict:
    """
    Makes a sample in the schema of [`SAMPLE_FEATURES`], filling in what is not given: empty strings and lists,
    split "train", iteration 0, no confidence signals, kept.

    Args:
        **fields:
            Fields of the sample. `confidence` may hold a part of the signals only.

    Returns:
        `dict`: the complete sample.

    Raises:
        `ValueError`: if a field or a confidence signal is not in the schema.

    Example:

    ```python
    >>> new_sample(id="1", query="who designed the eiffel tower?", source="labelled")["kept"]
    True
    ```
    """
    confidence = dict.fromkeys(CONFIDENCE_FEATURES) | fields.pop("confidence", {})
    sample = {
        "id": "",
        "split": "train",
        "task": "open_qa",
        "query": "",
        "answers": [],
        "docids": [],
        "rows": [],
        "provenance": [],
        "passage": "",
        "source": "",
        "model": "",
        "iteration": 0,
        "confidence": confidence,
        "kept": True,
        "metadata": "{}",
    } | fields
    unknown = (sample.keys() - SAMPLE_FEATURES.keys()) | (confidence.keys() - CONFIDENCE_FEATURES.keys())
    if unknown:
        raise ValueError(f"Not in the sample schema: {sorted(unknown)}. The fields are {list(SAMPLE_FEATURES)}.")
    return sample
