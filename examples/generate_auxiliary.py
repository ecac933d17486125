"""Stage 2: the external LLM writes pseudo-queries and pseudo-answers -> the `auxiliary` config of mint-pseudo/.

    python examples/generate_auxiliary.py --output_dir outputs/mine --llm http://127.0.0.1:8000/v1

Several servers share the work where `--llm` names them with commas between. Several GPUs do so with

    accelerate launch examples/generate_auxiliary.py --output_dir outputs/mine

and several machines, which need the first stage's folder, with one shard each:

    python examples/generate_auxiliary.py --output_dir outputs/mine --num_shards 4 --shard_index 1

A shard writes its replies into the journal, outputs/mine/work/auxiliary/, and stops. Once all shards' files are in
that folder of one machine, the command without shards makes the dataset of them. What was interrupted goes on from
the journal when it is started again.
"""

import logging
import random

from accelerate import PartialState
from arguments import Settings, ShardArguments, parse_settings
from build_collection import resolve
from run_folder import RunFolder, plain_errors, set_up_logging

from dataset_builders.auxiliary import AuxiliaryBuilder, AuxiliaryConfig, generate_replies
from dataset_builders.writing import build, write_config

logger = logging.getLogger(__name__)


def auxiliary_options(settings: Settings, folder: RunFolder) -> dict:
    """Arguments (`dict`) of [`AuxiliaryConfig`]: what the LLM is asked for documents of the slice."""
    run, auxiliary = settings.run, settings.auxiliary
    index_rows = folder.facts("build_collection")["index_rows"]
    rows = sorted(random.Random(run.seed).sample(index_rows, min(run.num_auxiliary_documents, len(index_rows))))
    if run.llm.startswith(("http://", "https://")):
        llm_options = {
            "concurrency": auxiliary.llm_concurrency,
            "requests_per_minute": auxiliary.requests_per_minute,
        }
    else:
        llm_options = {"batch_size": auxiliary.llm_batch_size, "chat": auxiliary.llm_chat}
    return {
        "collection": str(folder.collection),
        "llm": resolve(run.llm),
        "llm_options": llm_options,
        "journal": str(folder.work / "auxiliary"),
        "rows": rows,
        "queries_per_document": auxiliary.queries_per_document,
        "num_related": run.num_related,
        "prompt_file": auxiliary.prompt_file,
        "ranker": auxiliary.ranker,
        "quality": settings.quality,
        "prompt_price": auxiliary.prompt_price,
        "completion_price": auxiliary.completion_price,
    }


def generate_auxiliary(settings: Settings, folder: RunFolder) -> dict:
    """
    Writes the auxiliary samples for documents of the slice, asking for the replies that are not in the journal. All
    processes ask, each for its share; the main one makes the dataset.

    Returns:
        `dict`: `samples` (kept), `asked` (documents that the LLM was asked about).
    """
    options = auxiliary_options(settings, folder)
    processes = PartialState()
    if processes.num_processes > 1:
        generate_replies(AuxiliaryConfig(**options), processes.num_processes, processes.process_index)
        processes.wait_for_everyone()
    if not processes.is_main_process:
        return {}
    samples = build(AuxiliaryBuilder(cache_dir=str(folder.cache), **options))
    write_config(samples, folder.pseudo, "auxiliary")
    return {"asked": len(options["rows"]), "samples": len(samples["train"])}


def main() -> None:
    """Asks for this process's share of the replies, then makes the dataset, unless other shards are to come."""
    set_up_logging()
    settings, shard = parse_settings(also=ShardArguments)
    folder = RunFolder(settings)
    if shard.num_shards == 1:
        folder.run_stage("generate_auxiliary", lambda: generate_auxiliary(settings, folder), on_all_processes=True)
        return
    processes = PartialState()
    num_shards = shard.num_shards * processes.num_processes
    shard_index = shard.shard_index * processes.num_processes + processes.process_index
    config = AuxiliaryConfig(**auxiliary_options(settings, folder))
    asked = generate_replies(config, num_shards, shard_index)
    logger.info("Shard %d of %d: asked for %d replies.", shard_index, num_shards, asked)
    processes.wait_for_everyone()
    if processes.is_main_process:
        print(
            f"The replies of shard {shard.shard_index} of {shard.num_shards} are in {config.journal}. Once those of "
            "all shards are in that folder of one machine, start this command there without --num_shards and "
            "--shard_index to make the dataset."
        )


if __name__ == "__main__":
    with plain_errors():
        main()
