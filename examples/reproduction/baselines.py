"""Trains what MINT is compared with on the same labels, and has it reply to the dev queries.

python examples/reproduction/baselines.py --config examples/configs/reproduction.yaml --collection articles.jsonl \
    --train train.jsonl --dev dev.jsonl --num_labels 250 --seed 0
"""

import logging
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from corpus_lm import corpus_lm_examples, corpus_lm_replies
from data import Data
from datasets import Dataset
from dense import DenseRetriever, tune_encoder
from judging import STRATEGY, print_scores, write_replies
from settings import NUM_DOCUMENTS, Settings, adapter_config, encoder_epochs, labelled_rates, training_arguments
from systems import BATCH_SIZE, Reply, System
from trl import TrlParser

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.quality import QualityArguments
from modeling_mint import MintForConditionalGeneration
from trainers.adapter_models import AdapterModels
from trainers.baselines import longest_title_match
from trainers.blocks import in_blocks
from trainers.confidence import ConfidenceArguments
from trainers.strategy_predictions import BLOCK_SIZE
from trainers.task_examples import tokenize_examples
from trainers.training_stage import TRAINING_LOG_NAME

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from assets import minilm_folder  # noqa: E402

K = 5
Retriever = Bm25Retriever | DenseRetriever


class Baselines:
    """
    The baselines. What is trained already is not trained again.

    All that generate share one base: a system of theirs is valid until the next one is made.

    Args:
        settings ([`Settings`]): number of labels and seed.
        data ([`Data`]): labels and collection.
    """

    def __init__(self, settings: Settings, data: Data):
        self.settings, self.data, self.processor = settings, data, data.processor
        self.models = AdapterModels(settings.root / "mint-base", data.processor, adapter_config())
        rates = labelled_rates(len(data.train))
        # What only reads is to see the answers as often as GAR, which answers without documents.
        self.rates = rates | {"grounded_answer": rates["closed_book_answer"]}

    def make(self, name: str) -> System:
        """
        Makes a system, training first what it needs.

        Args:
            name (`str`): a key of `BASELINES`.

        Returns:
            [`System`]
        """
        return BASELINES[name](self)

    def longest_title(self) -> System:
        """Titles that stand in the query, longest first."""
        titles = self.processor.collection["title"][:]
        row_of_title = {title: row for row, title in reversed(list(enumerate(titles)))}

        def reply(queries: list[str]) -> list[Reply]:
            found = longest_title_match(queries, titles, K)
            return [([row_of_title[title] for title in ranking], None) for ranking in found]

        return System(reply, sum(len(title.encode()) for title in titles))

    def bm25(self) -> System:
        """BM25 over "title. text"."""
        return _retrieving(self.data.retriever)

    def dense(self) -> System:
        """The encoder as it is, exact search."""
        return _retrieving(self.dense_retriever(tuned=False))

    def dense_ivfpq(self) -> System:
        """The encoder as it is, IVF-PQ."""
        return _retrieving(self.dense_retriever(tuned=False, compressed=True))

    def dense_tuned(self) -> System:
        """The encoder tuned on the labels, exact search."""
        return _retrieving(self.dense_retriever(tuned=True))

    def dense_tuned_ivfpq(self) -> System:
        """The encoder tuned on the labels, IVF-PQ."""
        return _retrieving(self.dense_retriever(tuned=True, compressed=True))

    def closed_book(self) -> System:
        """The backbone trained on queries and answers alone; it retrieves nothing."""
        model = self._model("closed-book", "gar", lambda: self._examples("gar", "closed_book_answer"))

        def reply(queries: list[str]) -> list[Reply]:
            return [([], answer) for answer in model.answer(queries, self.processor, batch_size=BATCH_SIZE).texts]

        return System(reply, 0)

    def dense_rag(self) -> System:
        """The tuned dense retriever, and the backbone trained to answer from what it finds: DPR and reader."""
        retriever = self.dense_retriever(tuned=True)
        model = self._model("dense-rag", "rag", lambda: self._examples("rag", "grounded_answer", retriever))

        def reply(queries: list[str]) -> list[Reply]:
            found = retriever.retrieve(queries, K)[0].tolist()
            contexts = [rows[:NUM_DOCUMENTS] for rows in found]
            answers = model.answer(queries, self.processor, contexts, batch_size=BATCH_SIZE).texts
            return list(zip(found, answers, strict=True))

        return System(reply, retriever.nbytes)

    def plain_gr(self) -> System:
        """Plain generative retrieval: the backbone trained on query -> docid alone, searched as MINT is."""
        model = self._model("plain-gr", "rag", lambda: self._examples("rag", "query_to_docid"))
        search = {"k": K, "num_beams": self.settings.num_beams, "batch_size": BATCH_SIZE}

        def reply(queries: list[str]) -> list[Reply]:
            return [(rows, None) for rows in model.retrieve(queries, self.processor, **search).rows]

        return System(reply, self.processor.trie.nbytes)

    def corpus_lm(self) -> System:
        """Ranked docids, reference and answer in one decode."""
        options = {"list_rate": self.rates["query_to_docid"], "answer_rate": self.rates["grounded_answer"]}
        options |= {"num_documents": NUM_DOCUMENTS, "seed": self.settings.seed}
        model = self._model(
            "corpus-lm",
            "rag",
            lambda: corpus_lm_examples(self.data.train, self.processor, self.data.retriever, **options),
        )

        def reply(queries: list[str]) -> list[Reply]:
            options = {"num_documents": NUM_DOCUMENTS, "batch_size": BATCH_SIZE}
            return list(zip(*corpus_lm_replies(model, self.processor, queries, **options), strict=True))

        return System(reply, self.processor.trie.nbytes)

    @cached_property
    def _encoder(self) -> str:
        return self.settings.encoder or str(minilm_folder())

    def dense_retriever(self, *, tuned: bool, compressed: bool = False) -> DenseRetriever:
        """
        A dense retriever ([`DenseRetriever`]).

        Args:
            tuned (`bool`): whether the encoder is tuned on the labels.
            compressed (`bool`, *optional*, defaults to `False`): IVF-PQ, not exact search.
        """
        encoder, cache = self._encoder, self.settings.root / "dense" / "vectors.safetensors"
        if tuned:
            encoder = self.settings.folder / "dense-tuned" / "encoder"
            cache = encoder.with_name(cache.name)
            if not encoder.is_dir():
                encoder.parent.mkdir(parents=True, exist_ok=True)
                tune_encoder(
                    self._encoder,
                    self.data.train,
                    self.processor.collection,
                    self.data.retriever,
                    encoder,
                    epochs=encoder_epochs(len(self.data.train)),
                    seed=self.settings.seed,
                )
        return DenseRetriever(encoder, self.processor.collection, cache, compressed=compressed)

    def _examples(self, role: str, task: str, retriever: Retriever | None = None) -> Dataset:
        """Examples of one task of the labels, as often as `rates` says."""
        return tokenize_examples(
            self.data.train,
            role,
            self.processor,
            retriever=retriever or self.data.retriever,
            num_documents=NUM_DOCUMENTS,
            task_rates=dict.fromkeys(self.rates, 0) | {task: self.rates[task]},
            seed=self.settings.seed,
        )

    def _model(self, name: str, role: str, examples: Callable[[], Dataset]) -> MintForConditionalGeneration:
        """The backbone with an adapter that was trained on nothing but these examples."""
        AdapterModels.save_base(self.settings.backbone, self.processor, self.settings.root / "mint-base")
        folder = self.settings.folder / name / f"mint-{role}"
        if not (folder / TRAINING_LOG_NAME).is_file():
            self.models.train(role, None, examples(), folder, training_arguments(5e-4, self.settings.seed))
        return self.models.load({role: folder})[role]


