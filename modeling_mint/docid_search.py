"""Docid search: beam search over the title trie that prefills each prompt once and never leaves the collection."""

from dataclasses import dataclass

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .title_trie import TitleTrie


@dataclass
class _Beams:
    """
    The open beams of all queries, one row each.

    `query` (rows,): the query a beam belongs to; `node` (rows,): where it stands in the trie; `score` (rows,): sum of
    its log-probabilities; `log_probs` (rows, vocab): of its next token.
    """

    query: torch.LongTensor
    node: torch.LongTensor
    score: torch.FloatTensor
    log_probs: torch.FloatTensor


class _Decoder:
    """Prefills the prompts, then advances any selection of rows by one token, for either kind of backbone."""

    def __init__(self, model: PreTrainedModel, input_ids: torch.LongTensor, attention_mask: torch.LongTensor):
        self.model = model
        self.attention_mask = attention_mask
        if model.config.is_encoder_decoder:
            self.encoder_states = model.get_encoder()(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            self.cache = EncoderDecoderCache(
                DynamicCache(config=model.config.get_text_config(decoder=True)), DynamicCache()
            )
            start = model.generation_config.decoder_start_token_id
            logits = self._forward(input_ids.new_full((len(input_ids), 1), start))
        else:
            self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
            logits = model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        self.log_probs = logits[:, -1].float().log_softmax(-1)

    def advance(self, rows: torch.LongTensor, tokens: torch.LongTensor) -> torch.FloatTensor:
        """Keeps `rows` (a row may come several times), appends `tokens`; returns next log-probabilities (n, vocab)."""
        self.attention_mask = self.attention_mask[rows]
        self.cache.batch_select_indices(rows)
        if self.model.config.is_encoder_decoder:
            self.encoder_states = self.encoder_states[rows]
            return self._forward(tokens[:, None])[:, -1].float().log_softmax(-1)
        self.attention_mask = torch.cat([self.attention_mask, self.attention_mask.new_ones(len(rows), 1)], dim=1)
        logits = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.attention_mask,
            position_ids=self.attention_mask.sum(1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        return logits[:, -1].float().log_softmax(-1)

    def _forward(self, decoder_input_ids: torch.LongTensor) -> torch.FloatTensor:
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoder_states),
            attention_mask=self.attention_mask,
            decoder_input_ids=decoder_input_ids,
            past_key_values=self.cache,
            use_cache=True,
        ).logits


def _rank_in_query(query: torch.LongTensor, score: torch.FloatTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Order that sorts by query, then by falling score, and each entry's rank (0 = best) within its query."""
    order = score.argsort(descending=True, stable=True)
    order = order[query[order].argsort(stable=True)]
    grouped = query[order]
    first = torch.searchsorted(grouped, grouped)
    return order, torch.arange(len(order), device=order.device) - first


@torch.no_grad()
def search_docids(
    model: PreTrainedModel,
    trie: TitleTrie,
    input_ids: torch.LongTensor,
    attention_mask: torch.LongTensor,
    *,
    num_beams: int = 10,
    num_docids: int = 10,
    scoring: str = "vocabulary",
) -> list[list[tuple[int, float]]]:
    """
    The best docids of each prompt by beam search under the trie (MINT, SIGIR 2025: docids are generated).

    A docid's score is the plain sum of its tokens' log-probabilities, end token included: no length penalty. Such sums
    only fall along a path, so a query is finished as soon as its best open beam is worse than its last wanted docid.

    Args:
        model ([`MintForConditionalGeneration`]):
            Model of either kind of backbone.
        trie ([`TitleTrie`]):
            Titles that may come out.
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            Prompts; padded on the left for a decoder-only backbone.
        attention_mask (`torch.LongTensor` of shape `(batch_size, length)`):
            1 for tokens, 0 for padding.
        num_beams (`int`, *optional*, defaults to 10):
            Open beams per query.
        num_docids (`int`, *optional*, defaults to 10):
            Docids wanted per query.
        scoring (`str`, *optional*, defaults to `"vocabulary"`):
            `"vocabulary"`: log-probabilities over the whole vocabulary; `"trie"`: renormalised over the tokens that
            the trie allows.

    Returns:
        `list[list[tuple[int, float]]]`: per query (leaf, score), best first; fewer than `num_docids` where the beams
        reached fewer (always when the trie holds fewer).

    Raises:
        ValueError: if `scoring` is unknown, or prompts of a decoder-only backbone are padded on the right.
    """
    if scoring not in ("vocabulary", "trie"):
        raise ValueError(f"`scoring` is {scoring!r}; it must be 'vocabulary' or 'trie'.")
    if not model.config.is_encoder_decoder and not attention_mask[:, -1].all():
        raise ValueError(
            "A decoder-only backbone needs its prompts padded on the left: the docid follows the last column."
        )
    device = input_ids.device
    trie = trie.to(device)
    batch_size = len(input_ids)
    decoder = _Decoder(model, input_ids, attention_mask)
    beams = _Beams(
        query=torch.arange(batch_size, device=device),
        node=torch.zeros(batch_size, dtype=torch.long, device=device),
        score=torch.zeros(batch_size, device=device),
        log_probs=decoder.log_probs,
    )
    # The best finished docids so far, per query; empty places have the score -inf.
    best_score = torch.full((batch_size, num_docids), float("-inf"), device=device)
    best_leaf = torch.full((batch_size, num_docids), -1, device=device)

    while len(beams.query):
        row, token, child = trie.children(beams.node)
        step_score = beams.log_probs[row, token]
        if scoring == "trie":
            total = torch.full((len(beams.query),), float("-inf"), device=device)
            total = total.scatter_reduce(0, row, step_score, "amax")
            total = total + torch.zeros_like(total).index_add(0, row, (step_score - total[row]).exp()).log()
            step_score = step_score - total[row]
        score = beams.score[row] + step_score
        query = beams.query[row]

        finished = trie.is_leaf(child)
        _keep_best(best_score, best_leaf, query[finished], score[finished], child[finished])

        # Open beams go on while they could still enter the wanted docids of their query.
        open_ = (~finished & (score > best_score[query, -1])).nonzero()[:, 0]
        order, rank = _rank_in_query(query[open_], score[open_])
        kept = open_[order[rank < num_beams]]
        if not len(kept):
            break
        log_probs = decoder.advance(row[kept], token[kept])
        beams = _Beams(query=query[kept], node=child[kept], score=score[kept], log_probs=log_probs)

    return [
        [(leaf, score) for leaf, score in zip(leaves, scores, strict=True) if leaf >= 0]
        for leaves, scores in zip(best_leaf.tolist(), best_score.tolist(), strict=True)
    ]


def _keep_best(best_score, best_leaf, query, score, leaf) -> None:
    """Merges newly finished docids (n,) into the best ones (batch_size, num_docids), in place."""
    order, rank = _rank_in_query(query, score)
    order, rank = order[rank < best_score.shape[1]], rank[rank < best_score.shape[1]]
    new_score = torch.full_like(best_score, float("-inf"))
    new_leaf = torch.full_like(best_leaf, -1)
    new_score[query[order], rank] = score[order]
    new_leaf[query[order], rank] = leaf[order]
    merged_score, place = torch.cat([best_score, new_score], dim=1).topk(best_score.shape[1], dim=1)
    best_leaf.copy_(torch.cat([best_leaf, new_leaf], dim=1).gather(1, place))
    best_score.copy_(merged_score)


__all__ = ["search_docids"]
