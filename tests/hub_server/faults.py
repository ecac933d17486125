"""Faults on demand: which request is to go wrong, and how."""

from dataclasses import dataclass, field


@dataclass
class Fault:
    """
    What is to happen to some of the requests that fit.

    Args:
        status (`int`, *optional*):
            Answer with this status, and do nothing else.
        headers (`dict[str, str]`, *optional*, defaults to `{}`):
            Headers of that answer.
        cut (`str`, *optional*):
            `"request"`: close the connection while the client sends; the Hub does nothing. `"response"`: do what is
            asked, and close the connection in the middle of the answer.
        after (`int`, *optional*, defaults to 0):
            Bytes of the body to let through before the cut.
        delay (`float`, *optional*, defaults to 0):
            Seconds to wait before anything is done.
        nth (`int`, *optional*, defaults to 1):
            The first fitting request to strike, counted from when the fault was asked for.
        times (`int`, *optional*, defaults to 1):
            How many requests in a row to strike.
        method (`str`, *optional*):
            Only requests with this method.
        path_contains (`str`, *optional*, defaults to `""`):
            Only requests with this in their path.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: str | None = None
    after: int = 0
    delay: float = 0.0
    nth: int = 1
    times: int = 1
    method: str | None = None
    path_contains: str = ""
    seen: int = field(default=0, init=False)

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is struck; counts it if it fits."""
        if self.method not in (None, method) or self.path_contains not in path:
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times
