"""Predictions in KILT's submission format, and the gold records that they are scored by."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset_builders.json_lines import NUM_SHOWN, read_json_lines
from dataset_builders.kilt import KILT_TASKS
from dataset_builders.titles import kilt_section_titles, section_docid

from .blocks import write_json_lines

logger = logging.getLogger(__name__)

WIKIPEDIA_ID, TITLE, SECTION_DOCID = ("wikipedia_id",), ("title",), ("docid",)
"""Rank keys: what a docid is made of. `SECTION_DOCID` is ours: title and section as a collection of sections has
them (`~dataset_builders.titles.section_docid`)."""

_TASK_OF_FILE = {Path(file).stem: name for name, task in KILT_TASKS.items() for file in task.files.values()}


class GoldQuery(NamedTuple):
    """
    A labelled record of a KILT file, as the scorer sees it.

    Attributes:
        id (`str`): its id, without outer whitespace.
        query (`str`): the "input"; empty where there is none.
        answers (`list[str]`): its answers, equally good.
        provenance (`list[list[str | None]]`): by output item that has a provenance, the docids of its pieces; `None`
            for a piece without the rank keys.
        titles (`list[str]`): distinct titles of the pieces, in their order.
        source (`str`): the dataset: KILT's name for one of its files, else the letters in front of the id's first "-"
            or "_", else the name of the file.
        task (`str`): "task" of the record's "meta", else the type of KILT's task; empty where neither is known.
        answer_in_document (`bool`, *optional*): what "meta" says about it.
    """

    id: str
    query: str
    answers: list[str]
    provenance: list[list[str | None]]
    titles: list[str]
    source: str
    task: str
    answer_in_document: bool | None


class Prediction(NamedTuple):
    """
    What a system replied to a query.

    Attributes:
        answer (`str`, *optional*): its answer; `None` where the record has none (an empty one is an abstention).
        docids (`list[str]`): its ranking, best first. Pieces without the rank keys are left out.
    """

    answer: str | None
    docids: list[str]


def read_gold(path: str | Path, rank_keys: Sequence[str] = WIKIPEDIA_ID, *, blind: bool = False) -> list[GoldQuery]:
    """
    Reads labelled records.

    Args:
        path (`str` or `Path`):
            KILT JSONL.
        rank_keys (`Sequence[str]`, *optional*, defaults to `("wikipedia_id",)`):
            Fields of a provenance that make up a docid, joined by "+"; or `SECTION_DOCID`. Empty where docids do
            not matter.
        blind (`bool`, *optional*, defaults to `False`):
            Whether records may come without "output", as in KILT's test sets.

    Returns:
        `list[GoldQuery]`: the records in the file's order.

    Raises:
        `ValueError`: if a line is malformed, an id is taken twice, the file holds no record, or there is provenance
            and none of it has the rank keys; naming file and line.
    """
    gold, places = [], {}
    for place, record in read_json_lines(path):
        record_id = _new_id(place, record, places)
        if "output" not in record and not blind:
            raise ValueError(f"{place}: this record has no 'output' to score by. Give labelled records.")
        outputs, meta = _outputs(place, record), record.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        answers = [item["answer"] for item in outputs if item.get("answer")]
        if not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"{place}: every 'answer' must be a string. Mend or delete it.")
        evidence_sets = [item["provenance"] for item in outputs if item.get("provenance") is not None]
        titles = [piece.get("title") for evidence in evidence_sets for piece in evidence]
        source = _source(path, record_id)
        kilt_type = KILT_TASKS[source].type if source in KILT_TASKS else ""
        gold.append(
            GoldQuery(
                id=record_id,
                query=str(record.get("input") or ""),
                answers=[answer for answer in answers if answer.strip()],
                provenance=[[_docid(piece, rank_keys) for piece in evidence] for evidence in evidence_sets],
                titles=list(dict.fromkeys(title for title in titles if isinstance(title, str) and title.strip())),
                source=source,
                task=str(meta.get("task") or kilt_type),
                answer_in_document=meta.get("answer_in_document"),
            )
        )
    if not gold:
        raise ValueError(f"{path} holds no record. Give a KILT JSONL file of labelled records.")
    pieces = [docid for one in gold for evidence in one.provenance for docid in evidence]
    if pieces and not any(docid is not None for docid in pieces):
        raise ValueError(
            f"{path}: no provenance has {', '.join(rank_keys)}. Name other fields as rank keys, such as "
            "--rank-keys title."
        )
    return gold


def read_predictions(path: str | Path, rank_keys: Sequence[str] = WIKIPEDIA_ID) -> dict[str, Prediction]:
    """
    Reads predictions in KILT's submission format.

    Args:
        path (`str` or `Path`):
            JSONL of "id" and "output", a list of one item with "answer", "provenance", or both. Of several items the
            one with provenance counts, and there is no answer.
        rank_keys (`Sequence[str]`, *optional*, defaults to `("wikipedia_id",)`):
            As for [`read_gold`].

    Returns:
        `dict[str, Prediction]`: by id, in the file's order.

    Raises:
        `ValueError`: if a line is malformed, an id is taken twice, or the file holds no record; naming file and line.
    """
    predictions, places = {}, {}
    for place, record in read_json_lines(path):
        record_id = _new_id(place, record, places)
        outputs = _outputs(place, record)
        ranked = [item for item in outputs if item.get("provenance") is not None]
        if len(outputs) != 1 and len(ranked) != 1:
            raise ValueError(
                f"{place}: a prediction needs exactly one output, with an 'answer', a 'provenance' or both; found "
                f"{len(outputs)}. Mend this line."
            )
        answer = str(outputs[0]["answer"]) if len(outputs) == 1 and "answer" in outputs[0] else None
        docids = [_docid(piece, rank_keys) for item in ranked for piece in item["provenance"]]
        predictions[record_id] = Prediction(answer, [docid for docid in docids if docid is not None])
    if not predictions:
        raise ValueError(f"{path} holds no prediction. Give a JSONL file of records with 'id' and 'output'.")
    return predictions


def align_predictions(gold: Sequence[GoldQuery], predictions: Mapping[str, Prediction]) -> list[Prediction]:
    """
    Brings predictions into the order of the gold records. Predictions for other ids are left out, with a warning.

    Args:
        gold (`Sequence[GoldQuery]`):
            Labelled records.
        predictions (`Mapping[str, Prediction]`):
            Predictions by id.

    Returns:
        `list[Prediction]`: one per gold record.

    Raises:
        `ValueError`: if gold records have no prediction.
    """
    missing = [one.id for one in gold if one.id not in predictions]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(gold)} labelled queries have no prediction: {_first(missing)}. Predict an answer "
            "for each; an empty one counts as wrong."
        )
    unknown = list(predictions.keys() - {one.id for one in gold})
    if unknown:
        logger.warning("%d predictions are for other ids and not scored: %s.", len(unknown), _first(sorted(unknown)))
    return [predictions[one.id] for one in gold]


def write_predictions(
    path: str | Path, ids: Iterable[str], answers: Iterable[str | None], provenance: Iterable[list[dict]]
) -> None:
    """
    Writes predictions in KILT's submission format; the file is there whole or not at all.

    Args:
        path (`str` or `Path`):
            File to write; its folder must exist.
        ids (`Iterable[str]`):
            Per query, its id.
        answers (`Iterable[str]`):
            Per query, its answer; `None` from a system that answers nothing.
        provenance (`Iterable[list[dict]]`):
            Per query, the ranked documents: "title", and "wikipedia_id" where there is one.
    """
    rows = zip(ids, answers, provenance, strict=True)
    records = [
        {"id": i, "output": [({} if answer is None else {"answer": answer}) | {"provenance": ranked}]}
        for i, answer, ranked in rows
    ]
    write_json_lines(Path(path), records)


def _new_id(place: str, record: dict, places: dict[str, str]) -> str:
    if "id" not in record:
        raise ValueError(f"{place}: this record has no 'id'. Add it or delete the line.")
    record_id = str(record["id"]).strip()
    if record_id in places:
        raise ValueError(f"{place}: id '{record_id}' was taken at {places[record_id]}. Make ids unique.")
    places[record_id] = place
    return record_id


def _outputs(place: str, record: dict) -> list[dict]:
    outputs = record.get("output", [])
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise ValueError(f"{place}: 'output' must be a list of objects with 'answer' and 'provenance'. Mend it.")
    for evidence in (item.get("provenance") for item in outputs):
        if evidence is not None and not (
            isinstance(evidence, list) and all(isinstance(piece, dict) for piece in evidence)
        ):
            raise ValueError(f"{place}: 'provenance' must be a list of objects such as {{'title': ...}}. Mend it.")
    return outputs


def _docid(piece: dict, rank_keys: Sequence[str]) -> str | None:
    if tuple(rank_keys) == SECTION_DOCID:
        title = piece.get("title")
        headings = kilt_section_titles(str(piece.get("section") or ""))
        return section_docid(title, *headings) if isinstance(title, str) else None
    if any(key not in piece for key in rank_keys):
        return None
    return "+".join(str(piece[key]).strip() for key in rank_keys)


def _source(path: str | Path, record_id: str) -> str:
    stem = Path(path).stem
    if stem in _TASK_OF_FILE:
        return _TASK_OF_FILE[stem]
    prefix = re.match(r"[A-Za-z]{2,}(?=[-_])", record_id)
    return prefix.group() if prefix else stem


def _first(ids: list[str]) -> str:
    return ", ".join(ids[:NUM_SHOWN]) + (", ..." if len(ids) > NUM_SHOWN else "")
