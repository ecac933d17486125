"""The HTTP side of the Hub: connections, tokens, and what goes wrong on demand."""

import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import Fault
from .http_messages import Request, Response, answer
from .store import Account, HubError


@dataclass
class LoggedRequest:
    """
    A request that came in.

    Attributes:
        method (`str`):
            `"GET"`, `"POST"`, ...
        path (`str`):
            Unquoted path; a whole address, or host and port, where a client asked for another host than the Hub.
        query (`str`):
            What stood behind the question mark.
        with_token (`bool`):
            Whether a token came with it.
        status (`int`, *optional*):
            What it was answered; `None` where the connection was cut first.
    """

    method: str
    path: str
    query: str
    with_token: bool
    status: int | None = None


class Handler(BaseHTTPRequestHandler):
    """One connection of a client: reads its requests, lets the faults strike, and sends what the routes answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_request(self):
        """Answers one request of any method, or hangs up."""
        address = urlsplit(self.path)
        is_stray = not self.path.startswith("/")
        path = unquote(self.path if is_stray else address.path)
        logged = LoggedRequest(self.command, path, address.query, "Authorization" in self.headers)
        with self.server.lock:
            self.server.requests.append(logged)
            fault = self.server.fault_for(self.command, path)
        time.sleep(fault.delay)
        if fault.cut == "request":
            self.rfile.read(min(fault.after, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            return
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        if fault.status is not None:
            response = Response({"error": f"Fault on demand: {fault.status}"}, fault.status, fault.headers)
        elif is_stray:
            response = Response({"error": "This is not the host that was asked for"}, 403)
        else:
            response = self._answer(address, body)
        logged.status = response.status
        self._send(response, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = handle_request

    def log_message(self, *arguments):
        """Keeps the tests' output clean."""

    def _answer(self, address, body: bytes) -> Response:
        try:
            request = Request(
                self.command,
                address.path,
                parse_qs(address.query),
                {name.lower(): value for name, value in self.headers.items()},
                body,
                self._account(),
                self.server.store,
                self.server.url,
                self.server.page_size,
            )
            with self.server.lock:
                return answer(request)
        except HubError as error:
            headers = {"X-Error-Message": error.message.encode("ascii", "replace").decode()}  # as headers must be
            if error.code is not None:
                headers["X-Error-Code"] = error.code
            return Response({"error": error.message} | error.facts, error.status, headers)

    def _account(self) -> Account | None:
        """Whom the token belongs to; a wrong one is refused even where none is needed."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token not in self.server.store.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.server.store.accounts[token]

    def _body(self) -> bytes | None:
        """What the client sent; `None` if it hung up before all of it was here."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _send(self, response: Response, fault: Fault) -> None:
        content, headers = response.body, response.headers
        if not isinstance(content, bytes):
            content = json.dumps(content, default=str).encode()
            headers = {"Content-Type": "application/json; charset=utf-8"} | headers
        self.send_response(response.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault.cut == "response":
            content, self.close_connection = content[: fault.after], True
        if self.command != "HEAD":
            self.wfile.write(content)