def _retrieving(retriever: Retriever) -> System:
    def reply(queries: list[str]) -> list[Reply]:
        # A compressed index fills up with -1.
        return [([row for row in rows if row >= 0], None) for rows in retriever.retrieve(queries, K)[0].tolist()]

    return System(reply, retriever.nbytes)


BASELINES = {
    "longest-title": Baselines.longest_title,
    "bm25": Baselines.bm25,
    "dense": Baselines.dense,
    "dense-ivfpq": Baselines.dense_ivfpq,
    "dense-tuned": Baselines.dense_tuned,
    "dense-tuned-ivfpq": Baselines.dense_tuned_ivfpq,
    "closed-book": Baselines.closed_book,
    "dense-rag": Baselines.dense_rag,
    "plain-gr": Baselines.plain_gr,
    "corpus-lm": Baselines.corpus_lm,
}


def main() -> None:
    """Computes the baselines in order and prints the scores of each."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    # The quality of auxiliary data and the confidence of exchanged samples have no part here; the config names them.
    parser = TrlParser([Settings, QualityArguments, ConfidenceArguments])
    settings, quality, _ = parser.parse_args_and_config()
    data = Data(settings, quality)
    baselines = Baselines(settings, data)
    for name in settings.rows or BASELINES:
        path = settings.predictions / f"{name}.{STRATEGY}.jsonl"
        if not path.is_file():
            queries, reply = data.judged["query"][:], baselines.make(name).reply

            def work(items: range, queries=queries, reply=reply) -> list[dict]:
                replies = reply([queries[item] for item in items])
                return [{"rows": rows, "answer": answer} for rows, answer in replies]

            replies = in_blocks(len(queries), BLOCK_SIZE, settings.replies(name), work)
            write_replies(path, data, replies)
        print_scores(data, {name: path})


if __name__ == "__main__":
    main()
