"""KILT's tasks (Petroni et al., NAACL 2021): their files, and what is particular to their records."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from modeling_mint.tasks_mint import one_line, shorten

from .json_lines import read_json_lines
from .titles import clean_text, resolve_title

TASK_TYPES = ("open_qa", "dialogue", "fact_verification", "entity_linking", "slot_filling")
"""The kinds of KILT tasks; a sample's `task` is one of them."""

FEVER_LABELS = ("SUPPORTS", "REFUTES")
START_ENTITY, END_ENTITY = "[START_ENT]", "[END_ENT]"
SLOT_SEPARATOR = "[SEP]"
TURN_SEPARATOR = " / "
"""Between the turns of a dialogue: what verse has in running text, where its lines end. Prompts have one line."""


class KiltTask(NamedTuple):
    """
    One of KILT's tasks.

    Attributes:
        type (`str`): one of `TASK_TYPES`.
        files (`dict[str, str]`): official file name by split.
    """

    type: str
    files: dict[str, str]


_PARTS = {"train": "train", "validation": "dev", "test": "test_without_answers"}
_TRIVIAQA_PARTS = {"train": "train_id", "validation": "dev_id", "test": "test_id_without_answers"}
_PARTS_WITHOUT_TRAIN = {"validation": "dev", "test": "test_without_answers"}

KILT_TASKS = {
    name: KiltTask(task_type, {split: f"{name}-{part}-kilt.jsonl" for split, part in parts.items()})
    for name, task_type, parts in (
        ("nq", "open_qa", _PARTS),
        ("triviaqa", "open_qa", _TRIVIAQA_PARTS),
        ("hotpotqa", "open_qa", _PARTS),
        ("eli5", "open_qa", _PARTS),
        ("wow", "dialogue", _PARTS),
        ("fever", "fact_verification", _PARTS),
        ("aidayago2", "entity_linking", _PARTS),
        ("wned", "entity_linking", _PARTS_WITHOUT_TRAIN),
        ("cweb", "entity_linking", _PARTS_WITHOUT_TRAIN),
        ("trex", "slot_filling", _PARTS),
        ("structured_zeroshot", "slot_filling", _PARTS),
    )
}
"""KILT's tasks by the names of their files."""


class KiltRecord(NamedTuple):
    """
    What a KILT record says.

    Attributes:
        id (`str`): its id.
        split (`str` or `None`): the split that "meta" says it is of.
        query (`str`): question, claim, dialogue, marked mention, or subject and relation, on one line.
        answers (`list[str]`): the distinct answers, in their order.
        evidence_sets (`list[list[tuple[str, str]]]`): by output item that has provenance, the normalised title of the
            page and the section of each piece, as `~dataset_builders.titles.kilt_section_titles` reads it.
        metadata (`str`): "meta" and all further fields as a JSON object.
    """

    id: str
    split: str | None
    query: str
    answers: list[str]
    evidence_sets: list[list[tuple[str, str]]]
    metadata: str


def read_record(
    record: dict, task_type: str, max_query_chars: int = 1000, redirects: Mapping[str, str] | None = None
) -> KiltRecord:
    """
    Reads a record by the rules of its task.

    Args:
        record (`dict`):
            "id", "input", and perhaps "output" (a list of items with an "answer", a "provenance", or both) and "meta".
        task_type (`str`):
            One of `TASK_TYPES`.
        max_query_chars (`int`, *optional*, defaults to 1000):
            Most characters of the query.
        redirects (`Mapping[str, str]`, *optional*):
            Titles by their aliases, of [`~dataset_builders.titles.load_redirects`].

    Returns:
        [`KiltRecord`]: what it says.

    Raises:
        `ValueError`: if the record is not of KILT's form, or not of its task's.

    Example:

    ```python
    >>> read_record({"id": 7, "input": "Cats bark.", "output": [{"answer": "refutes"}]}, "fact_verification").answers
    ['REFUTES']
    ```
    """
    record_id, text = record.get("id"), record.get("input")
    if not isinstance(record_id, str | int) or not isinstance(text, str) or not (text := clean_text(text)).strip():
        raise ValueError(
            "a KILT record needs 'id' and a non-empty 'input'. Add them, pass questions_file=... that has a question "
            "for the id, or delete the line."
        )
    output, meta = record.get("output") or [], record.get("meta") or {}
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise ValueError("'output' must be a list of objects with 'answer' and 'provenance'. Mend or delete it.")
    if not isinstance(meta, dict):
        raise ValueError("'meta' must be an object. Mend or delete it.")
    answers = [item["answer"] for item in output if item.get("answer")]
    if not all(isinstance(answer, str) for answer in answers):
        raise ValueError("every 'answer' must be a string. Mend or delete it.")
    answers = [answer for answer in (clean_text(answer).strip() for answer in answers) if answer]
    match task_type:
        case "fact_verification":
            answers = fever_labels(answers)
        case "entity_linking":
            answers = [resolve_title(answer, redirects or {}) for answer in answers]
    further = {name: value for name, value in record.items() if name not in ("id", "input", "output", "meta")}
    metadata = {name: value for name, value in (further | meta).items() if name != "split"}
    return KiltRecord(
        id=clean_text(str(record_id)),
        split=meta.get("split"),
        query=_QUERIES.get(task_type, shorten)(text, max_query_chars),
        answers=list(dict.fromkeys(answers)),
        evidence_sets=[
            _evidence_set(item["provenance"], redirects or {}) for item in output if item.get("provenance")
        ],
        metadata=clean_text(json.dumps(metadata, ensure_ascii=False)),
    )


