import pytest
import torch
import transformers

from dataset_builders.llm import EndpointLLM, LocalLLM, load_llm
from tests.tiny import tiny_byte_level_tokenizer, tiny_llama

PROMPTS = ["the moon", "Paris, Texas", "Question: who designed the Eiffel Tower in Paris?", "A", "New York City"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = tiny_byte_level_tokenizer()
    tiny_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def generate(model_folder, text, max_new_tokens):
    """What transformers generates for one whole prompt, with its own attention and cache."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("prefix", ["", "Letters: a b, a b.\n\n", "World War"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_shared_prefix_batches_and_padding_do_not_change_the_replies(model_folder, prefix, batch_size):
    llm = load_llm(model_folder, dtype="float32", batch_size=batch_size)
    replies = dict(llm.complete(PROMPTS, shared_prefix=prefix, max_new_tokens=12))
    assert replies == {i: generate(model_folder, prefix + prompt, 12) for i, prompt in enumerate(PROMPTS)}


def test_a_reply_ends_before_the_stop_and_leaves_the_others_going(model_folder):
    llm = LocalLLM(model_folder, dtype="float32")
    whole = dict(llm.complete(PROMPTS, max_new_tokens=12))
    stop = whole[1][3:5]
    stopped = dict(llm.complete(PROMPTS, max_new_tokens=12, stop=stop))
    assert stopped == {i: reply.split(stop)[0] for i, reply in whole.items()}
    assert stopped[1] != whole[1]


def test_equal_prompts_and_no_prompts(model_folder):
    llm = LocalLLM(model_folder, dtype="float32")
    assert list(llm.complete([])) == []
    first, second = (reply for _, reply in llm.complete(["Paris", "Paris"], max_new_tokens=4))
    assert first == second


def test_a_model_that_needs_other_attention_is_refused(tmp_path):
    tokenizer = tiny_byte_level_tokenizer()
    config = transformers.MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
    )
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="sliding_window.*server"):
        list(LocalLLM(str(tmp_path), dtype="float32").complete(PROMPTS))


def test_the_endpoint_is_asked_for_its_first_model_and_answers_every_prompt(chat_server):
    llm = load_llm(chat_server.url, first_pause=0.01)
    replies = dict(llm.complete([f"number {i}" for i in range(100)], shared_prefix="say: "))
    assert llm.name == "tiny-chat"
    assert replies == {i: f"SAY: NUMBER {i}" for i in range(100)}
    body = chat_server.bodies[-1]
    assert body["model"] == "tiny-chat" and body["temperature"] == 0 and body["stop"] == ["\n\n"]


def test_the_hugging_face_token_is_not_sent_to_another_server(chat_server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    list(EndpointLLM(chat_server.url, api_key="key").complete(["x"]))
    assert chat_server.authorizations == {"Bearer key"}


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "torn", "slow"])
def test_faults_that_pass_are_tried_again_and_nothing_is_lost_or_doubled(chat_server, fault):
    llm = EndpointLLM(chat_server.url, first_pause=0.01, timeout=0.3)
    chat_server.faults = [fault] * 3
    replies = list(llm.complete([f"number {i}" for i in range(10)]))
    assert sorted(replies) == [(i, f"NUMBER {i}") for i in range(10)]
    assert chat_server.faults == [] and len(chat_server.bodies) == 13


def test_a_server_that_stays_away_is_reported_and_a_refusal_is_not_tried_again(chat_server):
    llm = EndpointLLM(chat_server.url, first_pause=0.001, max_retries=2, concurrency=1)
    chat_server.faults = [500] * 3
    with pytest.raises(ConnectionError, match="(?s)3 tries.*server runs"):
        list(llm.complete(["x"]))
    chat_server.faults = [401]
    with pytest.raises(OSError, match="401"):
        list(llm.complete(["x"]))
    assert len(chat_server.bodies) == 4
