"""How the prefixes of docids are run through a model: as positions of one row per query, or as one row each."""

import copy
import inspect

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput


def takes_tree_attention(model: PreTrainedModel) -> bool:
    """
    Tells whether a model can run many prefixes of a query as positions of one row ([`TreeDecoder`]): it must be
    decoder-only, take positions and a mask of our own, and keep every key and value.
    """
    if model.config.is_encoder_decoder:
        return False
    decoder = model.get_decoder()
    return (
        decoder._supports_attention_backend
        and decoder.config._attn_implementation in ("eager", "sdpa")
        and "position_ids" in inspect.signature(decoder.forward).parameters
        and all(type(layer) is DynamicLayer for layer in _new_cache(model).layers)
    )


def _new_cache(model: PreTrainedModel) -> DynamicCache:
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _selected(cache: DynamicCache, rows: torch.LongTensor) -> DynamicCache:
    """A cache of those rows (one may come several times); the given one stays as it is."""
    picked = copy.copy(cache)
    picked.layers = [copy.copy(layer) for layer in cache.layers]
    picked.batch_select_indices(rows)
    return picked


def _prefill(model: PreTrainedModel, cache: DynamicCache, input_ids, attention_mask) -> torch.FloatTensor:
    """Runs prompts through a decoder-only model; logits (batch_size, vocab) of what follows them."""
    keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        **keep,
    ).logits[:, -1]


class TreeDecoder:
    """
    Runs prefixes as positions of one row per query: the prompt is there once, each prefix sees it and its own
    ancestors, and any prefix that was run can be continued at any time, since the cache only grows.

    A prefix is known by its handle; handles 0 to `batch_size - 1` are the prompts. A query that is missing in a call
    of `advance` has left and takes no part any more.

    Args:
        model (`PreTrainedModel`):
            Decoder-only model, see [`takes_tree_attention`].
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            Prompts, padded on the left.
        attention_mask (`torch.LongTensor` of shape `(batch_size, length)`):
            1 for tokens, 0 for padding.

    Attributes:
        logits (`torch.FloatTensor` of shape `(batch_size, vocab)`): of what follows the prompts.
    """

    def __init__(self, model: PreTrainedModel, input_ids: torch.LongTensor, attention_mask: torch.LongTensor):
        batch_size, device = len(input_ids), input_ids.device
        self.model = model
        self.cache = _new_cache(model)
        self.logits = _prefill(model, self.cache, input_ids, attention_mask)
        # Of each query in the cache: its number, its prompt's mask, and who sees whom among its prefixes (batch,
        # columns, columns). A padding column is seen by itself only.
        self.row_query = torch.arange(batch_size, device=device)
        self.prompt_mask = attention_mask.bool()
        self.visible = torch.zeros(batch_size, 0, 0, dtype=torch.bool, device=device)
        # Of each prefix: its query, its column behind the prompt (-1: the prompt itself) and its position.
        self.query = self.row_query
        self.column = torch.full_like(self.query, -1)
        self.position = attention_mask.sum(1) - 1

    def plan(self, parents: torch.LongTensor, lengths: torch.LongTensor) -> torch.LongTensor:
        """
        Tells how much of each run is worth being run ahead: what fits into the slots that the query with the most
        prefixes leaves to the others, since these are computed in any case; best prefixes first.

        Args:
            parents (`torch.LongTensor` of shape `(n,)`):
                Handles of the prefixes, ordered by query, best first.
            lengths (`torch.LongTensor` of shape `(n,)`):
                Tokens of each run, the forced ones included.

        Returns:
            `torch.LongTensor` of shape `(n,)`: lengths, at least 1.
        """
        _, query, count = self.query[parents].unique_consecutive(return_inverse=True, return_counts=True)
        free = count.max() - count
        before = (lengths - 1).cumsum(0) - (lengths - 1)
        before = before - before[count.cumsum(0) - count][query]
        return 1 + torch.minimum((free[query] - before).clamp(min=0), lengths - 1)

    def advance(
        self, parents: torch.LongTensor, tokens: torch.LongTensor, lengths: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.FloatTensor, torch.LongTensor]:
        """
        Continues prefixes, each by a run of tokens.

        Args:
            parents (`torch.LongTensor` of shape `(n,)`):
                Handles of the prefixes, ordered by query.
            tokens (`torch.LongTensor` of shape `(n, f)`):
                Tokens of each run.
            lengths (`torch.LongTensor` of shape `(n,)`):
                Tokens of each run that count; 0: the query stays, and nothing is run.

        Returns:
            `tuple`: handles (total,) of the new prefixes, run by run; logits (rows, vocab), in the model's precision,
            and the row in them (total,) of each new prefix.
        """
        self._keep_queries(self.query[parents].unique_consecutive())
        device, num_rows = tokens.device, len(self.row_query)
        run = torch.repeat_interleave(torch.arange(len(parents), device=device), lengths)
        offset = torch.arange(len(run), device=device) - (lengths.cumsum(0) - lengths)[run]
        parent = parents[run]
        row = torch.searchsorted(self.row_query, self.query[parent])
        slot = torch.arange(len(run), device=device) - torch.searchsorted(row, row)
        num_slots, num_columns = int(slot.max()) + 1, self.visible.shape[1]

        # Unused slots run token 0 at position 0 and see themselves; nobody sees them.
        input_ids = torch.zeros(num_rows, num_slots, dtype=torch.long, device=device)
        position_ids = torch.zeros_like(input_ids)
        input_ids[row, slot] = tokens[run, offset]
        position_ids[row, slot] = position = self.position[parent] + 1 + offset

        old = torch.zeros(num_rows, num_slots, num_columns, dtype=torch.bool, device=device)
        grown = self.column[parent] >= 0
        old[row[grown], slot[grown]] = self.visible[row[grown], self.column[parent[grown]]]
        run_of = torch.full((num_rows, num_slots), -1, device=device)
        run_of[row, slot] = run
        # The slots of a run lie side by side, so an earlier slot of the same run is an ancestor.
        new = ((run_of[:, :, None] == run_of[:, None, :]) & (run_of >= 0)[:, :, None]).tril()
        new |= torch.eye(num_slots, dtype=torch.bool, device=device)
        prompt = self.prompt_mask[:, None, :] & (run_of >= 0)[:, :, None]

        self.visible = torch.cat([torch.nn.functional.pad(self.visible, (0, num_slots)), torch.cat([old, new], 2)], 1)
        allowed = torch.cat([prompt, old, new], 2)[:, None]
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype, device=device)
        logits = self.model(
            input_ids=input_ids,
            attention_mask=mask.masked_fill(~allowed, torch.finfo(mask.dtype).min),
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
        ).logits

        handles = len(self.query) + torch.arange(len(run), device=device)
        self.query = torch.cat([self.query, self.query[parent]])
        self.column = torch.cat([self.column, num_columns + slot])
        self.position = torch.cat([self.position, position])
        return handles, logits.flatten(0, 1), row * num_slots + slot

    def _keep_queries(self, queries: torch.LongTensor) -> None:
        """Drops the rows of all other queries."""
        if len(queries) < len(self.row_query):
            rows = torch.searchsorted(self.row_query, queries)
            self.cache.batch_select_indices(rows)
            self.row_query, self.prompt_mask, self.visible = queries, self.prompt_mask[rows], self.visible[rows]


