"""What a MINT model can be asked: documents for a query, an answer, a query for a document."""

from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from .docid_search import search_docids
from .exact_search import exact_search_docids
from .tasks_mint import format_prompt
from .title_trie import TitleTrie

SEARCHES = ("beam", "exact")


@dataclass
class RetrievalOutput:
    """
    Retrieved documents, one list per query, best first.

    Attributes:
        docids (`list[list[str]]`): titles, as the collection has them.
        scores (`list[list[float]]`): scores of the docids, see [`search_docids`].
        rows (`list[list[int]]`): rows of the documents in the collection. Documents that share a docid follow each
            other with equal scores.
        complete (`list[bool]`, *optional*): with `search="exact"`, whether the documents are proven to be the best;
            `None` with beam search, which proves nothing.
    """

    docids: list[list[str]]
    scores: list[list[float]]
    rows: list[list[int]]
    complete: list[bool] | None = None


@dataclass
class TextOutput:
    """
    Generated texts, one per prompt.

    Attributes:
        texts (`list[str]`): answers or queries.
        log_probs (`list[float]`): mean log-probability per token, end token included.
    """

    texts: list[str]
    log_probs: list[float]


class MintGenerationMixin:
    """The abilities of [`MintForConditionalGeneration`], by the tasks of `tasks_mint.py`."""

    def retrieve(
        self,
        queries: list[str],
        processor,
        k: int = 5,
        *,
        answers: list[str] | None = None,
        num_beams: int | None = None,
        search: str = "beam",
        scoring: str = "vocabulary",
        length_penalty: float = 0.0,
        trie: TitleTrie | None = None,
        budget: int = 500,
        batch_size: int = 16,
        show_progress: bool = False,
    ) -> RetrievalOutput:
        """
        Retrieves by generating titles: `p(docid | q; theta)` (RAG) or `p(docid | q, a; psi)` (GAR).

        Args:
            queries (`list[str]`):
                Queries.
            processor ([`MintProcessor`]):
                Processor with the title trie and the collection.
            k (`int`, *optional*, defaults to 5):
                Documents per query.
            answers (`list[str]`, *optional*):
                GAR only: answers that guide the retrieval. Defaults to the model's own (it never sees a gold answer).
            num_beams (`int`, *optional*):
                Beams per query, at least `k`. Defaults to `max(k, 10)`.
            search (`str`, *optional*, defaults to `"beam"`):
                `"beam"`: see [`search_docids`]; `"exact"`: the provably best documents, see [`exact_search_docids`].
            scoring (`str`, *optional*, defaults to `"vocabulary"`):
                See [`search_docids`].
            length_penalty (`float`, *optional*, defaults to 0.0):
                See [`search_docids`]; not with `search="exact"`.
            trie ([`TitleTrie`], *optional*):
                Part of the processor's trie to search in, such as the documents of a topic (`processor.trie.subset`).
                Defaults to all of it.
            budget (`int`, *optional*, defaults to 500):
                See [`exact_search_docids`].
            batch_size (`int`, *optional*, defaults to 16):
                Queries searched at a time, those of like length together; memory grows with it, not with the number
                of queries.
            show_progress (`bool`, *optional*, defaults to `False`):
                Show a progress bar.

        Returns:
            [`RetrievalOutput`]

        Raises:
            ValueError: if `k`, `num_beams`, `search` or `scoring` is out of range, a length penalty is asked of an
                exact search, `trie` is of another collection, or the collection's docids are of another granularity
                than the model's.
        """
        if search not in SEARCHES:
            raise ValueError(f"`search` is {search!r}; it must be one of {SEARCHES}.")
        if search == "exact" and length_penalty:
            raise ValueError("An exact search compares plain sums: leave `length_penalty` at 0.0, or search by beams.")
        num_beams = max(k, 10) if num_beams is None else num_beams
        if not 1 <= k <= num_beams:
            raise ValueError(f"`k` is {k}; it must be between 1 and `num_beams` ({num_beams}).")
        processor.check_granularity(self.config)
        trie = processor.trie if trie is None else trie
        if trie.num_rows != processor.trie.num_rows:
            raise ValueError(
                f"`trie` is over a collection of {trie.num_rows} documents and the processor's has "
                f"{processor.trie.num_rows}; take a part of the processor's with `processor.trie.subset(rows)`."
            )
        if self.config.role == "gar":
            if answers is None:
                answers = self.answer(queries, processor, batch_size=batch_size).texts
            prompts = [
                format_prompt("query_answer_to_docid", query=query, answer=answer)
                for query, answer in zip(queries, answers, strict=True)
            ]
        else:
            prompts = [format_prompt("query_to_docid", query=query) for query in queries]

        trie = trie.to(self.device)
        output = RetrievalOutput([[]] * len(queries), [[]] * len(queries), [[]] * len(queries))
        if search == "exact":
            output.complete = [False] * len(queries)
        for batch in batches_of_like_length(prompts, batch_size, show_progress, "Retrieving"):
            inputs = processor([prompts[i] for i in batch]).to(self.device)
            prompt = (self, trie, inputs["input_ids"], inputs["attention_mask"])
            if search == "exact":
                found, complete, _ = exact_search_docids(*prompt, num_docids=k, scoring=scoring, budget=budget)
                for i, proven in zip(batch, complete, strict=True):
                    output.complete[i] = proven
            else:
                found = search_docids(
                    *prompt, num_beams=num_beams, num_docids=k, scoring=scoring, length_penalty=length_penalty
                )
            for i, leaves in zip(batch, found, strict=True):
                ranked = [(row, score) for leaf, score in leaves for row in trie.rows(leaf)][:k]
                output.rows[i] = [row for row, _ in ranked]
                output.scores[i] = [score for _, score in ranked]
                output.docids[i] = processor.collection[output.rows[i]]["title"]
        return output

    def answer(
        self,
        queries: list[str],
        processor,
        rows: list[list[int]] | None = None,
        *,
        max_new_tokens: int = 24,
        batch_size: int = 16,
        show_progress: bool = False,
    ) -> TextOutput:
        """
        Answers, greedily: `p(a | q, docids, documents; theta)` (RAG, with `rows`) or `p(a | q; psi)` (GAR).

        Args:
            queries (`list[str]`):
                Queries.
            processor ([`MintProcessor`]):
                Processor with the collection.
            rows (`list[list[int]]`, *optional*):
                RAG only: rows of the documents to read per query, best first.
            max_new_tokens (`int`, *optional*, defaults to 24):
                Tokens of an answer.
            batch_size, show_progress:
                As for `retrieve`.

        Returns:
            [`TextOutput`]

        Raises:
            ValueError: if a RAG model is given no `rows`.
        """
        if self.config.role == "gar":
            prompts = [format_prompt("closed_book_answer", query=query) for query in queries]
        elif rows is None:
            raise ValueError("A RAG model answers from documents: give `rows`, as `retrieve` returns them.")
        else:
            prompts = [
                format_prompt("grounded_answer", query=query, documents=processor.context(context))
                for query, context in zip(queries, rows, strict=True)
            ]
        return self._write(prompts, processor, max_new_tokens, batch_size, show_progress, "Answering")

    def write_queries(
        self,
        rows: list[int],
        processor,
        *,
        temperature: float = 0.0,
        max_new_tokens: int = 32,
        batch_size: int = 16,
        show_progress: bool = False,
    ) -> TextOutput:
        """
        Writes one query per document (`document_to_query`): how co-training makes its own samples (`mint.md`, Stage
            2).

        Args:
            rows (`list[int]`):
                Rows of the documents.
            processor ([`MintProcessor`]):
                Processor with the collection.
            temperature (`float`, *optional*, defaults to 0.0):
                0 writes greedily, more samples.
            max_new_tokens, batch_size, show_progress:
                As for `answer`.

        Returns:
            [`TextOutput`]
        """
        prompts = [format_prompt("document_to_query", document=text) for _, text in processor.context(rows)]
        return self._write(
            prompts, processor, max_new_tokens, batch_size, show_progress, "Writing queries", temperature=temperature
        )

    @torch.no_grad()
    def _write(
        self, prompts, processor, max_new_tokens, batch_size, show_progress, label, temperature=0.0
    ) -> TextOutput:
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        texts, log_probs = [""] * len(prompts), [0.0] * len(prompts)
        for batch in batches_of_like_length(prompts, batch_size, show_progress, label):
            inputs = processor([prompts[i] for i in batch]).to(self.device)
            generated = self.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                num_beams=1,
                pad_token_id=processor.tokenizer.pad_token_id,
                eos_token_id=processor.tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_logits=True,
                **sampling,
            )
            logits = torch.stack(generated.logits, dim=1)
            written = generated.sequences[:, -logits.shape[1] :]
            token_log_probs = logits.float().log_softmax(-1).gather(2, written[:, :, None])[:, :, 0]
            is_end = written == processor.tokenizer.eos_token_id
            # Everything up to the first end token, that one included, counts.
            counted = is_end.cumsum(1) - is_end.long() == 0
            means = (token_log_probs * counted).sum(1) / counted.sum(1)
            for i, text, mean in zip(batch, processor.decode_text(written), means.tolist(), strict=True):
                texts[i], log_probs[i] = text, mean
        return TextOutput(texts, log_probs)


def batches_of_like_length(prompts: list[str], batch_size: int, show_progress: bool, label: str) -> list[list[int]]:
    """Indices of the prompts in batches of like length, so that little is padded; deterministic."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return tqdm(batches, desc=label, disable=not show_progress)


__all__ = ["MintGenerationMixin", "RetrievalOutput", "TextOutput"]
