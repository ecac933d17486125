"""Dense retrieval, what MINT does without: documents and queries as vectors of one encoder, searched with FAISS."""

import shutil
import tempfile
from pathlib import Path

import faiss
import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from dataset_builders.bm25 import Bm25Retriever
from modeling_mint.compute_dtype import compute_dtype
from trainers.training_stage import whole_folder

IVF_LISTS, IVF_PROBES = 100, 16
PQ_BITS = 8
TRAINING_TOKENS = 128  # of a document, while the encoder is tuned: it reads its own maximum afterwards


def document_texts(collection: Dataset) -> list[str]:
    """What the encoder reads of each document: "title. text"."""
    return [f"{title}. {text}" for title, text in zip(collection["title"][:], collection["text"][:], strict=True)]


class DenseRetriever:
    """
    A collection as vectors.

    Args:
        encoder (`str` or `pathlib.Path`): folder or Hub id of a sentence-transformers model.
        collection (`datasets.Dataset`): documents with `title` and `text`.
        cache (`pathlib.Path`): safetensors file of the documents' vectors; written when it is not there. It must
            belong to the same encoder and collection.
        compressed (`bool`, *optional*, defaults to `False`): IVF-PQ with eight dimensions a byte, instead of the plain
            vectors (flat, exact search).
    """

    def __init__(self, encoder: str | Path, collection: Dataset, cache: Path, *, compressed: bool = False):
        self._encoder = SentenceTransformer(str(encoder), device="cpu")
        if not cache.is_file():
            vectors = self._encode(document_texts(collection))
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_suffix(".partial")
            save_file({"vectors": vectors}, partial)
            partial.replace(cache)
        vectors = load_file(cache)["vectors"]
        dimensions = vectors.shape[1]
        self._index = faiss.IndexFlatIP(dimensions)
        if compressed:
            lists = min(IVF_LISTS, len(vectors) // 40 or 1)  # FAISS asks for 39 vectors a list
            bits = min(PQ_BITS, int(np.log2(len(vectors))))
            self._index = faiss.IndexIVFPQ(
                self._index, dimensions, lists, dimensions // 8, bits, faiss.METRIC_INNER_PRODUCT
            )
            self._index.nprobe = IVF_PROBES
            self._index.train(vectors)
        self._index.add(vectors)

    def _encode(self, texts: list[str]) -> np.ndarray:
        return self._encoder.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    @property
    def nbytes(self) -> int:
        """Bytes (`int`) of the index as FAISS would write it; the encoder's weights come on top."""
        return len(faiss.serialize_index(self._index))

    def retrieve(self, queries: list[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Finds the documents whose vectors are nearest.

        Args:
            queries (`list[str]`): the queries.
            k (`int`): documents to return per query.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: rows (int64) and cosines (float32), both of shape `(len(queries), k)`,
            best first; row -1 where a compressed index finds fewer.
        """
        scores, rows = self._index.search(self._encode(list(queries)), k)
        return rows, scores


def tune_encoder(
    encoder: str | Path,
    labelled: Dataset,
    collection: Dataset,
    bm25: Bm25Retriever,
    output_dir: Path,
    *,
    epochs: int,
    seed: int,
) -> None:
    """
    Tunes an encoder on labelled queries as DPR does (Karpukhin et al., EMNLP 2020): the gold document against those of
    the other queries of the batch, and against BM25's best that is not gold.

    Args:
        encoder (`str` or `pathlib.Path`): what to start from.
        labelled (`datasets.Dataset`): samples in the common schema.
        collection (`datasets.Dataset`): the documents.
        bm25 ([`Bm25Retriever`]): over this collection.
        output_dir (`pathlib.Path`): folder to write; appears complete or not at all.
        epochs (`int`): passes over the queries.
        seed (`int`): of the shuffling.
    """
    labelled = labelled.filter(lambda rows: len(rows) > 0, input_columns="rows")
    texts = document_texts(collection)
    found, _ = bm25.retrieve(labelled["query"][:], 10)
    negatives = [
        next(row for row in ranking if row not in gold)
        for ranking, gold in zip(found.tolist(), labelled["rows"], strict=True)
    ]
    triplets = Dataset.from_dict(
        {
            "anchor": labelled["query"][:],
            "positive": [texts[rows[0]] for rows in labelled["rows"]],
            "negative": [texts[row] for row in negatives],
        }
    )
    model = SentenceTransformer(str(encoder), device="cpu")
    whole_length, model.max_seq_length = model.max_seq_length, TRAINING_TOKENS
    with tempfile.TemporaryDirectory(dir=output_dir.parent) as unused:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=unused,
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            learning_rate=2e-5,
            warmup_steps=0.1,
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model, arguments, train_dataset=triplets, loss=loss).train()
    model.max_seq_length = whole_length
    with whole_folder(output_dir) as folder:
        shutil.rmtree(folder)
        model.save_pretrained(str(folder), create_model_card=False)