class RowDecoder:
    """
    Runs prefixes as one row each, all of the same length, for encoder-decoders (their positions follow from the
    cache, so that prefixes cannot share a row) and for decoder-only models that do not take tree attention.

    Handles are good for the next call only.

    Args:
        model (`PreTrainedModel`):
            Model of either kind.
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            Prompts; padded on the left for a decoder-only model.
        attention_mask (`torch.LongTensor` of shape `(batch_size, length)`):
            1 for tokens, 0 for padding.
        encoder_states (`torch.FloatTensor` of shape `(batch_size, length, hidden)`, *optional*):
            What the encoder makes of the prompts, where it is known.

    Attributes:
        logits: see [`TreeDecoder`].
    """

    def __init__(self, model: PreTrainedModel, input_ids, attention_mask, encoder_states=None):
        self.model = model
        self.attention_mask = attention_mask
        self.prompt_length = attention_mask.sum(1)
        self.query = torch.arange(len(attention_mask), device=attention_mask.device)
        self.cross_cache, self.cache = DynamicCache(), _new_cache(model)
        if model.config.is_encoder_decoder:
            if encoder_states is None:
                encoder = model.get_encoder()
                encoder_states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            self.encoder_states = encoder_states
            start = torch.full_like(self.query[:, None], model.generation_config.decoder_start_token_id)
            self.logits = self._run(self.cache, self.cross_cache, self.query, start, 0)[:, -1]
        else:
            self.logits = _prefill(model, self.cache, input_ids, attention_mask)
        self.prompt_cache, self.prompt_cross_cache = self.cache, self.cross_cache
        self.num_written = 0

    def plan(self, parents: torch.LongTensor, lengths: torch.LongTensor) -> torch.LongTensor:
        """See [`TreeDecoder.plan`]: each row is a beam that still competes, so nothing is run ahead of that."""
        return torch.ones_like(lengths)

    def advance(
        self, parents: torch.LongTensor, tokens: torch.LongTensor, lengths: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.FloatTensor, torch.LongTensor]:
        """See [`TreeDecoder.advance`]; runs are of one token here."""
        parents, tokens = parents[lengths > 0], tokens[lengths > 0, :1]
        self.query = self.query[parents]
        self.cache = _selected(self.cache, parents)
        logits = self._run(self.cache, self._cross_cache(self.query), self.query, tokens, self.num_written)
        self.num_written += 1
        handles = torch.arange(len(parents), device=parents.device)
        return handles, logits[:, -1], handles

    def _cross_cache(self, query: torch.LongTensor) -> DynamicCache:
        return _selected(self.prompt_cross_cache, query) if self.model.config.is_encoder_decoder else DynamicCache()

    def _run(self, cache, cross_cache, query, tokens, num_written) -> torch.FloatTensor:
        """Logits (n, f, vocab) behind each of the tokens (n, f), which follow `num_written` that are in the cache."""
        if self.model.config.is_encoder_decoder:
            return self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.encoder_states[query]),
                attention_mask=self.attention_mask[query],
                decoder_input_ids=tokens,
                past_key_values=EncoderDecoderCache(cache, cross_cache),
                use_cache=True,
            ).logits
        written = self.attention_mask.new_ones(len(tokens), num_written + tokens.shape[1])
        positions = self.prompt_length[query, None] + num_written + torch.arange(tokens.shape[1], device=tokens.device)
        return self.model(
            input_ids=tokens,
            attention_mask=torch.cat([self.attention_mask[query], written], 1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits


class ReplayDecoder(RowDecoder):
    """
    Runs each prefix from its first token on, over the prompt's cache: any prefix can be continued at any time, as with
    [`TreeDecoder`], and only tokens are kept of it. Arguments and attributes are those of [`RowDecoder`].
    """

    def __init__(self, model: PreTrainedModel, input_ids, attention_mask, encoder_states=None):
        super().__init__(model, input_ids, attention_mask, encoder_states)
        self.path = self.query.new_zeros(len(self.query), 0)
        self.length = torch.zeros_like(self.query)

    def plan(self, parents: torch.LongTensor, lengths: torch.LongTensor) -> torch.LongTensor:
        """See [`TreeDecoder.plan`]: the longer the run, the less is run again."""
        return lengths

    def advance(
        self, parents: torch.LongTensor, tokens: torch.LongTensor, lengths: torch.LongTensor
    ) -> tuple[torch.LongTensor, torch.FloatTensor, torch.LongTensor]:
        """See [`TreeDecoder.advance`]."""
        parents, tokens, lengths = (part[lengths > 0] for part in (parents, tokens, lengths))
        query, before = self.query[parents], self.length[parents]
        total = before + lengths
        step = torch.arange(int(total.max()), device=tokens.device)
        # A path, then its run: what stands behind them is never read.
        path = torch.nn.functional.pad(self.path, (0, max(0, len(step) - self.path.shape[1])))
        run = tokens.gather(1, (step - before[:, None]).clamp(min=0, max=tokens.shape[1] - 1))
        whole = torch.where(step < before[:, None], path[parents, : len(step)], run)
        logits = self._run(_selected(self.prompt_cache, query), self._cross_cache(query), query, whole.clamp(min=0), 0)

        new = (step >= before[:, None]) & (step < total[:, None])
        row, position = new.nonzero(as_tuple=True)
        handles = len(self.query) + torch.arange(len(row), device=tokens.device)
        self.query = torch.cat([self.query, query[row]])
        self.length = torch.cat([self.length, position + 1])
        self.path = torch.cat([path, torch.nn.functional.pad(whole, (0, path.shape[1] - len(step)))[row]])
        return handles, logits.flatten(0, 1), row * len(step) + position


__all__ = ["ReplayDecoder", "RowDecoder", "TreeDecoder", "takes_tree_attention"]
