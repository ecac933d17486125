"""Serves the demo page: of the checkpoints that come with the project, or of any run.

python examples/serve.py
python examples/serve.py --run outputs/demo --server_port 7861
"""

from dataclasses import dataclass, field

from run_folder import plain_errors, set_up_logging
from trained_checkpoints import unpack_checkpoints
from transformers import HfArgumentParser

from hub_cards.serve import launch_app


@dataclass
class Arguments:
    """
    Args:
        run (`str`, *optional*): output folder of a run. Defaults to the checkpoints, which are unpacked to
            `outputs/checkpoints`.
        server_name (`str`, *optional*, defaults to `"127.0.0.1"`): address to listen on. The default is reached from
            this machine only.
        server_port (`int`, *optional*, defaults to 7860): port to listen on.
    """

    run: str = field(default="", metadata={"help": "Output folder of a run (default: the checkpoints)."})
    server_name: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    server_port: int = field(default=7860, metadata={"help": "Port to listen on."})


def main() -> None:
    """Serves until it is interrupted."""
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    run = arguments.run or unpack_checkpoints("outputs/checkpoints")
    print(f"Serving {run} on http://{arguments.server_name}:{arguments.server_port} (Ctrl+C ends it).", flush=True)
    launch_app(run, arguments.server_name, arguments.server_port)


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        main()
