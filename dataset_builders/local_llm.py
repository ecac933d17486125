"""An LLM of transformers on this machine, whose replies are held to a form."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from modeling_mint.compute_dtype import compute_dtype

from .replies import Reply, ReplyForm
from .shared_prefix import SHARED_PREFIX

BATCHES_SORTED_TOGETHER = 64


class LocalLLM:
    """
    A causal language model on this machine, on the device that accelerate gives this process: under
    `accelerate launch` each process has a model and a device of its own. Decoding is greedy, thus the same prompts
    give the same replies.

    What all prompts have in common (the few-shot part) is computed and kept once, see
    [`~dataset_builders.shared_prefix.shared_prefix_attention`]; prompts of like length share a batch; a row whose
    reply is complete leaves it. Special tokens that a prompt spells out ("<|im_end|>") are read as text.

    Args:
        name_or_path (`str`):
            Folder or Hub id of the model.
        dtype (`str`, *optional*):
            Data type of the weights. Defaults to what the machine computes fastest in, see
            [`~modeling_mint.compute_dtype.compute_dtype`].
        batch_size (`int`, *optional*, defaults to `32`):
            Prompts computed together.
        chat (`bool`, *optional*, defaults to `False`):
            Whether a prompt is an instruction, to be put as one user message into the tokenizer's chat template, and
            not a text to continue.

    Raises:
        `ValueError`: if `chat` is asked of a tokenizer without chat template, or of a model whose attention is not
            computed here (raised by the first reply).
    """

    def __init__(self, name_or_path: str, dtype: str | None = None, batch_size: int = 32, chat: bool = False):
        self.name = Path(name_or_path).name if Path(name_or_path).is_dir() else name_or_path
        self.chat = chat
        self.batch_size = batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        if chat and self.tokenizer.chat_template is None:
            raise ValueError(
                f"The tokenizer of {name_or_path} has no chat template. Use an instruction-tuned model, or chat=False "
                "with a prompt whose examples the model can continue."
            )
        self.model = AutoModelForCausalLM.from_pretrained(
            name_or_path,
            dtype=dtype or compute_dtype(),
            attn_implementation=SHARED_PREFIX,
            device_map=PartialState().device,
        ).eval()
        self._vocabulary = Vocabulary(self.tokenizer, self.model)

    def complete(
        self, prompts: list[str], form: ReplyForm, *, shared_prefix: str = "", max_new_tokens: int = 48
    ) -> Iterator[tuple[int, Reply]]:
        """
        Answers each prompt in a form: the model writes what stands behind the labels, the labels are given. A greedy
        reply that has the form anyway is the reply. One that needs more than `max_new_tokens` is cut off.

        Args:
            prompts (`list[str]`):
                The prompts. Those of `chat=False` end with the form's first label and its colon; behind a chat prompt
                they are added as the beginning of the assistant's turn.
            form ([`ReplyForm`]):
                Form of the replies.
            shared_prefix (`str`, *optional*, defaults to `""`):
                Text in front of every prompt.
            max_new_tokens (`int`, *optional*, defaults to `48`):
                Longest reply, in tokens, labels included.

        Yields:
            `tuple[int, Reply]`: index of the prompt and the reply to it, without the form's first label, in the order
            in which they get ready.
        """
        # Sorted by length within a window, so that a million prompts are not all tokenized at once.
        window = BATCHES_SORTED_TOGETHER * self.batch_size
        for first in range(0, len(prompts), window):
            texts = [shared_prefix + prompt for prompt in prompts[first : first + window]]
            token_ids = self._tokenize(texts, form)
            order = sorted(range(len(texts)), key=lambda i: len(token_ids[i]))
            # The border is looked for in tokens, not in characters: a token may reach across the prefix's end.
            prefix_length = min(len(os.path.commonprefix(token_ids)), len(token_ids[order[0]]) - 1)
            prefix = self._prefill(token_ids[0][:prefix_length]) if prefix_length else None
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                suffixes = [token_ids[i][prefix_length:] for i in batch]
                replies = [FormedReply(self._vocabulary, form) for _ in batch]
                self._decode(suffixes, prefix, prefix_length, replies, max_new_tokens)
                for i, reply in zip(batch, replies, strict=True):
                    lines = self.tokenizer.decode(reply.token_ids, skip_special_tokens=True).splitlines()
                    text = "\n".join(lines[: len(form.labels)])
                    yield first + i, Reply(text, len(token_ids[i]), len(reply.token_ids))

    def _tokenize(self, texts, form):
        if not self.chat:
            return self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        conversations = [[{"role": "user", "content": text}] for text in texts]
        token_ids = self.tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, sanitize_control_tokens=True
        )["input_ids"]
        first_label = self._vocabulary.ids_behind("x\n", f"{form.labels[0]}:")
        return [ids + first_label for ids in token_ids]

    @torch.inference_mode()
    def _prefill(self, token_ids):
        ids = torch.tensor([token_ids], device=self.model.device)
        return self.model(ids, use_cache=True, logits_to_keep=1, shared_prefix=None).past_key_values

    @torch.inference_mode()
    def _decode(self, suffixes, prefix, prefix_length, replies, max_new_tokens):
        """Greedy search for the rows `prefix` + suffix, suffixes padded on the left; fills `replies`."""
        device = self.model.device
        length = max(map(len, suffixes))
        ids = torch.tensor([[0] * (length - len(suffix)) + suffix for suffix in suffixes], device=device)
        mask = torch.tensor([[0] * (length - len(suffix)) + [1] * len(suffix) for suffix in suffixes], device=device)
        positions = (prefix_length + mask.cumsum(dim=1) - 1).clamp(min=0)
        cache = None
        for _ in range(max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                shared_prefix=prefix,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, logits = output.past_key_values, output.logits[:, -1]
            blank = torch.tensor([reply.line_is_blank for reply in replies], device=device)
            logits = logits.masked_fill(blank[:, None] & self._vocabulary.banned_from_blank_line, -torch.inf)
            tokens = [
                reply.append(token) for reply, token in zip(replies, logits.argmax(dim=-1).tolist(), strict=True)
            ]
            going = [i for i, reply in enumerate(replies) if not reply.complete]
            if not going:
                break
            if len(going) < len(replies):
                replies = [replies[i] for i in going]
                tokens = [tokens[i] for i in going]
                keep = torch.tensor(going, device=device)
                mask, positions = mask[keep], positions[keep]
                cache.batch_select_indices(keep)
            ids = torch.tensor(tokens, device=device)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(replies), 1)], dim=1)
            positions = positions[:, -1:] + 1


class Vocabulary:
    """
    What holding a reply to a form needs to know of the tokens.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model.
        model ([`~transformers.PreTrainedModel`]):
            The model; its generation config may name further end tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel):
        self.tokenizer = tokenizer
        self.texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        ends = model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        ends.update(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        for token in ends & set(range(len(self.texts))):
            self.texts[token] = "\n"
        # A line may end within a token: ".\n" is a single one to many models.
        self.ends_line = [len(f"{text}.".splitlines()) > 1 for text in self.texts]
        # The model may have logits beyond the last token; they name nothing.
        self.banned_from_blank_line = torch.ones(
            model.config.get_text_config().vocab_size, dtype=torch.bool, device=model.device
        )
        self.banned_from_blank_line[: len(self.texts)] = torch.tensor(self.ends_line)

    def ids_behind(self, before: str, text: str) -> list[int]:
        """Token ids (`list[int]`) of a text where it stands behind another, which may differ from those at a start."""
        ids, alone = self.tokenizer([before + text, before], add_special_tokens=False)["input_ids"]
        return ids[len(os.path.commonprefix([ids, alone])) :]


class FormedReply:
    """
    A reply as it grows, token by token, in its form.

    Args:
        vocabulary ([`Vocabulary`]):
            What the tokens are.
        form ([`ReplyForm`]):
            The form; its first label is there already.

    Attributes:
        token_ids (`list[int]`): the reply so far.
        line_is_blank (`bool`): whether the line still waits for its text and must not end.
        complete (`bool`): whether the last line has ended.
    """

    def __init__(self, vocabulary: Vocabulary, form: ReplyForm):
        self.vocabulary = vocabulary
        self.labels = list(form.labels[1:])
        self.given = []
        self.token_ids = []
        self.line_is_blank = True
        self.complete = False

    def append(self, token: int) -> int:
        """
        Adds a token to the reply.

        Args:
            token (`int`):
                What the model chose. It counts only where no label is due.

        Returns:
            `int`: the token that was added.
        """
        if not self.given and self.vocabulary.ends_line[token]:
            if self.labels:
                # What stands in the token before the line's end stays; for a plain "\n" the first token given is it.
                end_of_line = self.vocabulary.texts[token].splitlines()[0]
                self.given = self.vocabulary.ids_behind("x", f"{end_of_line}\n{self.labels.pop(0)}:")
                self.line_is_blank = True
            else:
                self.complete = True
        if self.given:
            token = self.given.pop(0)
        elif self.vocabulary.texts[token].strip():
            self.line_is_blank = False
        self.token_ids.append(token)
        return token