def _evidence_set(provenance: object, redirects: Mapping[str, str]) -> list[tuple[str, str]]:
    if not isinstance(provenance, list) or not all(
        isinstance(piece, dict) and isinstance(piece.get("title"), str) for piece in provenance
    ):
        raise ValueError("every provenance needs a 'title' as a string. Add it or delete the provenance.")
    return [(resolve_title(piece["title"], redirects), str(piece.get("section") or "")) for piece in provenance]


def fever_labels(answers: list[str]) -> list[str]:
    """
    Brings FEVER's labels to upper case.

    Args:
        answers (`list[str]`):
            Labels in any letter case.

    Returns:
        `list[str]`: the labels, each one of `FEVER_LABELS`.

    Raises:
        `ValueError`: if one of them is another. (KILT leaves FEVER's claims without enough information out.)
    """
    labels = [answer.upper() for answer in answers]
    for label in labels:
        if label not in FEVER_LABELS:
            raise ValueError(f"label '{label}' is not one of {', '.join(FEVER_LABELS)}. Mend or delete the record.")
    return labels


def dialogue_query(history: str, max_chars: int) -> str:
    """
    Puts a dialogue on one line, its turns apart by `TURN_SEPARATOR`.

    Args:
        history (`str`):
            One turn a line, the oldest first.
        max_chars (`int`):
            Most characters: the oldest turns are dropped until the others fit, and the last one is cut if it alone
            does not.

    Returns:
        `str`: the dialogue, the last turn last.
    """
    *earlier, last = filter(None, map(one_line, history.split("\n")))
    query = shorten(last, max_chars)
    for turn in reversed(earlier):
        longer = f"{turn}{TURN_SEPARATOR}{query}"
        if len(longer) > max_chars:
            break
        query = longer
    return query


def mention_query(text: str, max_chars: int) -> str:
    """
    Puts a text with a marked mention on one line, cut to a window of whole words around the mention.

    Args:
        text (`str`):
            Text with "[START_ENT] mention [END_ENT]" in it.
        max_chars (`int`):
            Most characters. Both sides get the same, or one more where the other needs less. The marked mention stays
            whole, however long it is.

    Returns:
        `str`: the window.

    Raises:
        `ValueError`: if the markers are not there once each, in this order, around a mention.
    """
    left, _, rest = text.partition(START_ENTITY)
    mention, _, right = rest.partition(END_ENTITY)
    if text.count(START_ENTITY) != 1 or text.count(END_ENTITY) != 1 or not mention.strip():
        raise ValueError(
            f"entity linking needs '{START_ENTITY} mention {END_ENTITY}' in 'input', exactly once. Mend the markers "
            "or delete the record."
        )
    left, marked, right = map(one_line, (left, f"{START_ENTITY} {mention} {END_ENTITY}", right))
    room = max(0, max_chars - len(marked) - 2)  # for two spaces
    num_left = max(room // 2, room - len(right))
    left = shorten(left[::-1], num_left)[::-1]  # its end
    return one_line(f"{left} {marked} {shorten(right, room - len(left))}")


def slot_query(text: str, max_chars: int) -> str:
    """
    Checks a query for slot filling, and puts it on one line.

    Args:
        text (`str`):
            "subject [SEP] relation".
        max_chars (`int`):
            Most characters; cut at a word.

    Returns:
        `str`: the query.

    Raises:
        `ValueError`: if subject or relation is missing.
    """
    subject, _, relation = text.partition(SLOT_SEPARATOR)
    if not subject.strip() or not relation.strip():
        raise ValueError(
            f"slot filling needs 'subject {SLOT_SEPARATOR} relation' in 'input'. Mend or delete the record."
        )
    return shorten(text, max_chars)


_QUERIES = {"dialogue": dialogue_query, "entity_linking": mention_query, "slot_filling": slot_query}


def load_questions(*paths: str | Path) -> dict[str, str]:
    """
    Reads the questions that KILT's TriviaQA files have ids of only.

    Args:
        *paths (`str` or `Path`):
            TriviaQA's own files (`.json`: {"Data": [{"QuestionId": ..., "Question": ...}, ...]}), or JSONL of "id" and
            "input".

    Returns:
        `dict[str, str]`: question by id.

    Raises:
        `ValueError`: if a file is of neither form, naming the place.
    """
    questions = {}
    for path in map(Path, paths):
        if path.suffix == ".json":
            try:
                data = json.loads(path.read_text(encoding="utf-8"))["Data"]
                questions |= {question["QuestionId"]: question["Question"] for question in data}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}: expected TriviaQA\'s {{"Data": [{{"QuestionId": ..., "Question": ...}}]}} ({error!r}). '
                    "Name JSONL files .jsonl."
                ) from error
        else:
            for place, record in read_json_lines(path):
                if "id" not in record or not isinstance(record.get("input"), str):
                    raise ValueError(f"{place}: a question needs 'id' and 'input'. Add them or delete the line.")
                questions[str(record["id"])] = record["input"]
    return questions
