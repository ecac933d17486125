"""A Hub on the loopback address for tests: the real, unpatched clients talk to it through `HF_ENDPOINT`."""

from .fresh_process import API, run_fresh, start_fresh
from .server import HubServer
from .store import Account

__all__ = ["API", "Account", "HubServer", "run_fresh", "start_fresh"]
