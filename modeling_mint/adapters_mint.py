"""One base, two roles: RAG and GAR as LoRA adapters on one backbone, switched in place.

`peft` is needed only where adapters are used: a full model loads and answers without it.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from .configuration_mint import ROLES, MintConfig

ADAPTER_CONFIG_NAME = "adapter_config.json"
# Arguments of `from_pretrained` that tell where files come from, rather than what is made of them.
_DOWNLOAD_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "token")


class MintAdapterMixin:
    """
    The adapters of [`MintForConditionalGeneration`]: `p(. ; theta)` and `p(. ; psi)` share one base in memory and
    differ in a LoRA adapter each, named by its role (MINT, SIGIR 2025; `mint.md`, Notation; the adapters are our
    choice).

    An adapter's folder holds `adapter_config.json` (whose `base_model_name_or_path` names the MINT base),
    `adapter_model.safetensors` and a `config.json` ([`MintConfig`] with its role and what was calibrated of it).

    Example:

    ```python
    >>> model = MintForConditionalGeneration.from_pretrained("outputs/mint-base")
    >>> model.load_roles({"rag": "outputs/mint-rag-adapter", "gar": "outputs/mint-gar-adapter"})
    >>> model.set_role("gar")
    >>> model.config.role
    'gar'
    ```"""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """
        As `PreTrainedModel.from_pretrained`. The folder or Hub id of an adapter gives its base with the adapter on it,
        in the adapter's role.

        Raises:
            ValueError: if the weights are not those of the configuration, which transformers would only warn of.
        """
        # `AutoModel` has found the adapter already, and for one on the Hub its base too.
        found = (kwargs.pop("adapter_kwargs", None) or {}).get("_adapter_model_path")
        download = {name: kwargs[name] for name in _DOWNLOAD_ARGUMENTS if name in kwargs}
        base = pretrained_model_name_or_path
        if found is None:
            config_file = find_adapter_config_file(base, revision=kwargs.get("revision"), **download)
            if config_file is None:
                return cls._whole(super().from_pretrained, base, *model_args, **kwargs)
        adapter = base if found is None else found
        if os.fspath(adapter) == os.fspath(base):
            download["revision"] = kwargs.pop("revision", None)
            base = adapter_base(adapter, **download)
        # The configuration in hand may be the adapter's; what is loaded now is the base.
        kwargs.pop("config", None)
        model = cls._whole(super().from_pretrained, base, *model_args, **kwargs)
        model.load_roles({MintConfig.from_pretrained(adapter, **download).role: adapter}, **download)
        return model

    @staticmethod
    def _whole(load, base, *model_args, output_loading_info=False, **kwargs):
        """Loads a model and refuses one whose configuration asks for other weights than there are."""
        model, info = load(base, *model_args, output_loading_info=True, **kwargs)
        for fault in ("missing_keys", "unexpected_keys"):
            if info[fault]:
                raise ValueError(
                    f"{base}: config.json and the weights do not belong together: {len(info[fault])} "
                    f"{fault.split('_')[0]} weights, such as {min(info[fault])}. Download both again, or save the "
                    "model again by `save_pretrained`."
                )
        return (model, info) if output_loading_info else model

    def load_roles(self, adapters: Mapping[str, str | os.PathLike], **kwargs) -> None:
        """
        Puts adapters onto this base, in place, and takes the role of the first.

        Args:
            adapters (`Mapping[str, str | os.PathLike]`):
                Folder or Hub id of the adapter by role, `"rag"` or `"gar"`.
            **kwargs:
                Where Hub files come from: `revision`, `token`, `cache_dir`, `local_files_only`, ...

        Raises:
            ValueError: if there is no adapter, an adapter has another role than it is given for, was trained on
                another base, lacks weights, or lies in a folder that holds none; or if the role is on this base
                already.
            ImportError: if `peft` is not installed.
        """
        if not adapters or not set(adapters) <= set(ROLES):
            raise ValueError(f"`adapters` names the roles {sorted(adapters)}; give one or both of {ROLES}.")
        configs = {role: self._checked_config(role, adapter, **kwargs) for role, adapter in adapters.items()}
        for role, adapter in adapters.items():
            with _no_load_report():
                found = self.load_adapter(os.fspath(adapter), adapter_name=role, adapter_kwargs=kwargs)
            missing = sorted(name for name in found.missing_keys if f".{role}." in name)
            if missing:
                raise ValueError(f"{adapter} lacks {len(missing)} weights of the adapter, such as {missing[0]}.")
            self.calibrate(role, **configs[role].calibrated)
        self._switch(next(iter(adapters)))

    def calibrate(self, role: str, **values: float) -> None:
        """
        Puts settings that were calibrated on dev data in place of the model's own.

        Args:
            role (`str`): `"rag"` or `"gar"`; they take effect when the model takes the role, at once if it has it.
            **values (`float`): settings of [`MintConfig`] that are among `CALIBRATED`.
        """
        self.calibrations.setdefault(role, MintConfig().calibrated).update(values)
        if role == self.config.role:
            self.config.update(values)

    def set_role(self, role: str) -> None:
        """
        Switches the adapter, `config.role` and what was calibrated; does nothing where the model has that role
        already. The weights of the adapter do not ask for gradients afterwards: a trainer turns them on.

        Args:
            role (`str`): `"rag"` or `"gar"`.

        Raises:
            ValueError: if the model has no adapter of that role.
        """
        if role == self.config.role:
            return
        if role not in self.calibrations:
            raise ValueError(
                f"This model has the role {self.config.role!r} and no adapter for {role!r}: put one onto its base "
                f'with `model.load_roles({{"{role}": folder}})`.'
            )
        self._switch(role)

    def _switch(self, role: str) -> None:
        from peft.tuners.tuners_utils import set_adapter

        # By the layers, so that it does not matter whether `load_adapter` or a `PeftModel` put them there.
        set_adapter(self, role, inference_mode=True)
        self.config.role = role
        self.config.update(self.calibrations[role])

    def _checked_config(self, role: str, adapter: str | os.PathLike, **kwargs) -> MintConfig:
        """Configuration of an adapter that fits this base; see `load_roles` for what is refused."""
        adapter_base(adapter, **kwargs)
        config = MintConfig.from_pretrained(adapter, **kwargs)
        if config.role != role:
            raise ValueError(f"{adapter} is an adapter of the role {config.role!r}, given for {role!r}.")
        own, other = _architecture(self.config), _architecture(config)
        different = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
        if different:
            raise ValueError(
                f"{adapter} was trained on another base: its backbone differs in {', '.join(different[:5])}. Load the "
                f"base that {ADAPTER_CONFIG_NAME} names as base_model_name_or_path."
            )
        return config


def adapter_base(adapter: str | os.PathLike, **kwargs) -> str:
    """
    Folder or Hub id of the base that an adapter belongs to.

    Args:
        adapter (`str` or `os.PathLike`):
            Folder or Hub id of the adapter. A base that starts with a dot is a folder as seen from the adapter's.
        **kwargs:
            Where Hub files come from.

    Raises:
        ValueError: if there is no adapter.
    """
    path = cached_file(adapter, ADAPTER_CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **kwargs)
    if path is None:
        raise ValueError(f"{adapter} holds no adapter: {ADAPTER_CONFIG_NAME} is missing.")
    base = json.loads(Path(path).read_text(encoding="utf-8"))["base_model_name_or_path"]
    return os.path.normpath(Path(adapter, base)) if base.startswith(".") else base


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Without transformers' warning that an adapter lacks the weights of the adapters that are there already."""
    reports = logging.getLogger("transformers.integrations.peft")
    level = reports.level
    reports.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reports.setLevel(level)


def _architecture(config: MintConfig) -> dict:
    """What the shapes of the weights follow from, and what docids name."""
    backbone = config.backbone_config
    names = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads", "d_ff", "d_kv", "num_layers")
    found = {name: getattr(backbone, name) for name in names if name in backbone}
    return found | {"docid_granularity": config.docid_granularity}


__all__ = ["ADAPTER_CONFIG_NAME", "MintAdapterMixin", "adapter_base"]
