"""What the two models wrote, iteration by iteration -> co-training data."""

from dataclasses import dataclass

import datasets

from .features import SAMPLE_FEATURES, new_sample
from .json_lines import read_json_lines
from .writing import file_fingerprint


@dataclass
class CoTrainingConfig(datasets.BuilderConfig):
    """
    Configuration of [`CoTrainingBuilder`]. `data_files` names the files that the co-trainer wrote; what they hold
    counts for the cache.
    """

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        if self.data_files is None:
            raise ValueError("Co-training data is built from files: pass data_files=... (JSONL, one per iteration).")
        content = file_fingerprint(*(path for paths in self.data_files.values() for path in paths))
        return super().create_config_id(config_kwargs | {"content": content}, custom_features)


class CoTrainingBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds co-training data (MINT, SIGIR 2025: D_RAG and D_GAR of all iterations) from JSONL files of samples, kept
    or not, with every confidence signal, so that another filter can be tried without generating again.

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
        key = 0
        for path in paths:
            for place, record in read_json_lines(path):
                try:
                    yield key, new_sample(**record)
                except ValueError as error:
                    raise ValueError(f"{place}: {error}") from error
                key += 1
