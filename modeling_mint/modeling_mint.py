"""MINT's model: one language model, asked by prompt to retrieve (write docids) or to answer."""

import os

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationMixin,
    PreTrainedModel,
)

from .adapters_mint import MintAdapterMixin
from .configuration_mint import MintConfig, save_code
from .generation_mint import MintGenerationMixin


class MintPreTrainedModel(PreTrainedModel):
    """Base of MINT's models: where the weights live and what the backbone may bring along."""

    config_class = MintConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class MintForConditionalGeneration(MintAdapterMixin, MintGenerationMixin, MintPreTrainedModel, GenerationMixin):
    """
    A MINT model of either role: `p(docid | q; theta)` and `p(a | q, docids, documents; theta)` for RAG, `p(a | q;
    psi)` and `p(docid | q, a; psi)` for GAR, all from one backbone (MINT, SIGIR 2025; `mint.md`, Notation).

    The backbone is any encoder-decoder (T5, BART, T5Gemma, ...) or decoder-only (Llama, Qwen, ...) language model of
    transformers. The outputs are the backbone's own.

    Args:
        config ([`MintConfig`]):
            Configuration of the model.
        backbone (`PreTrainedModel`, *optional*):
            Use this instance instead of a randomly initialised one made from `config.backbone_config`.

    Example:

    ```python
    >>> from modeling_mint import MintForConditionalGeneration

    >>> model = MintForConditionalGeneration.from_backbone_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct",
    role="rag")
    ```"""

    def __init__(self, config: MintConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        if backbone is None:
            auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            backbone = auto_class.from_config(config.backbone_config)
        self.backbone = backbone
        # Of the adapters that share the backbone, by role (`calibrate`).
        self.calibrations: dict[str, dict[str, float]] = {}
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls,
        backbone_name_or_path: str | os.PathLike,
        role: str = "rag",
        docid_granularity: str = "title",
        **kwargs,
    ) -> "MintForConditionalGeneration":
        """
        Wraps a pretrained language model.

        Args:
            backbone_name_or_path (`str` or `os.PathLike`):
                Folder or Hub id of a Seq2SeqLM or CausalLM.
            role (`str`, *optional*, defaults to `"rag"`):
                `"rag"` or `"gar"`.
            docid_granularity (`str`, *optional*, defaults to `"title"`):
                `"title"` or `"section"`.
            **kwargs:
                Passed on to the backbone's `from_pretrained` (`dtype`, `revision`, `attn_implementation`, ...).
        """
        backbone_config = AutoConfig.from_pretrained(
            backbone_name_or_path,
            **{
                name: kwargs[name]
                for name in ("revision", "token", "trust_remote_code", "cache_dir")
                if name in kwargs
            },
        )
        auto_class = AutoModelForSeq2SeqLM if backbone_config.is_encoder_decoder else AutoModelForCausalLM
        backbone = auto_class.from_pretrained(backbone_name_or_path, **kwargs)
        if os.path.isdir(backbone_name_or_path):
            backbone.config._name_or_path = ""  # a path of this machine says nothing to who loads what is saved
        config = MintConfig(
            backbone_config=backbone.config,
            role=role,
            docid_granularity=docid_granularity,
            dtype=backbone.dtype,
        )
        model = cls(config, backbone=backbone)
        model.generation_config = backbone.generation_config
        return model.eval()

    @property
    def base_model(self):
        """The backbone without its language-model head (what gives `last_hidden_state`)."""
        return self.backbone.base_model

    def get_encoder(self, modality: str | None = None):
        return self.backbone.get_encoder(modality=modality)

    def get_decoder(self):
        return self.backbone.get_decoder()

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings):
        self.backbone.set_output_embeddings(new_embeddings)

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return self.backbone.prepare_inputs_for_generation(input_ids, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels):
        return self.backbone.prepare_decoder_input_ids_from_labels(labels=labels)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """
        The backbone's forward pass; arguments of the other kind of backbone are left out.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Prompt (encoder-decoder) or prompt and target (decoder-only).
            attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                1 for tokens, 0 for padding.
            labels (`torch.LongTensor`, *optional*):
                `(batch_size, target_length)` for an encoder-decoder, `(batch_size, sequence_length)` for a
                decoder-only backbone; -100 is ignored.
            logits_to_keep (`int` or `torch.LongTensor`, *optional*, defaults to 0):
                Decoder-only: compute logits for the last that many positions (0: all).

        Returns:
            The backbone's `Seq2SeqLMOutput` or `CausalLMOutputWithPast`.
        """
        if self.config.is_encoder_decoder:
            kwargs.update(
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                encoder_outputs=encoder_outputs,
            )
        else:
            if isinstance(logits_to_keep, int) and logits_to_keep:
                # The positions are picked into new memory. A slice would be a view with gaps, and by a frozen head
                # (the base of adapters) torch multiplies such a view row by row, each with its own copy of the head:
                # 1.7 s instead of 0.01 s for 16 rows of SmolLM2 on a CPU, and 0.8 GB.
                inputs = input_ids if inputs_embeds is None else inputs_embeds
                length = inputs.shape[1]
                logits_to_keep = torch.arange(max(0, length - logits_to_keep), length, device=inputs.device)
            kwargs.update(position_ids=position_ids, logits_to_keep=logits_to_keep)
        return self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            **kwargs,
        )

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """
        Saves weights and configuration, and the code of this package beside them, so that the folder loads as remote
        code where the package is not installed.
        """
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            save_code(save_directory)


__all__ = ["MintForConditionalGeneration", "MintPreTrainedModel"]
