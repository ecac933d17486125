"""What the two models wrote, iteration by iteration -> co-training data."""

from dataclasses import dataclass

import datasets
import pyarrow as pa
from datasets import List, Value

from .features import SAMPLE_FEATURES, new_sample
from .json_lines import MalformedLines, read_json_lines
from .writing import file_fingerprint

WRITERS = ("rag", "gar")
"""Sources of co-training samples: the two models."""

_JSON_TYPES = {"string": (str, "a string"), "bool": (bool, "true or false"), "int32": (int, "a whole number")}
_NUMBER = ((int, float), "a number")


@dataclass
class CoTrainingConfig(datasets.BuilderConfig):
    """
    Configuration of [`CoTrainingBuilder`]. `data_files` names the files that the co-trainer wrote; what they hold
    counts for the cache.

    Args:
        max_malformed (`int`, *optional*, defaults to 0):
            How many malformed lines or samples may be left out. They are counted and their places logged; one more
            raises. With 0 the first one raises.
    """

    max_malformed: int = 0

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None:
            raise ValueError("Co-training data is built from files: pass data_files=... (JSONL, one per iteration).")
        content = file_fingerprint(*(path for paths in self.data_files.values() for path in paths))
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class CoTrainingBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds co-training data (MINT, SIGIR 2025: D_RAG and D_GAR of all iterations) from JSONL files of samples, kept
    or not, with every confidence signal, so that another filter can be tried without generating again (see
    [`~trainers.confidence.refilter`]).

    A sample whose fields are not those of [`~dataset_builders.features.SAMPLE_FEATURES`], whose id was taken before,
    or that neither model wrote, is an error that names file and line, unless `max_malformed` allows for it.

    Example:

    ```python
    >>> builder = CoTrainingBuilder(cache_dir="cache", data_files=["iteration-1.jsonl", "iteration-2.jsonl"])
    >>> write_config(build(builder), "outputs/mint-pseudo", "co_training")
    ```
    """

    BUILDER_CONFIG_CLASS = CoTrainingConfig

    def _info(self):
        return datasets.DatasetInfo(features=SAMPLE_FEATURES)

    def _split_generators(self, dl_manager):
        paths = [path for paths in self.config.data_files.values() for path in paths]
        return [datasets.SplitGenerator(name="train", gen_kwargs={"paths": paths})]

    def _generate_examples(self, paths):
        malformed = MalformedLines(self.config.max_malformed)
        place_of = {}
        for path in paths:
            for place, record in read_json_lines(path, malformed):
                try:
                    sample = _to_sample(record)
                    if sample["id"] in place_of:
                        first = place_of[sample["id"]]
                        raise ValueError(f"id '{sample['id']}' was taken at {first}. Make ids unique.")
                except ValueError as error:
                    malformed.add(place, f"{place}: {error}")
                    continue
                place_of[sample["id"]] = place
                yield sample["id"], sample
        if not place_of:
            raise ValueError(f"No sample in {', '.join(paths)}. Check the data files.")
        malformed.log("co-training data")


def _to_sample(record: dict) -> dict:
    """A sample in the schema, what the record leaves out filled in; `ValueError` names the field that is wrong."""
    signals = record.get("confidence", {})
    if not isinstance(signals, dict):
        raise ValueError(f"'confidence' must be an object, found {_shown(signals)}.")
    sample = new_sample(**record)
    for name, feature in SAMPLE_FEATURES.items():
        if name == "confidence":
            for signal, value in sample[name].items():
                if value is not None:
                    _check(f"confidence.{signal}", feature[signal], value)
        else:
            _check(name, feature, sample[name])
    if sample["source"] not in WRITERS or sample["iteration"] < 1:
        raise ValueError(
            f"'source' must be one of {', '.join(WRITERS)}, and 'iteration' at least 1: found "
            f"{_shown(sample['source'])} and {sample['iteration']}. Give the files that the co-trainer wrote."
        )
    return sample


def _check(name: str, feature: List | Value, value) -> None:
    """Refuses a value that is not of its field's type: Arrow would fail without a word of where, or convert it."""
    if isinstance(feature, List):
        if not isinstance(value, list):
            raise ValueError(f"'{name}' must be a list, found {_shown(value)}.")
        for item in value:
            _check(f"{name}[]", feature.feature, item)
        return
    types, expected = _JSON_TYPES.get(feature.dtype, _NUMBER)
    # JSON's true is an int to Python.
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise ValueError(f"'{name}' must be {expected}, found {_shown(value)}.")
    try:
        pa.scalar(value, feature.pa_type)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise ValueError(f"'{name}' does not fit into {feature.dtype}: {_shown(value)} ({error}).") from error


def _shown(value) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
