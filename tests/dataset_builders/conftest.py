import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import Dataset

from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import COLLECTION_FEATURES
from dataset_builders.writing import build, write_collection

DOCUMENTS = [
    ("Eiffel Tower", "The Eiffel Tower is an iron tower in Paris. It was designed by Gustave Eiffel in 1889."),
    ("Paris", "Paris is the capital of France. The Eiffel Tower stands in Paris."),
    ("Gustave Eiffel", "Gustave Eiffel was a French engineer. His company built the tower in Paris."),
    ("Cat", "The cat is a small animal that hunts mice."),
    ("Mouse", "The mouse is a small animal that the cat hunts."),
]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    """`load_dataset` keeps Arrow copies; these tests must not leave any behind."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def documents():
    """Title and text by row of the collection in `collection_folder`."""
    return DOCUMENTS


@pytest.fixture
def cache_dir(tmp_path):
    return str(tmp_path / "builders")


@pytest.fixture
def collection_folder(tmp_path):
    folder = tmp_path / "mint-collection"
    records = [{"title": title, "text": text, "related": [], "metadata": "{}"} for title, text in DOCUMENTS]
    write_collection(Dataset.from_list(records, features=COLLECTION_FEATURES), folder)
    return str(folder)


@pytest.fixture
def build_sections(write_lines, cache_dir):
    """Builds raw documents into a collection of sections."""

    def make(*documents):
        path = write_lines("pages.jsonl", *documents)
        return build(CollectionBuilder(cache_dir=cache_dir, data_files=path, docid_granularity="section"))["train"]

    return make


@pytest.fixture
def write_lines(tmp_path):
    """Writes records (or raw lines) as a JSONL file and returns its path."""

    def write(name, *records):
        path = tmp_path / name
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


class ChatServer(ThreadingHTTPServer):
    """
    OpenAI-compatible server whose model answers in capitals. `faults` are served first, one per request: a status,
    "cut" (connection closed), "torn" (half a reply) or "slow" (a second of silence).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.faults, self.bodies, self.authorizations = [], [], set()

    def reply_to(self, prompt):
        return prompt.upper()

    def handle_error(self, request, client_address):
        """A client that has hung up is part of these tests, no news."""


class ChatHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/v1/models"
        self.send_json({"data": [{"id": "tiny-chat"}, {"id": "other"}]})

    def do_POST(self):
        assert self.path == "/v1/chat/completions"
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.authorizations.add(self.headers["authorization"])
            fault = self.server.faults.pop() if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault == "torn":
            self.send_body(b'{"choices": [')
        elif fault != "cut":
            time.sleep(1.0 if fault == "slow" else 0)
            message = {"role": "assistant", "content": self.server.reply_to(body["messages"][0]["content"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.send_json({"id": "1", "created": 0, "model": body["model"], "choices": [choice]})

    def send_json(self, reply):
        self.send_body(json.dumps(reply).encode())

    def send_body(self, content):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def chat_server():
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
