"""KILT answer scores as an `evaluate` module: accuracy, EM, F1, ROUGE-L, and their KILT-versions."""

import re
import string
import sys
from collections import Counter

import datasets
import evaluate
from rouge import Rouge

_DESCRIPTION = """
Scores answers against KILT's reference answers, with the behaviour of KILT's own scorer: accuracy, exact match (EM),
F1 and ROUGE-L, each for the best reference answer. The KILT-versions count an answer's score only where its ranking
has R-precision 1, so where the provenance is right. Scores are means over all queries; an empty answer scores 0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[dict]`):
        Per query, `"answer"` (`str`; empty for an abstention) and `"docids"` (`list[str]`, best first; repeated docids
        count once).
    references (`list[dict]`):
        Per query, `"answers"` (`list[str]`, equally good; empty ones are left out) and `"provenance"`
        (`list[list[str]]`, alternative evidence sets of docids).

Returns:
    `dict[str, float]`, each value in [0, 1]:
        - **accuracy**: the answer is a reference answer, character by character.
        - **em**: the same after normalization (lower case, without punctuation, articles and extra whitespace).
        - **f1**: F1 of the normalized words.
        - **rougel**: ROUGE-L F-score of the texts as they are, by the package `rouge`.
        - **kilt_accuracy**, **kilt_em**, **kilt_f1**, **kilt_rougel**: the same with 0 where R-precision is below 1.

Raises:
    `ValueError`: if there are no predictions, or one's answer has no reference answer to be compared with.

Examples:
    >>> kilt_downstream = evaluate.load("trainers/metrics/kilt_downstream")
    >>> scores = kilt_downstream.compute(
    ...     predictions=[
    ...         {"answer": "the Louvre", "docids": ["Louvre"]},
    ...         {"answer": "Gustave", "docids": ["Paris"]},
    ...     ],
    ...     references=[
    ...         {"answers": ["Louvre"], "provenance": [["Louvre"]]},
    ...         {"answers": ["Gustave"], "provenance": [["Eiffel Tower"]]},
    ...     ],
    ... )
    >>> scores["accuracy"], scores["em"], scores["kilt_accuracy"], scores["kilt_em"]
    (0.5, 1.0, 0.0, 0.5)
"""

_CITATION = """
@inproceedings{petroni-etal-2021-kilt,
    title = "{KILT}: a Benchmark for Knowledge Intensive Language Tasks",
    author = {Petroni, Fabio and Piktus, Aleksandra and Fan, Angela and Lewis, Patrick and Yazdani, Majid and
      De Cao, Nicola and Thorne, James and Jernite, Yacine and Karpukhin, Vladimir and Maillard, Jean and
      Plachouras, Vassilis and Rockt{\\"a}schel, Tim and Riedel, Sebastian},
    booktitle = "Proceedings of the 2021 Conference of the North American Chapter of the Association for Computational
      Linguistics: Human Language Technologies",
    year = "2021",
    pages = "2523--2544",
    doi = "10.18653/v1/2021.naacl-main.200",
}
"""

_NAMES = ["accuracy", "em", "f1", "rougel"]
_KILT_NAMES = [f"kilt_{name}" for name in _NAMES]
_ROUGE = Rouge(metrics=["rouge-l"])
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text):
    """Lower-cases `text` and takes out ASCII punctuation, then English articles, then extra whitespace."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:the|an|a)\b", " ", text).split())


def answer_f1(answer, reference):
    """F1 of the normalized words of `answer` and `reference`, counted with repetition; 0 if none is shared."""
    answer_words, reference_words = normalize_answer(answer).split(), normalize_answer(reference).split()
    shared = (Counter(answer_words) & Counter(reference_words)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(answer_words), shared / len(reference_words)
    return 2 * precision * recall / (precision + recall)


def _rougel(answer, reference):
    """ROUGE-L F-score of the raw texts; 0 where one of them holds nothing but full stops."""
    limit = sys.getrecursionlimit()
    # `rouge` recurs once for each word of both texts, which long answers have more of than Python allows.
    sys.setrecursionlimit(limit + len(answer.split()) + len(reference.split()))
    try:
        return _ROUGE.get_scores(answer, reference)[0]["rouge-l"]["f"]
    except ValueError:  # it splits sentences at full stops and refuses a text without any sentence
        return 0.0
    finally:
        sys.setrecursionlimit(limit)


def _has_right_provenance(docids, provenance):
    """Whether R-precision is 1: the first R distinct docids are exactly an evidence set (of R docids)."""
    ranking = list(dict.fromkeys(docid.strip() for docid in docids if docid is not None))
    evidence_sets = [{docid.strip() for docid in docids if docid is not None} for docids in provenance]
    return any(evidence and evidence == set(ranking[: len(evidence)]) for evidence in evidence_sets)


def score_query(answer, answers, docids, provenance):
    """
    Scores the answer to one query.

    Args:
        answer (`str`):
            The answer; an empty one scores 0.
        answers (`list[str]`):
            Reference answers.
        docids (`list[str]`):
            Ranking, best first.
        provenance (`list[list[str]]`):
            Evidence sets of docids.

    Returns:
        `dict[str, float]`: the query's scores, by the names of the metric.

    Raises:
        `ValueError`: if there is an answer and no reference answer to compare it with.
    """
    answer, answers = (answer or "").strip(), {text.strip() for text in answers if text and text.strip()}
    if not answer:
        return dict.fromkeys([*_NAMES, *_KILT_NAMES], 0.0)
    if not answers:
        raise ValueError(f"no reference answer to compare {answer!r} with: give at least one that is not empty")
    scores = {
        "accuracy": float(answer in answers),
        "em": float(normalize_answer(answer) in map(normalize_answer, answers)),
        "f1": max(answer_f1(answer, text) for text in answers),
        "rougel": max(_rougel(answer, text) for text in answers),
    }
    right_provenance = _has_right_provenance(docids, provenance)
    return scores | {f"kilt_{name}": score * right_provenance for name, score in scores.items()}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KiltDownstream(evaluate.Metric):
    """KILT answer scores, plain and counted only where the provenance is right."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {"answer": text, "docids": datasets.List(text)},
                    "references": {"answers": datasets.List(text), "provenance": datasets.List(datasets.List(text))},
                }
            ),
            reference_urls=["https://github.com/facebookresearch/KILT"],
        )

    def _compute(self, predictions, references):
        if not predictions:
            raise ValueError("no predictions to score: give at least one answer")
        scores = []
        for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            try:
                scores.append(score_query(**prediction, **reference))
            except ValueError as error:
                raise ValueError(f"references[{index}]: {error}") from None
        return {name: sum(one[name] for one in scores) / len(scores) for name in scores[0]}
