"""The tasks of MINT: one name, one prompt, one target each. The only place that knows prompts.

A *sample* (a row of the common schema: query, answers, docids, rows, source, ...) is turned here into *training
examples*, one per task that its source and the model's role allow (`mint.md`, Tasks). The same templates make the
prompts at inference, so that training and use cannot drift apart.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

COMPONENTS = ("retrieval", "generation", "auxiliary", "exchange")
DOCID_SEPARATOR = "|"


@dataclass(frozen=True)
class Task:
    """
    One task: "input text -> target text" (`mint.md`, table of tasks).

    Attributes:
        name (`str`): the task's name in code.
        roles (`tuple[str, ...]`): the models that learn it.
        component (`str`): the part of the joint loss that counts it when its sample is labelled: `"retrieval"` (L_GR),
            `"generation"` (L_G) or `"auxiliary"` (L_AUX).
        template (`str`): the prompt; its fields are the task's inputs. It ends where the target begins.
    """

    name: str
    roles: tuple[str, ...]
    component: str
    template: str


_TASKS = (
    Task("query_to_docid", ("rag",), "retrieval", "Question: {query}\nTitle:"),
    Task("query_answer_to_docid", ("gar",), "retrieval", "Question: {query}\nAnswer: {answer}\nTitle:"),
    Task("document_to_docid", ("rag", "gar"), "retrieval", "Passage: {document}\nTitle:"),
    Task("grounded_answer", ("rag",), "generation", "{documents}Question: {query}\nAnswer:"),
    Task("closed_book_answer", ("gar",), "generation", "Question: {query}\nAnswer:"),
    Task("query_to_docid_list", ("rag",), "auxiliary", "Question: {query}\nTitles:"),
    Task("query_answer_to_docid_list", ("gar",), "auxiliary", "Question: {query}\nAnswer: {answer}\nTitles:"),
    Task("docid_to_docid_list", ("rag", "gar"), "auxiliary", "Title: {docid}\nRelated titles:"),
    Task("document_to_query", ("rag", "gar"), "auxiliary", "Passage: {document}\nQuestion:"),
)
TASKS = {task.name: task for task in _TASKS}


@dataclass(frozen=True)
class TrainingExample:
    """
    One "input text -> target text" pair.

    Attributes:
        task (`str`): name of the task.
        component (`str`): one of `COMPONENTS`: the part of the loss that it counts in.
        prompt (`str`): input text.
        target (`tuple[str, ...]`): pieces of the target, each tokenized on its own and then joined, so that a docid's
            ids are its trie path wherever it stands; the end token follows the last one.
        weight (`float`): confidence of a partner's sample in [0, 1]; 1.0 for all other samples.
    """

    task: str
    component: str
    prompt: str
    target: tuple[str, ...]
    weight: float = 1.0


def one_line(text: str) -> str:
    """Collapses white space: a prompt's lines are its structure, so no field may bring line breaks of its own."""
    return " ".join(text.split())


def shorten(text: str, max_chars: int) -> str:
    """Cuts `text` at the last word that fits into `max_chars` characters."""
    text = one_line(text)
    if len(text) <= max_chars:
        return text
    return text[: max_chars + 1].rsplit(" ", 1)[0][:max_chars]


def without_brackets(title: str) -> str:
    """The title without its closing part in brackets: "Mercury (planet)" -> "Mercury"."""
    return re.sub(r"\s*\([^)]*\)$", "", title)


def mask_title(text: str, title: str, mask: str = "it") -> str:
    """
    Replaces the title (and the title without its part in brackets) in a document's text by "it", or by another mask.

    Most lead texts begin with their title, so that `document_to_docid` would teach copying only; with the title masked
    out the model has to know the document by what it says. Sections speak of their page by its title too, so that is
    what is masked there; the heading hardly ever stands in the text, and where it does it is a word like others.
    """
    names = {title, without_brackets(title)} - {""}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda _: mask, text, flags=re.IGNORECASE)


