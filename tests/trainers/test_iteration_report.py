import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from dataset_builders.features import new_sample
from trainers.confidence import KEEP_NONE
from trainers.iteration_report import auroc, write_iteration_report

DEV_SCORES = {"rag": {"r_precision": 0.5, "em": 0.25}, "gar": {"r_precision": 0.75, "em": 0.125}}
LOSSES = {"rag": {"loss_exchange_gar_to_rag": 1.5}, "gar": {}}
WARNINGS = ["No sample of gar was kept: rag stays as it is."]


def written(role, right, title_in_query, kept, *, score, rank, agreement, log_prob):
    return new_sample(
        query=f"who built {'Tower Bridge' if title_in_query else 'it'}?",
        answers=["Horace Jones"],
        docids=["Tower Bridge" if right else "Paris"],
        provenance=[["Tower Bridge"]],
        source=role,
        iteration=2,
        confidence={
            "docid_log_prob": log_prob,
            "answer_log_prob": -1.0,
            "round_trip_rank": rank,
            "docid_agreement": agreement,
            "answer_agreement": 0.5,
            "score": score,
        },
        kept=kept,
    )


@pytest.fixture
def samples():
    """RAG's by hand: three right, one of them without its title and dropped; two wrong, one of them kept."""
    rag = [
        written("rag", True, True, True, score=0.9, rank=1, agreement=1.0, log_prob=-0.1),
        written("rag", True, True, True, score=0.8, rank=1, agreement=0.0, log_prob=-0.4),
        written("rag", True, False, False, score=0.3, rank=1, agreement=1.0, log_prob=-0.9),
        written("rag", False, False, True, score=0.6, rank=2, agreement=1.0, log_prob=-0.6),
        written("rag", False, True, False, score=0.1, rank=0, agreement=0.0, log_prob=-2.0),
    ]
    gar = [written("gar", True, True, False, score=0.5, rank=1, agreement=0.5, log_prob=-0.2)]
    return {"rag": rag, "gar": gar}


@pytest.fixture
def report(samples, tmp_path):
    return write_iteration_report(tmp_path, 2, samples, DEV_SCORES, LOSSES, {"rag": 0.55, "gar": KEEP_NONE}, WARNINGS)


def test_samples_are_counted_before_and_after_the_filter(report):
    assert report["iteration"] == 2
    assert report["samples"] == {"rag": 5, "gar": 1}
    assert report["kept"] == {"rag": 3, "gar": 0}
    assert report["acceptance"] == {"rag": pytest.approx(0.6), "gar": 0.0}
    assert report["title_in_query"] == {"rag": {"written": 3, "kept": 2}, "gar": {"written": 1, "kept": 0}}


def test_precision_is_split_by_whether_copying_the_title_is_enough(report):
    assert report["precision"]["rag"] == pytest.approx(
        {
            "written": 3 / 5,
            "written_title_in_query": 2 / 3,
            "written_title_not_in_query": 1 / 2,
            "kept": 2 / 3,
            "kept_title_in_query": 1.0,
            "kept_title_not_in_query": 0.0,
        }
    )
    gar = report["precision"]["gar"]
    assert (gar["written"], gar["written_title_not_in_query"], gar["kept"]) == (1.0, None, None)


def test_agreement_is_that_with_the_partner_before_and_after_the_filter(report):
    assert report["agreement"]["rag"]["written"] == pytest.approx({"docid": 3 / 5, "answer": 0.5})
    assert report["agreement"]["rag"]["kept"] == pytest.approx({"docid": 2 / 3, "answer": 0.5})
    assert report["agreement"]["gar"]["kept"] == {"docid": None, "answer": None}


