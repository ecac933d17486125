"""Calls of the Hub that survive a busy moment, and what its errors mean for who pushes."""

import logging
import time
from collections.abc import Callable
from typing import Any

from httpx2 import HTTPError
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

logger = logging.getLogger(__name__)

BUSY = (429, 503)
ATTEMPTS = 3
LONGEST_WAIT = 60
"""Seconds. The Hub asks for more where an account has used up its hour: that is for its owner to know."""
REMEDIES = {  # HTTP status -> what to do about it
    401: "the Hub does not know this token. Log in again with `hf auth login`, or set HF_TOKEN.",
    403: "this token may not write there. Use one with the role `write`, of a member of the account.",
    404: "there is no such repository or branch, or this token may not see it. Check --org and --revision.",
    409: "the repository is being changed by someone else, or exists in another form.",
    412: "the branch has moved while this push went on.",
    429: "the account has sent too many requests. Wait a few minutes.",
}


def call_hub(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Calls the Hub, and once more or twice where it is busy: `huggingface_hub` tries again for uploads of large files
    only, not for the requests that make repositories and commits.

    Args:
        call (`Callable`):
            What to call.
        *args, **kwargs:
            Its arguments.

    Returns:
        What the call returns.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the Hub refused, is still busy, or asks for a wait of more than
            `LONGEST_WAIT` seconds.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call(*args, **kwargs)
        except HfHubHTTPError as error:
            seconds = _wait(error, attempt)
            if error.response.status_code not in BUSY or attempt == ATTEMPTS or seconds > LONGEST_WAIT:
                raise
            logger.warning("The Hub is busy (%d): trying again in %d s.", error.response.status_code, seconds)
            time.sleep(seconds)


def explain(error: HTTPError | RuntimeError) -> str:
    """
    Says in a sentence why the Hub did not do something, and what helps.

    Args:
        error (`HTTPError` or `RuntimeError`):
            What a call raised. For a large file, `huggingface_hub` hides the cause behind a `RuntimeError`.

    Returns:
        `str`: the sentence.
    """
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    if not isinstance(cause, HfHubHTTPError):
        return f"the connection to the Hub was lost ({type(cause).__name__}: {cause})."
    status = cause.response.status_code
    remedy = REMEDIES.get(status, "the Hub is out of order." if status >= 500 else "the Hub refused.")
    return f"{status}, {remedy} The Hub says: {cause.server_message or str(cause).splitlines()[0]}"


def _wait(error: HfHubHTTPError, attempt: int) -> int:
    """Seconds to wait: what the Hub asks for, or else 1, 2, 4, ..."""
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = headers.get("Retry-After", "")
    return int(asked) if asked.isdigit() else 2 ** (attempt - 1)
