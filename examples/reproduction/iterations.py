"""How co-training goes on from iteration to iteration: what the models find, and how good the samples are."""

import json
from pathlib import Path

import numpy as np
from settings import WARM_UP

from modeling_mint.configuration_mint import ROLES


def compute_iterations(kept: Path, scores: dict) -> list[dict]:
    """
    Means over the seeds whose warm-up and whose iterations are all judged, so that no point stands for other seeds.

    Args:
        kept (`pathlib.Path`): folder of what the reproduction keeps, co-training's reports among it.
        scores (`dict`): what `tables.load_scores` gave.

    Returns:
        `list[dict]`: one for each number of labels with an iteration, the smallest first, fit for JSON: `labels`,
        `seeds`, and by role `r_precision`, from the warm-up on, `written` and `kept`, from the first iteration on: how
        often the first docid of a sample is the article that it was written from (`None` where nothing was kept).
    """
    found = []
    for labels in dict.fromkeys(labels for labels, row, _ in scores if row == WARM_UP):
        rows = [WARM_UP]
        while (labels, f"co-training-{len(rows)}", "rag") in scores:
            rows.append(f"co-training-{len(rows)}")
        judged = [set(scores.get((labels, row, role), {})) for row in rows for role in ROLES]
        seeds = sorted(set.intersection(*judged))
        if len(rows) == 1 or not seeds:
            continue
        reports = [
            [
                json.loads((kept / "reports" / seed / f"iteration-{iteration}.json").read_text("utf-8"))
                for seed in seeds
            ]
            for iteration in range(1, len(rows))
        ]
        found.append({"labels": labels, "seeds": len(seeds)} | {role: {} for role in ROLES})
        for role in ROLES:
            means = [np.mean([scores[labels, row, role][seed]["r_precision"] for seed in seeds]) for row in rows]
            found[-1][role]["r_precision"] = [float(mean) for mean in means]
            for which in ("written", "kept"):
                shares = [[one["precision"][role][which] for one in of_all] for of_all in reports]
                found[-1][role][which] = [None if None in of_all else float(np.mean(of_all)) for of_all in shares]
    return found
