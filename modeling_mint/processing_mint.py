"""MINT's processor: tokenizer, prompts, title trie and collection in one. Text in, tensors out, and back."""

import hashlib
import json
import os
import posixpath
from pathlib import Path

import torch
from datasets import Column, Dataset, load_dataset
from transformers import AutoConfig, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import PROCESSOR_NAME, cached_file

from .configuration_mint import AUTO_MAP, MintConfig, save_code
from .tasks_mint import DOCID_SEPARATOR, shorten
from .title_trie import TITLE_TRIE_NAME, TitleTrie
from .tokenization_mint import encode_prompts, encode_targets

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision")


def collection_granularity(collection: Dataset) -> str:
    """What the docids of a collection name: `"section"` if a column `page` says whose section each row is, else
    `"title"`."""
    return "section" if "page" in collection.column_names else "title"


def page_titles(collection: Dataset) -> Column:
    """By row, the title of the page that a document is, or is a section of."""
    return collection["page" if collection_granularity(collection) == "section" else "title"]


def _sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class MintProcessor(ProcessorMixin):
    """
    Turns MINT's tasks into tensors for either kind of backbone, and generated ids back into docids and answers.

    A leaf of the trie is a row of the collection, so a document's title and text are one look-up away; the trie holds
    ids only, and the exact title is read from the collection.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The backbone's tokenizer.
        trie ([`TitleTrie`], *optional*):
            Trie over the collection's titles, built with the same tokenizer.
        collection (`datasets.Dataset` or `str`, *optional*):
            The documents (columns `title`, `text`, and `page` where they are sections), or the folder or Hub id to
            load them from when first needed. A relative one starts at the folder or Hub id that the processor was
            loaded from: `"../mint-collection"` of `"org/mint-rag"` is `"org/mint-collection"`.
        max_document_chars (`int`, *optional*, defaults to 320):
            Characters of a document's text that a prompt holds.
        max_prompt_length (`int`, *optional*, defaults to 512):
            Tokens of a prompt; a longer one loses its beginning, since the question stands at the end.
        padding_side (`str`, *optional*, defaults to `"left"`):
            Where prompts are filled up: `"left"` for a decoder-only backbone, whose target follows the last column.

    Example:

    ```python
    >>> from transformers import AutoProcessor
    >>> import modeling_mint

    >>> processor = AutoProcessor.from_pretrained("outputs/mint-rag")
    >>> processor.document(0)[0]
    '20th-century classical music'
    ```"""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trie: TitleTrie | None = None,
        collection: Dataset | str | None = None,
        max_document_chars: int = 320,
        max_prompt_length: int = 512,
        padding_side: str = "left",
        **kwargs,
    ):
        super().__init__(tokenizer, **kwargs)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.trie = trie
        self.collection_name_or_path = None
        self._collection = None
        if isinstance(collection, str | os.PathLike):
            self.collection_name_or_path = os.fspath(collection)
        elif collection is not None:
            self.collection = collection
        self._loaded_from = ""
        self.max_document_chars = max_document_chars
        self.max_prompt_length = max_prompt_length
        self.padding_side = padding_side

    @classmethod
    def from_backbone_pretrained(
        cls, backbone_name_or_path: str | os.PathLike, collection: Dataset | str, **kwargs
    ) -> "MintProcessor":
        """
        Makes the processor of a new MINT model: the backbone's tokenizer and a trie over the collection's titles.

        Args:
            backbone_name_or_path (`str` or `os.PathLike`):
                Folder or Hub id of the backbone.
            collection (`datasets.Dataset` or `str`):
                The documents, or the folder or Hub id where they are.
            **kwargs:
                Further arguments of [`MintProcessor`].

        Raises:
            ValueError: if the collection is empty or holds an empty title.
        """
        config = AutoConfig.from_pretrained(backbone_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(backbone_name_or_path)
        kwargs.setdefault("padding_side", "right" if config.is_encoder_decoder else "left")
        processor = cls(tokenizer, None, collection, **kwargs)
        batches = processor.collection.select_columns("title").iter(batch_size=10_000)
        processor.trie = TitleTrie.from_titles((title for batch in batches for title in batch["title"]), tokenizer)
        return processor

    @property
    def collection(self) -> Dataset:
        """The documents, loaded when first asked for. Raises `ValueError` if the processor knows of no collection."""
        if self._collection is None:
            if self.collection_name_or_path is None:
                raise ValueError(
                    "This processor has no collection: set `processor.collection` to the Dataset whose titles the "
                    "trie holds, or give its folder or Hub id as `collection=` to from_pretrained."
                )
            name, folder = self.collection_name_or_path, Path(self._loaded_from, self.collection_name_or_path)
            if folder.is_dir():
                name = str(folder.resolve())
            elif name.startswith("."):
                name = posixpath.normpath(posixpath.join(self._loaded_from, name))
            self.collection = load_dataset(name, split="train")
        return self._collection

    @collection.setter
    def collection(self, collection: Dataset) -> None:
        if self.trie is not None and len(collection) != self.trie.num_rows:
            raise ValueError(
                f"The collection has {len(collection)} documents and the title trie was built from "
                f"{self.trie.num_rows}. Load the collection that belongs to this model, or build a new trie with "
                "TitleTrie.from_titles."
            )
        self._collection = collection

    @property
    def separator_ids(self) -> list[int]:
        """Ids of the separator between the docids of a list."""
        return encode_targets(self.tokenizer, [DOCID_SEPARATOR], add_eos=False)[0]

    def document(self, row: int) -> tuple[str, str]:
        """(title, text) of a row of the collection."""
        document = self.collection[int(row)]
        return document["title"], document["text"]

    def page(self, row: int) -> str:
        """Title of the page that a row of the collection is, or is a section of."""
        return page_titles(self.collection)[int(row)]

    def check_granularity(self, config: MintConfig) -> None:
        """Raises `ValueError` if a model of this configuration writes other docids than the collection has."""
        found = collection_granularity(self.collection)
        if config.docid_granularity != found:
            raise ValueError(
                f"The {config.role} model has docid_granularity {config.docid_granularity!r} and the collection "
                f"{found!r}. Load the collection that the model was trained on, or train a model on this one."
            )

    def context(self, rows: list[int]) -> list[tuple[str, str]]:
        """(title, shortened text) of the documents that a prompt of `grounded_answer` holds, best first."""
        return [(title, shorten(text, self.max_document_chars)) for title, text in map(self.document, rows)]

    def __call__(self, text: str | list[str], return_tensors: str = "pt", **kwargs) -> BatchFeature:
        """
        Tokenizes prompts made by `tasks_mint.format_prompt`.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask`, `torch.LongTensor`s of shape `(batch_size, length)`,
            padded on `padding_side`. Special-token text inside a prompt stays text.
        """
        prompt_ids = encode_prompts(self.tokenizer, [text] if isinstance(text, str) else text, self.max_prompt_length)
        return self.tokenizer.pad(
            {"input_ids": prompt_ids}, padding_side=self.padding_side, return_tensors=return_tensors, **kwargs
        )

    def encode_example(self, prompt: str, target: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """
        Ids of one training example.

        Returns:
            `tuple[list[int], list[int]]`: the prompt's ids, and the target's: its pieces tokenized each on its own and
            joined, end token last (for a docid: exactly its path in the trie).
        """
        prompt_ids = encode_prompts(self.tokenizer, [prompt], self.max_prompt_length)[0]
        pieces = encode_targets(self.tokenizer, list(target), add_eos=False)
        return prompt_ids, [token for piece in pieces for token in piece] + [self.tokenizer.eos_token_id]

    def decode_text(self, token_ids: torch.LongTensor) -> list[str]:
        """Generated answers or queries as one-line strings, `token_ids` of shape `(batch_size, length)`."""
        texts = self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)
        return [text.strip().split("\n")[0].strip() for text in texts]

    def to_dict(self) -> dict:
        """The processor's settings (not its trie and collection, which are arrays and files)."""
        return {
            "processor_class": type(self).__name__,
            "auto_map": {"AutoProcessor": AUTO_MAP["AutoProcessor"]},
            "collection": self.collection_name_or_path,
            "max_document_chars": self.max_document_chars,
            "max_prompt_length": self.max_prompt_length,
            "padding_side": self.padding_side,
        }

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """
        Writes tokenizer, title trie, settings and code. The collection stays where it is: the settings name it.

        Args:
            save_directory (`str` or `os.PathLike`): folder, made if it is not there.
            push_to_hub (`bool`, *optional*, defaults to `False`): upload the folder as well; `**kwargs` as for
                `PushToHubMixin.push_to_hub`.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        settings = self.to_dict()
        if self.trie is not None:
            self.trie.save_pretrained(folder)
            settings["title_trie_sha256"] = _sha256(folder / TITLE_TRIE_NAME)
        partial = folder / f"{PROCESSOR_NAME}.partial"
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / PROCESSOR_NAME)
        save_code(folder)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "MintProcessor":
        """
        Loads what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder or Hub id.
            collection (`datasets.Dataset` or `str`, *optional*):
                Use this collection instead of the one that the settings name.
            **kwargs:
                `trust_remote_code`, and Hub arguments: `revision`, `token`, `cache_dir`, `force_download`,
                `local_files_only`.

        Raises:
            ValueError: if the trie is damaged, built with another tokenizer, or not the one that was saved with the
                settings.
            OSError: if a file is missing.
        """
        hub_arguments = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name) is not None}
        with open(
            cached_file(pretrained_model_name_or_path, PROCESSOR_NAME, **hub_arguments), encoding="utf-8"
        ) as file:
            settings = json.load(file)
        # Said outright: left open, a process without this package registered would stop and ask at the terminal.
        tokenizer = AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path,
            trust_remote_code=bool(kwargs.get("trust_remote_code")),
            **hub_arguments,
        )
        trie_file = cached_file(pretrained_model_name_or_path, TITLE_TRIE_NAME, **hub_arguments)
        # Settings of older folders name no hash.
        if settings.get("title_trie_sha256") not in (None, _sha256(trie_file)):
            raise ValueError(
                f"{trie_file} is not the title trie that was saved with {PROCESSOR_NAME}: its SHA-256 is another. "
                "Download it again, from a revision that you trust, or save both by `processor.save_pretrained`."
            )
        processor = cls(
            tokenizer,
            TitleTrie.from_pretrained(pretrained_model_name_or_path, tokenizer=tokenizer, **hub_arguments),
            kwargs.get("collection", settings["collection"]),
            max_document_chars=settings["max_document_chars"],
            max_prompt_length=settings["max_prompt_length"],
            padding_side=settings["padding_side"],
        )
        processor._loaded_from = os.fspath(pretrained_model_name_or_path)
        return processor


__all__ = ["MintProcessor", "collection_granularity", "page_titles"]