def test_each_signal_is_judged_by_whether_it_predicts_a_right_docid(report):
    signals = report["signals"]["rag"]
    # Right -0.1, -0.4, -0.9 against wrong -0.6, -2.0: five of six pairs in order.
    assert signals["docid_log_prob"]["auroc"] == pytest.approx(5 / 6)
    assert signals["docid_log_prob"]["mean_right"] == pytest.approx(-1.4 / 3)
    assert signals["docid_log_prob"]["mean_wrong"] == pytest.approx(-1.3)
    # Right 1, 0, 1 against wrong 1, 0: two pairs in order, three equal.
    assert signals["docid_agreement"]["auroc"] == pytest.approx(3.5 / 6)
    assert signals["answer_agreement"]["auroc"] == 0.5
    assert signals["round_trip_rank"] == {"auroc": 1.0, "mean_right": 1.0, "mean_wrong": 0.25}
    assert signals["score"]["auroc"] == pytest.approx(5 / 6)
    assert report["signals"]["gar"]["score"] == {"auroc": None, "mean_right": 0.5, "mean_wrong": None}


def test_a_signal_that_is_missing_is_left_out(samples, tmp_path):
    for sample in samples["rag"][:2]:
        sample["confidence"]["docid_agreement"] = None
    report = write_iteration_report(tmp_path, 2, samples, DEV_SCORES, LOSSES, {})
    assert report["signals"]["rag"]["docid_agreement"] == {"auroc": 0.75, "mean_right": 1.0, "mean_wrong": 0.5}
    assert report["agreement"]["rag"]["kept"]["docid"] == 1.0


def test_the_json_is_what_was_returned_and_strict(report, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse) == report
    assert report["dev_scores"] == DEV_SCORES and report["losses"] == LOSSES
    assert report["warnings"] == WARNINGS
    assert report["thresholds"] == {"rag": 0.55, "gar": KEEP_NONE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md", "report.png"]


def test_the_page_has_the_figures_and_says_how_to_take_them(report, tmp_path):
    page = (tmp_path / "report.md").read_text()
    for line in (
        "# Co-training, iteration 2",
        "- **No sample of gar was kept: rag stays as it is.**",
        "| samples kept | 3 | 0 |",
        "| threshold | 0.550 | none reached |",
        "| precision, kept | 0.667 | - |",
        "| precision, written, title not | 0.500 | - |",
        "| docid_agreement | 0.583 | 0.667 | 0.500 | - | 0.500 | - |",
        "| r_precision | 0.500 | 0.750 |",
        "| loss_exchange_gar_to_rag | 1.500 | - |",
    ):
        assert line in page.splitlines(), line
    assert "trivially 1.0" in page and "not independent witnesses" in page


def test_the_picture_shows_what_was_written_and_what_was_kept(report, tmp_path):
    pixels = (imread(tmp_path / "report.png")[..., :3] * 255).round().astype(int)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 900
    left, right = np.split(pixels, [pixels.shape[1] // 2], axis=1)
    # "tab:green" and "lightgrey"; of GAR's samples none was kept, so that green is left in the legend only.
    green, grey = [np.sum(np.all(left == colour, axis=2)) for colour in ([44, 160, 44], [211, 211, 211])]
    assert green > 500 and grey > 500
    assert np.sum(np.all(right == [44, 160, 44], axis=2)) < green


def test_a_report_of_nothing_written_is_still_a_report(tmp_path):
    report = write_iteration_report(tmp_path, 1, {"rag": [], "gar": []}, DEV_SCORES, LOSSES, {})
    assert report["acceptance"] == {"rag": None, "gar": None}
    assert report["precision"]["rag"]["written"] is None
    assert report["warnings"] == []
    assert imread(tmp_path / "report.png").size


def test_auroc_counts_pairs_in_order_and_equal_ones_half():
    assert auroc([3, 2, 1], [True, True, False]) == 1.0
    assert auroc([3, 2, 1], [False, True, True]) == 0.0
    assert auroc([1, 1, 1, 1], [True, False, True, False]) == 0.5
    assert auroc([-math.inf, 0.0], [False, True]) == 1.0
    assert auroc([1, 2], [True, True]) is None and auroc([], []) is None
