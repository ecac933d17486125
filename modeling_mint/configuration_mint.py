"""Configuration of a MINT model: a role and a language model as its backbone."""

import os
import shutil
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

ROLES = ("rag", "gar")
DOCID_GRANULARITIES = ("title", "section")
CALIBRATED = ("answer_temperature", "query_likelihood_weight")
"""Settings that are chosen on dev data after training, for each role apart."""

# What `AutoX.from_pretrained(..., trust_remote_code=True)` loads from the files that `save_pretrained` puts beside the
# weights.
AUTO_MAP = {
    "AutoConfig": "configuration_mint.MintConfig",
    "AutoModel": "modeling_mint.MintForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_mint.MintForConditionalGeneration",
    "AutoModelForSeq2SeqLM": "modeling_mint.MintForConditionalGeneration",
    "AutoProcessor": "processing_mint.MintProcessor",
}
CUSTOM_PIPELINES = {"mint": {"impl": "pipeline_mint.MintPipeline", "pt": ["AutoModel"]}}

# Read from the outer config by `generate`, the trainers and the KV cache.
_COPIED_FROM_BACKBONE = (
    "is_encoder_decoder",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
)


def save_code(folder: str | os.PathLike) -> None:
    """Copies the modules of this package into `folder`, where `AUTO_MAP` points: remote code for other machines."""
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name != "__init__.py":
            shutil.copyfile(source, Path(folder) / source.name)


class MintConfig(PreTrainedConfig):
    r"""
    Composite configuration of a MINT model (MINT, SIGIR 2025: one unified sequence-to-sequence model is
    both the retriever and the generator of its role).

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the backbone, any model type that `AutoModelForSeq2SeqLM` or `AutoModelForCausalLM` knows.
            Defaults to a T5 configuration.
        role (`str`, *optional*, defaults to `"rag"`):
            `"rag"` (retrieve, then answer; parameters theta) or `"gar"` (answer, then retrieve; parameters psi).
        docid_granularity (`str`, *optional*, defaults to `"title"`):
            What a docid names: `"title"` (MINT) or `"section"` (title and section title, as CorpusLM has it).
        answer_temperature (`float`, *optional*, defaults to 1.0):
            Divides the mean log-probability of an answer before it becomes a confidence; calibrated on dev data, so
            that the answers of two models can compete (`mint.md`, Inference).
        query_likelihood_weight (`float`, *optional*, defaults to 0.0):
            How much it counts in a ranking whether a document's text is one to be asked the query, see
            [`~modeling_mint.query_likelihood.rank_by_reading`]; calibrated on dev data. With 0.0 nothing is read.

    Raises:
        ValueError: if `role` or `docid_granularity` is none of the above, `answer_temperature` is not above 0, or
            `query_likelihood_weight` is below 0.

    Example:

    ```python
    >>> from transformers import LlamaConfig
    >>> from modeling_mint import MintConfig

    >>> config = MintConfig(backbone_config=LlamaConfig(num_hidden_layers=2), role="gar")
    >>> config.is_encoder_decoder, config.get_text_config().num_hidden_layers
    (False, 2)
    ```"""

    model_type = "mint"
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="t5")}

    backbone_config: PreTrainedConfig | dict | None = None
    role: str = "rag"
    docid_granularity: str = "title"
    answer_temperature: float = 1.0
    query_likelihood_weight: float = 0.0

    def __post_init__(self, **kwargs):
        if self.role not in ROLES:
            raise ValueError(f"`role` is {self.role!r}; it must be one of {ROLES}.")
        if self.docid_granularity not in DOCID_GRANULARITIES:
            raise ValueError(
                f"`docid_granularity` is {self.docid_granularity!r}; it must be one of {DOCID_GRANULARITIES}."
            )
        if not isinstance(self.answer_temperature, int | float) or self.answer_temperature <= 0:
            raise ValueError(f"`answer_temperature` is {self.answer_temperature!r}; it must be a number above 0.")
        if not isinstance(self.query_likelihood_weight, int | float) or self.query_likelihood_weight < 0:
            raise ValueError(
                f"`query_likelihood_weight` is {self.query_likelihood_weight!r}; it must be a number, at least 0."
            )
        # Resolved here: transformers reads a dict under the name `backbone_config` as a vision backbone.
        if not isinstance(self.backbone_config, PreTrainedConfig):
            self.backbone_config = AutoConfig.for_model(**{"model_type": "t5", **(self.backbone_config or {})})
        # A composite config hands its attention down to the backbone's: without a choice, keep the backbone's own.
        if kwargs.get("attn_implementation") is None:
            kwargs["attn_implementation"] = self.backbone_config._attn_implementation
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", dict(CUSTOM_PIPELINES))
        super().__post_init__(**kwargs)
        text_config = self.backbone_config.get_text_config(decoder=True)
        for name in _COPIED_FROM_BACKBONE:
            source = self.backbone_config if name in self.backbone_config else text_config
            setattr(self, name, getattr(source, name, None))

    @property
    def calibrated(self) -> dict[str, float]:
        """Values of `CALIBRATED` by name."""
        return {name: getattr(self, name) for name in CALIBRATED}

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        """The backbone's own text configuration: the KV cache asks it for its number of layers."""
        return self.backbone_config.get_text_config(decoder=decoder, encoder=encoder)


__all__ = ["MintConfig"]
