"""
What the first iteration of co-training is compared with: as many samples and optimizer steps, without one of its
parts. Each takes the [`Rows`] and gives folders of adapters by role.
"""

from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from settings import EXCHANGE, EXCHANGE_LEARNING_RATE, WARM_UP, co_training

from trainers.exchange import exchange_samples
from trainers.pseudo_samples import PARTNER


def continued(rows) -> dict[str, Path]:
    """
    The warm-up simply goes on, on its own data, with as many samples and optimizer steps as one iteration has.
    """
    rows.train("co-training-1")

    def examples(role: str) -> Dataset:
        pool = rows.warm_up_examples(role).shuffle(rows.settings.seed)
        number = len(_exchange_examples(rows, role, rows.kept(PARTNER[role])))
        return concatenate_datasets([pool] * -(-number // len(pool))).select(range(number))

    return rows.train_roles("continued", rows.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)


def no_exchange(rows) -> dict[str, Path]:
    """As the first iteration, but each model learns from its own kept samples."""
    rows.train("co-training-1")
    return _instead_of_the_first_iteration(rows, "no-exchange", rows.kept)


def no_filter(rows) -> dict[str, Path]:
    """As the first iteration, but each model learns from as many of its partner's samples as came, unfiltered."""
    rows.train("co-training-1")

    def samples(role: str) -> list[dict]:
        written, number = rows.written(PARTNER[role]), len(rows.kept(PARTNER[role]))
        return [_with_source(rows, written[place * len(written) // number]) for place in range(number)]

    return _instead_of_the_first_iteration(rows, "no-filter", samples)


def _with_source(rows, sample: dict) -> dict:
    """The sample with the article that its query asks about among its docids, where the writer did not find it."""
    if sample["confidence"]["round_trip_rank"]:
        return sample
    row = int(sample["id"].rsplit("-", 1)[1])
    title, _ = rows.data.processor.document(row)
    found = {"docids": [title, *sample["docids"]], "rows": [row, *sample["rows"]]}
    return sample | found | {"confidence": sample["confidence"] | {"round_trip_rank": 1}}


def no_auxiliary(rows) -> dict[str, Path]:
    """One iteration of co-training after the warm-up on the labels alone."""
    return rows.co_training("basic", rows.train("basic"), 1)


def more_labels(rows) -> dict[str, Path]:
    """
    Not a control but a bound: in the place of the partner's kept samples as many labels, which this number of
    labels does not have.
    """
    rows.train("co-training-1")

    def examples(role: str) -> Dataset:
        labels = rows.data.more_labels
        number = min(len(rows.kept(PARTNER[role])), len(labels))
        more = concatenate_datasets([labels.select(range(number)), rows.data.train])
        return rows.examples(more, role, **EXCHANGE)

    return rows.train_roles("more-labels", rows.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)


def _instead_of_the_first_iteration(rows, name: str, samples: Callable[[str], list[dict]]) -> dict[str, Path]:
    def examples(role: str) -> Dataset:
        return _exchange_examples(rows, role, samples(role))

    return rows.train_roles(name, rows.train(WARM_UP), examples, EXCHANGE_LEARNING_RATE)


def _exchange_examples(rows, role: str, samples: list[dict]) -> Dataset:
    """What a model trains on in the first iteration, were these its partner's kept samples."""
    arguments = co_training(rows.settings, 1)
    exchanged = exchange_samples(
        samples,
        rows.data.train,
        labelled_share=arguments.labelled_share,
        max_pseudo_ratio=arguments.max_pseudo_ratio,
        weighting=arguments.weighting,
        docid_target=arguments.docid_target,
        query_source=arguments.query_source,
        seed=f"{rows.settings.seed}-1-{role}",
    )
    return rows.examples(exchanged, role, **EXCHANGE)


CONTROLS = {
    "continued": continued,
    "no-exchange": no_exchange,
    "no-filter": no_filter,
    "no-auxiliary": no_auxiliary,
}
BOUNDS = {"more-labels": more_labels}
