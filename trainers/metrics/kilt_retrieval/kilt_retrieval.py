"""KILT retrieval scores as an `evaluate` module: R-precision, precision, recall and success rate at k, and MRR."""

import datasets
import evaluate

_DESCRIPTION = """
Scores rankings of docids (titles, page ids, section docids: any strings) against KILT provenance, with the behaviour
of KILT's own scorer. A query's provenance is a list of alternative evidence sets; a set counts as found only once all
of its docids are. Scores are means over all queries, one with an empty ranking or without provenance scoring 0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[list[str]]`):
        One ranking per query, best docid first. Repeated docids count once, at their first place. `[]` is a missing
        prediction.
    references (`list[list[list[str]]]`):
        Per query, its alternative evidence sets, each a list of docids. `[]` in the place of a set is an output whose
        provenance is empty: it can never be found but counts in recall. `None` in the place of a docid is a
        provenance entry without an id: R-precision skips it, and its set can never be found.
    ks (`list[int]`, *optional*, defaults to `[1, 5, 10]`):
        Cut-offs, in places of the ranking.

Returns:
    `dict[str, float]`, each value in [0, 1]:
        - **r_precision**: share of an evidence set (of R docids) among the first R docids, for the best set.
        - **precision@k**, **recall@k**, **success_rate@k**: complete evidence sets within the first k places, divided
          by k; divided by the number of distinct sets; whether there is one at all. In these, the docids of one set
          share one place, that of the last of them ranked.
        - **mrr**: mean of 1 / place of the first complete evidence set (0 without one). Not among KILT's own scores.

Raises:
    `ValueError`: if there are no predictions, or `ks` holds anything but positive integers.

Examples:
    >>> kilt_retrieval = evaluate.load("trainers/metrics/kilt_retrieval")
    >>> scores = kilt_retrieval.compute(
    ...     predictions=[["Gustave Eiffel", "Eiffel Tower", "Paris"]],
    ...     references=[[["Eiffel Tower"], ["Paris", "Gustave Eiffel"]]],
    ...     ks=[1, 2],
    ... )
    >>> scores["r_precision"], scores["recall@1"], scores["recall@2"], scores["mrr"]
    (0.5, 0.5, 1.0, 1.0)
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


def _distinct(docids):
    """Docids stripped of outer whitespace, each once, in order, without the `None` of entries that have no id."""
    return list(dict.fromkeys(docid.strip() for docid in docids if docid is not None))


def _r_precision(ranking, provenance):
    """R-precision of one ranking (distinct docids) for the best of a query's evidence sets."""
    scores = [0.0]
    for evidence_set in map(_distinct, provenance):
        if evidence_set:
            hits = set(evidence_set).intersection(ranking[: len(evidence_set)])
            scores.append(len(hits) / len(evidence_set))
    return max(scores)


def _evidence_hits(ranking, evidence_sets):
    """
    Place by place, whether a complete evidence set stands there.

    A docid takes one place for every set it belongs to, or one of its own if it belongs to none. A set keeps only the
    last of its places, so the places after those it gives up move forward.

    Args:
        ranking (`list[str]`):
            Distinct docids, best first.
        evidence_sets (`list[frozenset[str]]`):
            Distinct evidence sets.

    Returns:
        `list[bool]`: one per place.
    """
    places = []
    for docid in ranking:
        places += [evidence_set for evidence_set in evidence_sets if docid in evidence_set] or [None]
    last_place = {evidence_set: place for place, evidence_set in enumerate(places)}
    return [
        evidence_set is not None and evidence_set.issubset(ranking)
        for place, evidence_set in enumerate(places)
        if evidence_set is None or last_place[evidence_set] == place
    ]


def score_query(ranking, provenance, ks=(1, 5, 10)):
    """
    Scores the ranking of one query.

    Args:
        ranking (`list[str]`):
            Docids, best first, as in `predictions`.
        provenance (`list[list[str]]`):
            Evidence sets, as in `references`.
        ks (`list[int]`, *optional*, defaults to `(1, 5, 10)`):
            Cut-offs.

    Returns:
        `dict[str, float]`: the query's scores, by the names of the metric.
    """
    ks, ranking = sorted(set(ks)), _distinct(ranking)
    # `None` stays in these sets: no docid equals it, which is what keeps such a set from being complete.
    stripped = [[docid and docid.strip() for docid in evidence_set] for evidence_set in provenance]
    evidence_sets = list(dict.fromkeys(map(frozenset, stripped)))
    hits = _evidence_hits(ranking, evidence_sets)
    found = {k: hits[:k].count(True) for k in ks}
    return (
        {"r_precision": _r_precision(ranking, provenance)}
        | {f"precision@{k}": found[k] / k for k in ks}
        | {f"recall@{k}": found[k] / max(1, len(evidence_sets)) for k in ks}
        | {f"success_rate@{k}": float(found[k] > 0) for k in ks}
        | {"mrr": 1 / (1 + hits.index(True)) if True in hits else 0.0}
    )


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KiltRetrieval(evaluate.Metric):
    """KILT retrieval scores of rankings against provenance."""

    def _info(self):
        ranking = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": ranking, "references": datasets.List(ranking)}),
            reference_urls=["https://github.com/facebookresearch/KILT"],
        )

    def _compute(self, predictions, references, ks=(1, 5, 10)):
        if not all(isinstance(k, int) and k > 0 for k in ks):
            raise ValueError(f"ks must be positive integers, got {list(ks)}")
        if not predictions:
            raise ValueError("no predictions to score: give at least one ranking")
        queries = zip(predictions, references, strict=True)
        scores = [score_query(ranking, provenance, ks) for ranking, provenance in queries]
        return {name: sum(one[name] for one in scores) / len(scores) for name in scores[0]}
