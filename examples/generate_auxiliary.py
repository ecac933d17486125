"""Stage 2: the external LLM writes pseudo-queries and pseudo-answers -> the `auxiliary` config of mint-pseudo/.

python examples/generate_auxiliary.py --output_dir outputs/mine --llm http://127.0.0.1:8000/v1
"""

import random

from arguments import Settings, parse_settings
from build_collection import resolve
from run_folder import RunFolder, plain_errors, set_up_logging

from dataset_builders.auxiliary import AuxiliaryBuilder
from dataset_builders.writing import build, write_config


def generate_auxiliary(settings: Settings, folder: RunFolder) -> dict:
    """
    Writes the auxiliary samples for documents of the slice.

    Returns:
        `dict`: `samples` (kept), `asked` (documents that the LLM was asked about).
    """
    run = settings.run
    index_rows = folder.facts("build_collection")["index_rows"]
    rows = sorted(random.Random(run.seed).sample(index_rows, min(run.num_auxiliary_documents, len(index_rows))))
    builder = AuxiliaryBuilder(
        cache_dir=str(folder.cache),
        collection=str(folder.collection),
        llm=resolve(run.llm),
        journal=str(folder.work / "auxiliary.jsonl"),
        rows=rows,
        num_related=run.num_related,
        seed=run.seed,
    )
    auxiliary = build(builder)
    write_config(auxiliary, folder.pseudo, "auxiliary")
    return {"asked": len(rows), "samples": len(auxiliary["train"])}


if __name__ == "__main__":
    with plain_errors():
        set_up_logging()
        settings = parse_settings()
        folder = RunFolder(settings)
        folder.run_stage("generate_auxiliary", lambda: generate_auxiliary(settings, folder))
