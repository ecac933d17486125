from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from transformers import T5ForConditionalGeneration, TrainerCallback

from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, new_sample
from modeling_mint import MintConfig, MintForConditionalGeneration, MintProcessor, TitleTrie
from tests.tiny import TITLES, tiny_byte_level_tokenizer, tiny_llama, tiny_t5, tiny_unigram_tokenizer
from trainers.task_examples import tokenize_examples

ARGUMENTS = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
}


@cache
def _processor(kind):
    tokenizer = tiny_byte_level_tokenizer() if kind == "llama" else tiny_unigram_tokenizer()
    documents = [
        {"title": title, "text": f"{title} is entry {row}, near {TITLES[row - 1]}.", "related": [], "metadata": "{}"}
        for row, title in enumerate(TITLES)
    ]
    collection = Dataset.from_list(documents, features=COLLECTION_FEATURES)
    return MintProcessor(tokenizer, TitleTrie.from_titles(TITLES, tokenizer), collection)


@pytest.fixture(params=["llama", "t5"])
def kind(request):
    """Kind of backbone: decoder-only or encoder-decoder."""
    return request.param


@pytest.fixture
def processor(kind):
    """Processor over the documents of `TITLES`, which the tests leave as it is."""
    return _processor(kind)


@pytest.fixture
def make_model(kind, processor):
    """Makes a random model in float32 that has no dropout, so that its losses can be computed again."""

    def make(role="rag", seed=0):
        if kind == "llama":
            backbone = tiny_llama(processor.tokenizer, seed)
        else:
            config = tiny_t5(processor.tokenizer).config
            config.dropout_rate = 0.0
            torch.manual_seed(seed)
            backbone = T5ForConditionalGeneration(config)
        attention = backbone.config._attn_implementation
        config = MintConfig(backbone_config=backbone.config, role=role, attn_implementation=attention)
        return MintForConditionalGeneration(config, backbone).eval()

    return make


@pytest.fixture
def model_folders(make_model, tmp_path):
    """Folders of two "warmed-up" models by role."""
    folders = {role: tmp_path / f"warm-{role}" for role in ("rag", "gar")}
    # Models of both kinds that answer at all: some random ones only ever write the end token.
    for seed, (role, folder) in zip((6, 11), folders.items(), strict=True):
        make_model(role, seed).save_pretrained(folder)
    return folders


@pytest.fixture
def make_sample():
    """Makes a sample about a row of the collection, by default as a human labels it."""

    def make(row=2, source="labelled", **fields):
        defaults = {
            "id": f"{source}-{row}",
            "query": f"what stands under entry {row} about {TITLES[row]}?",
            "answers": [f"number {row}"],
            "docids": [TITLES[row]],
            "rows": [row],
            "provenance": [[TITLES[row]]],
            "source": source,
        }
        if source == "collection":
            defaults |= {"query": "", "answers": []}
        return new_sample(**defaults | fields)

    return make


@pytest.fixture
def make_samples(make_sample):
    """Makes labelled samples as a dataset."""
    return lambda rows: Dataset.from_list([make_sample(row) for row in rows], features=SAMPLE_FEATURES)


@pytest.fixture
def examples(make_sample, processor):
    """Tokenized examples of all four components, the partner's weighted by their confidence."""
    samples = [
        make_sample(2),
        make_sample(16, docids=[TITLES[16], TITLES[18]], rows=[16, 18], source="llm"),
        make_sample(9, source="gar", confidence={"score": 0.25}),
        make_sample(30, source="collection"),
        make_sample(5, source="gar", confidence={"score": 0.75}),
    ]
    return tokenize_examples(Dataset.from_list(samples, features=SAMPLE_FEATURES), "rag", processor)


@pytest.fixture
def training_arguments(tmp_path):
    """Arguments of a short, exact training."""
    return ARGUMENTS | {"output_dir": str(tmp_path / "trainer")}


@pytest.fixture
def token_losses():
    """The reference: losses of one example's target tokens, computed alone and without any padding."""

    def compute(model, example, label_smoothing=0.0):
        prompt, target = torch.tensor([example["prompt_ids"]]), torch.tensor([example["target_ids"]])
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            logits = model(input_ids=prompt, decoder_input_ids=torch.cat([start, target[:, :-1]], 1)).logits
        else:
            logits = model(input_ids=torch.cat([prompt, target], 1)).logits[:, prompt.shape[1] - 1 : -1]
        return functional.cross_entropy(logits[0], target[0], reduction="none", label_smoothing=label_smoothing)

    return compute


@pytest.fixture
def component_losses(token_losses):
    """The reference: `{component: L_c}` of a dataset, each the mean over its own weighted target tokens."""

    def compute(model, examples, label_smoothing=0.0):
        means = {}
        for component in sorted(set(examples["component"])):
            own = [example for example in examples if example["component"] == component]
            total = sum(one["weight"] * token_losses(model, one, label_smoothing).sum() for one in own)
            means[component] = total / sum(one["weight"] * len(one["target_ids"]) for one in own)
        return means

    return compute


@pytest.fixture
def gradients():
    """Callback that keeps the gradient that each optimizer step uses, by parameter name."""

    class Gradients(TrainerCallback):
        def __init__(self):
            self.steps = []

        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            named = model.named_parameters()
            self.steps.append({name: value.grad.clone() for name, value in named if value.grad is not None})

    return Gradients()


@pytest.fixture
def bm25():
    """A retriever with a fixed answer to every query, so that what is read can be told by hand."""

    def retrieve(queries, k):
        return np.tile(np.array([7, 8, 9, 10])[:k], (len(queries), 1)), None

    return SimpleNamespace(retrieve=retrieve)
