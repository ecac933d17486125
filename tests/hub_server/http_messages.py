"""A request as the routes get it, what they answer, and the table of the routes."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from .store import Account, HubError, Store

REPO = r"/api/(?P<kind>model|dataset|space)s/(?P<repo_id>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)"
ROUTES: list[tuple[str, re.Pattern, Callable]] = []


@dataclass(frozen=True)
class Request:
    """
    What a client asks.

    Args:
        method (`str`):
            `"GET"`, `"POST"`, ...
        path (`str`):
            Path as it was sent, quoted, without the query.
        query (`dict[str, list[str]]`):
            Values by name.
        headers (`dict[str, str]`):
            Values by lower-cased name.
        body (`bytes`):
            What was sent.
        account (`Account`, *optional*):
            Whom the token belongs to.
        store (`Store`):
            What the Hub holds.
        url (`str`):
            Address of the Hub.
        page_size (`int`):
            Entries on one page of a listing.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    account: Account | None
    store: Store
    url: str
    page_size: int

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode(), keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Whether the query switches an option on."""
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")


@dataclass(frozen=True)
class Response:
    """
    What the Hub answers.

    Args:
        body (`bytes`, `dict` or `list`, *optional*, defaults to `{}`):
            Content; what is not bytes is sent as JSON.
        status (`int`, *optional*, defaults to 200):
            HTTP status.
        headers (`dict[str, str]`, *optional*, defaults to `{}`):
            Headers besides length and type.
    """

    body: bytes | dict | list = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def route(method: str, pattern: str) -> Callable:
    """Decorator: the function answers requests whose path fits, and gets its named groups, unquoted."""

    def register(function: Callable) -> Callable:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


def answer(request: Request) -> Response:
    """Finds the route of a request and runs it; a HEAD is answered like a GET."""
    method = "GET" if request.method == "HEAD" else request.method
    for route_method, pattern, function in ROUTES:
        if route_method == method and (match := pattern.fullmatch(request.path)):
            groups = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
            return function(request, **groups)
    raise HubError(404, f"This Hub has no {request.method} {request.path}")
