"""A small OpenAI-compatible server on the loopback interface, with faults on demand."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dataset_builders.replies import QUERY_AND_ANSWER

MALFORMED_BODIES = {
    "torn": b'{"choices": [',
    "no json": b"<html>busy</html>",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "no choices": b"{}",
    "empty choices": b'{"choices": []}',
    "no message": b'{"choices": [{"index": 0}]}',
    "no content": b'{"choices": [{"message": {"role": "assistant", "content": {"a": 1}}}]}',
}


class ChatServer(ThreadingHTTPServer):
    """
    Server whose model answers in capitals; assign `reply_to` for another one. `faults` are served first, the last one
    first, one per request: a status; a status with headers, such as `(429, {"retry-after": "1"})`; "cut" (connection
    closed); "slow" (a second of silence); "hang" (silence until the test is over); or one of `MALFORMED_BODIES`.
    `bodies` and `authorizations` hold what came in. A reply of labelled lines goes out as JSON where a request asks
    for it. Tokens are counted in words.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.counts_tokens, self.knows_response_format = True, True
        self.faults, self.bodies, self.authorizations = [], [], set()
        self.in_flight = self.most_in_flight = 0

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
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        try:
            self.answer(body, fault)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def answer(self, body, fault):
        if "response_format" in body and not self.server.knows_response_format:
            self.send_body(b'{"error": "response_format is not known here"}', 422)
        elif isinstance(fault, int):
            self.send_body(b'{"error": "injected"}', fault)
        elif isinstance(fault, tuple):
            self.send_body(b'{"error": "injected"}', *fault)
        elif fault in MALFORMED_BODIES:
            self.send_body(MALFORMED_BODIES[fault])
        elif fault == "hang":
            self.server.closing.wait()
        elif fault != "cut":
            time.sleep(1.0 if fault == "slow" else 0)
            prompt = body["messages"][0]["content"]
            text = self.server.reply_to(prompt)
            values = QUERY_AND_ANSWER.parse(text) if "response_format" in body else None
            if values is not None:
                text = json.dumps({label.lower(): value for label, value in values.items()})
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            reply = {"id": "1", "created": 0, "model": body["model"], "choices": [choice]}
            if self.server.counts_tokens:
                counts = len(prompt.split()), len(text.split())
                reply["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
            self.send_json(reply)

    def send_json(self, reply):
        self.send_body(json.dumps(reply).encode())

    def send_body(self, content, status=200, headers=None):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def running_chat_server():
    """A [`ChatServer`] that runs while the context is open."""
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
