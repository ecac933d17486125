"""The one schema of all samples and of the collection, and the one place where titles are normalised."""

import unicodedata

from datasets import Features, List, Value

SOURCES = ("labelled", "llm", "rag", "gar", "collection")
"""Who wrote a sample: a human, the external LLM, one of the two models, or nobody (a bare document)."""

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
        # KILT task, such as "open_qa" or "fact_verification".
        "task": Value("string"),
        # The question or claim; empty for source "collection".
        "query": Value("string"),
        # All accepted answers, the first one is the training target; empty where there is none.
        "answers": List(Value("string")),
        # Ranked titles; for labelled data the relevant ones, in the order of the record.
        "docids": List(Value("string")),
        # Rows of `docids` in the collection, in the same order.
        "rows": List(Value("int32")),
        # Alternative complete evidence sets (titles): any one of them proves the answer.
        "provenance": List(List(Value("string"))),
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
        # Normalised title of the page that the section belongs to; `title` is its docid, see [`section_docid`].
        "page": Value("string"),
    }
)
"""Schema of a collection whose documents are sections of pages (`docid_granularity="section"`)."""


def normalize_title(title: str) -> str:
    r"""
    Brings a title to the form under which it is a docid: Unicode NFC, underscores as spaces, control characters
    dropped, runs of whitespace as one space, none at the ends.

    Args:
        title (`str`):
            Title as the source spells it.

    Returns:
        `str`: the normalised title; empty if there is nothing to see in it.

    Example:

    ```python
    >>> normalize_title(" Eiffel_Tower\t")
    'Eiffel Tower'
    ```
    """
    words = unicodedata.normalize("NFC", title).replace("_", " ").split()
    return " ".join(filter(None, map(clean_text, words)))


def section_docid(page: str, *sections: str) -> str:
    """
    Makes the docid of a section, in CorpusLM's form "title, section" (`mint.md`, Sections). It is made here and read
    nowhere: titles hold commas of their own, so the collection names each section's page in a column.

    Args:
        page (`str`):
            Title of the page, as the source spells it.
        *sections (`str`):
            Titles of the section and of those it lies in, the outermost first; none, or an empty one, for the lead
            section.

    Returns:
        `str`: the normalised docid.

    Example:

    ```python
    >>> section_docid("Paris", "History", "Middle_Ages"), section_docid("Paris")
    ('Paris, History, Middle Ages', 'Paris')
    ```
    """
    return ", ".join(filter(None, map(normalize_title, (page, *sections))))


def clean_text(text: str) -> str:
    """
    Drops the control characters (all of category Cc but tab and newline) and lone surrogates, which no tokenizer
    has a use for and Arrow refuses.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: the text without them.
    """
    return "".join(char for char in text if char in "\t\n" or unicodedata.category(char) not in ("Cc", "Cs"))


def new_sample(**fields) -> dict:
    """
    Makes a sample in the schema of [`SAMPLE_FEATURES`], filling in what is not given: empty strings and lists,
    iteration 0, no confidence signals, kept.

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
        "task": "open_qa",
        "query": "",
        "answers": [],
        "docids": [],
        "rows": [],
        "provenance": [],
        "source": "",
        "model": "",
        "iteration": 0,
        "confidence": confidence,
        "kept": True,
    } | fields
    unknown = (sample.keys() - SAMPLE_FEATURES.keys()) | (confidence.keys() - CONFIDENCE_FEATURES.keys())
    if unknown:
        raise ValueError(f"Not in the sample schema: {sorted(unknown)}. The fields are {list(SAMPLE_FEATURES)}.")
    return sample
