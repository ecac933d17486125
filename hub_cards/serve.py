"""Serves the demo page of a run on this machine: the very app that a push turns into a Space."""

import os
from pathlib import Path

from modeling_mint import MintPipeline

from .demo_space import space_config
from .space.app import load_app, serve


def launch_app(output_dir: str | os.PathLike, server_name: str = "127.0.0.1", server_port: int = 7860) -> None:
    """
    Serves the demo page until it is interrupted. The models' code is this project's, not the copy in their folders.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        server_name (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on. The default is reached from this machine only.
        server_port (`int`, *optional*, defaults to `7860`):
            Port to listen on.

    Raises:
        FileNotFoundError: the run is not complete.
        OSError: the port is taken, or a model cannot be loaded.
    """
    config = space_config(output_dir, f"{Path(output_dir).resolve()}/")
    config["models"]["pipeline_class"] = MintPipeline
    serve(load_app(config), server_name=server_name, server_port=server_port)