def format_prompt(
    task_name: str,
    *,
    query: str = "",
    answer: str = "",
    docid: str = "",
    document: str = "",
    documents: Sequence[tuple[str, str]] = (),
) -> str:
    """
    The prompt of a task.

    Args:
        task_name (`str`): a key of `TASKS`.
        query, answer, docid, document (`str`): the task's inputs; those that it does not use are ignored.
        documents (`Sequence[tuple[str, str]]`): (docid, text) of the retrieved documents, best first.

    Raises:
        KeyError: if there is no such task.
    """
    blocks = "".join(f"{one_line(title)}: {one_line(text)}\n" for title, text in documents)
    return TASKS[task_name].template.format(
        query=one_line(query),
        answer=one_line(answer),
        docid=one_line(docid),
        document=one_line(document),
        documents=blocks,
    )


def docid_list(docids: Sequence[str]) -> tuple[str, ...]:
    """A ranked list of docids as the pieces of its target: docid, separator, docid, ..."""
    return tuple(piece for docid in docids for piece in (DOCID_SEPARATOR, docid))[1:]


def training_examples(
    sample: Mapping,
    role: str,
    document: Callable[[int], tuple[str, str]],
    *,
    page: Callable[[int], str] | None = None,
    max_document_chars: int = 320,
    context_rows: Sequence[int] = (),
) -> Iterator[TrainingExample]:
    """
    Derives the training examples of one sample for one role (`mint.md`, Tasks and Stage 2).

    Args:
        sample (`Mapping`):
            A row of the common schema (`dataset_builders/features.py`).
        role (`str`):
            `"rag"` or `"gar"`: the model that learns.
        document (`Callable[[int], tuple[str, str]]`):
            Gives (title, text) of a row of the collection.
        page (`Callable[[int], str]`, *optional*):
            Gives the title of the page that a row is a section of, which `document_to_docid` masks. Without it a row
            is a page, and its own title is masked.
        max_document_chars (`int`, *optional*, defaults to 320):
            Characters of a document's text that a prompt holds.
        context_rows (`Sequence[int]`, *optional*):
            Rows of the documents that `grounded_answer` reads, in order. Defaults to the sample's own first document.

    Yields:
        [`TrainingExample`]
    """
    source = sample["source"]
    query, answers, docids, rows = sample["query"], sample["answers"], sample["docids"], sample["rows"]
    score = (sample["confidence"] or {}).get("score")
    weight = 1.0 if score is None else score

    def example(task_name: str, *target: str, **inputs) -> TrainingExample:
        task = TASKS[task_name]
        component = {"llm": "auxiliary", "rag": "exchange", "gar": "exchange"}.get(source, task.component)
        if source == "substituted" and sample["iteration"]:  # made of a model's sample
            component = "exchange"
        return TrainingExample(task_name, component, format_prompt(task_name, **inputs), target, weight)

    def text(row: int, masked: bool = False) -> str:
        title, body = document(row)
        return shorten(mask_title(body, page(row) if page else title) if masked else body, max_document_chars)

    if source == "collection":
        yield example("document_to_docid", docids[0], document=text(rows[0], masked=True))
        return

    inputs = {"query": query}
    retrieval_task = "query_to_docid"
    if role == "gar":
        inputs["answer"] = answers[0] if answers else ""
        retrieval_task = "query_answer_to_docid"
    if role == "rag" or answers:
        if source == "llm":
            yield example(f"{retrieval_task}_list", *docid_list(docids), **inputs)
        else:
            # A labelled sample's docids are all relevant; a model's own are a ranking, of which the first is believed.
            for docid in docids if source == "labelled" else docids[:1]:
                yield example(retrieval_task, docid, **inputs)
    # Neither answer nor document fit a substituted query any more; a sentence asks nothing that could be answered.
    if source in ("substituted", "sentence"):
        return
    context = [(document(row)[0], text(row)) for row in list(context_rows) or rows[:1]]
    if answers and role == "rag" and context:
        yield example("grounded_answer", answers[0], query=query, documents=context)
    elif answers and role == "gar":
        yield example("closed_book_answer", answers[0], query=query)
    if source == "llm" and len(docids) > 1:
        yield example("docid_to_docid_list", *docid_list(docids[1:]), docid=docids[0])
    # A labelled record need not have provenance.
    if source in ("labelled", "llm") and rows:
        # A long document has queries about each part of it: show the one that the query was written from.
        asked_about = shorten(sample["passage"], max_document_chars) or text(rows[0])
        yield example("document_to_query", query, document=asked_about)
