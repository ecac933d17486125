"""Pushes every artefact of a run to the Hub: the collection, the training data, both full models, two adapters and
their base, where the run has them, the demo Space.

```bash
python -m hub_cards.push --org my-org --run outputs/demo --dry_run
```
"""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
from huggingface_hub import CommitOperationAdd, HfApi, SpaceCard, get_token
from transformers import HfArgumentParser

from .cards import has_adapters, has_full_models, read_run, render_cards

logger = logging.getLogger(__name__)

SPACE = Path(__file__).parent / "space"
MODEL_FILES = (
    "config.json",
    "model*.safetensors",
    "modeling_mint.py",
    "processor_config.json",
    "title_trie.safetensors",
)
REQUIRED_FILES = {  # folder of a run -> patterns that must each match a file in it
    "mint-collection": ("data/*.parquet",),
    "mint-pseudo": ("basic/*.parquet", "auxiliary/*.parquet", "co_training/*.parquet"),
}
REQUIRED_MODEL_FILES = {"mint-rag": MODEL_FILES, "mint-gar": MODEL_FILES}  # the same, of a run that has full models
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "config.json")
REQUIRED_ADAPTER_FILES = {  # the same, of a run that has trained adapters
    "mint-base": MODEL_FILES,
    "mint-rag-adapter": ADAPTER_FILES,
    "mint-gar-adapter": ADAPTER_FILES,
}


@dataclass(frozen=True)
class Upload:
    """
    What one repository of the Hub is to hold.

    Args:
        repo_id (`str`):
            Account and name, such as `"my-org/mint-rag"`.
        repo_type (`str`):
            `"model"`, `"dataset"` or `"space"`.
        files (`dict[str, Path | bytes]`):
            Path in the repository to the file on disk, or to the content where it differs from the file on disk.
    """

    repo_id: str
    repo_type: str
    files: dict[str, Path | bytes]

    def __str__(self) -> str:
        sizes = {
            path: len(content) if isinstance(content, bytes) else content.stat().st_size
            for path, content in self.files.items()
        }
        lines = [f"{self.repo_type} {self.repo_id}: {len(sizes)} files, {sum(sizes.values()):,} bytes"]
        return "\n".join(lines + [f"  {path} ({size:,} bytes)" for path, size in sizes.items()])


def space_models(output_dir: str | os.PathLike, prefix: str) -> dict[str, Any]:
    """
    Where the demo page finds the models of a run: the full ones, or if there are none two adapters on one base.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        prefix (`str`):
            What stands before their names: an account or the run's folder, with a slash behind it.

    Returns:
        `dict[str, Any]`: arguments of `pipeline("mint", ...)`: `model`, and `gar_model` or `adapters`.
    """
    if has_full_models(output_dir):
        return {"model": f"{prefix}mint-rag", "gar_model": f"{prefix}mint-gar"}
    return {
        "model": f"{prefix}mint-base",
        "adapters": {role: f"{prefix}mint-{role}-adapter" for role in ("rag", "gar")},
    }


def space_config(output_dir: str | os.PathLike, prefix: str) -> dict[str, Any]:
    """
    What the demo page needs to know of a run.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        prefix (`str`):
            What stands before the models' names, see [`space_models`].

    Returns:
        `dict[str, Any]`: `models` (arguments of the pipeline), `collection_size` (number of documents) and `examples`
        (up to five labelled questions, of the test split where there is one).

    Raises:
        FileNotFoundError: the run's report or its labelled questions are missing.
    """
    run = read_run(output_dir)
    splits = sorted(Path(output_dir, "mint-pseudo", "basic").glob("*.parquet"))  # test, train, validation
    if not splits:
        raise FileNotFoundError(f"{output_dir}/mint-pseudo/basic holds no Parquet file: finish the run first.")
    return {
        "models": space_models(output_dir, prefix),
        "collection_size": run["collection"]["num_documents"],
        "examples": pyarrow.parquet.read_table(splits[0], columns=["query"])["query"].to_pylist()[:5],
    }


def plan_push(output_dir: str | os.PathLike, org: str) -> list[Upload]:
    """
    Works out what would go where, and refuses a run that is not complete.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        org (`str`):
            User or organization on the Hub.

    Returns:
        `list[Upload]`: one for each repository, datasets first, the Space (which loads the others) last.

    Raises:
        FileNotFoundError: a folder of the run lacks a file that its repository cannot do without.
        ValueError: `run.json` lacks a fact that a card states.
    """
    required = dict(REQUIRED_FILES)
    if has_full_models(output_dir):
        required |= REQUIRED_MODEL_FILES
    if has_adapters(output_dir):
        required |= REQUIRED_ADAPTER_FILES
    for folder, patterns in required.items():
        for pattern in patterns:
            if not any(Path(output_dir, folder).glob(pattern)):
                raise FileNotFoundError(
                    f"{Path(output_dir, folder)} holds no {pattern}: the run is not complete. "
                    "Start it again with the same output folder; it goes on where it was."
                )
    uploads = []
    for folder, card in render_cards(output_dir, org).items():
        files = _visible_files(Path(output_dir, folder)) | {"README.md": str(card).encode()}
        if "processor_config.json" in files:
            files["processor_config.json"] = _with_hub_collection(files["processor_config.json"], org)
        if "adapter_config.json" in files:
            files["adapter_config.json"] = _with_hub_base(files["adapter_config.json"], org)
        repo_type = "dataset" if folder in ("mint-collection", "mint-pseudo") else "model"
        uploads.append(Upload(f"{org}/{folder}", repo_type, files))
    uploads.sort(key=lambda upload: upload.repo_type)
    return [*uploads, _space_upload(output_dir, org)]


def push_run(
    output_dir: str | os.PathLike,
    org: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
) -> list[Upload]:
    """
    Pushes every artefact of a run, each as one commit: a push that is cut leaves a repository as it was before.

    The run folder stays untouched. What differs on the Hub is made on the way: cards name the account's repositories,
    and the processors read the collection from the Hub instead of from the folder beside them.

    Args:
        output_dir (`str` or `os.PathLike`):
            Output folder of a run.
        org (`str`):
            User or organization on the Hub.
        private (`bool`, *optional*):
            Whether repositories that do not exist yet are private. By default, what the account has set.
        revision (`str`, *optional*, defaults to the main branch):
            Branch to commit to; made where there is none.
        commit_message (`str`, *optional*, defaults to `"Push MINT run"`):
            First line of the commits.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open pull requests instead of committing to the branch.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to upload nothing and only return what would go where.

    Returns:
        `list[Upload]`: what went (or would go) where.

    Raises:
        FileNotFoundError: the run is not complete.
        ValueError: `run.json` lacks a fact that a card states.
        PermissionError: there is no token.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused.
    """
    uploads = plan_push(output_dir, org)
    if dry_run:
        return uploads
    if get_token() is None:
        raise PermissionError("No Hugging Face token: run `hf auth login`, or set HF_TOKEN. Nothing was uploaded.")
    api = HfApi()
    for upload in uploads:
        api.create_repo(
            upload.repo_id,
            repo_type=upload.repo_type,
            private=private,
            exist_ok=True,
            space_sdk="gradio" if upload.repo_type == "space" else None,
        )
        if revision is not None:
            api.create_branch(upload.repo_id, branch=revision, repo_type=upload.repo_type, exist_ok=True)
        commit = api.create_commit(
            upload.repo_id,
            [CommitOperationAdd(path, content) for path, content in upload.files.items()],
            commit_message=commit_message or "Push MINT run",
            repo_type=upload.repo_type,
            revision=revision,
            create_pr=create_pr,
        )
        logger.info("Pushed %s", commit.pr_url if create_pr else commit.commit_url)
    return uploads


def _visible_files(folder: Path) -> dict[str, Path]:
    """Files of a folder by their path in the repository, without hidden ones and bytecode."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        relative.as_posix(): path
        for relative, path in paths.items()
        if not any(part.startswith((".", "__pycache__")) for part in relative.parts)
    }


def _with_hub_collection(processor_config: Path, org: str) -> bytes:
    """The processor's settings, its collection read from the account instead of from the run's folder."""
    settings = json.loads(processor_config.read_text(encoding="utf-8"))
    if settings.get("collection") is None:
        raise ValueError(f"{processor_config} names no collection: save the processor again with its collection.")
    settings["collection"] = f"{org}/mint-collection"
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()


def _with_hub_base(adapter_config: Path, org: str) -> bytes:
    """The adapter's settings, its base read from the account instead of from the run's folder."""
    settings = json.loads(adapter_config.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = f"{org}/mint-base"
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()


def _space_upload(output_dir: str | os.PathLike, org: str) -> Upload:
    card = SpaceCard.load(SPACE / "README.md")
    settings = space_config(output_dir, f"{org}/")
    models = settings["models"]
    card.data.models = [models["model"], *models.get("adapters", {"gar": models.get("gar_model")}).values()]
    card.data.datasets = [f"{org}/mint-collection"]
    files = {
        "README.md": str(card).encode(),
        "app.py": SPACE / "app.py",
        "config.json": (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode(),
        "requirements.txt": SPACE / "requirements.txt",
    }
    return Upload(f"{org}/mint-demo", "space", files)


@dataclass
class PushArguments:
    """
    Arguments of `python -m hub_cards.push`, see [`push_run`].

    Args:
        org (`str`):
            User or organization on the Hub.
        run (`str`):
            Output folder of a run.
        private (`bool`, *optional*):
            Whether repositories that do not exist yet are private.
        revision (`str`, *optional*):
            Branch to commit to.
        commit_message (`str`, *optional*):
            First line of the commits.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open pull requests.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to print what would go where, and upload nothing.
    """

    org: str = field(metadata={"help": "User or organization on the Hub."})
    run: str = field(metadata={"help": "Output folder of a run, such as outputs/demo."})
    private: bool | None = field(default=None, metadata={"help": "Whether new repositories are private."})
    revision: str | None = field(default=None, metadata={"help": "Branch to commit to."})
    commit_message: str | None = field(default=None, metadata={"help": "First line of the commits."})
    create_pr: bool = field(default=False, metadata={"help": "Open pull requests."})
    dry_run: bool = field(default=False, metadata={"help": "Print what would go where, and upload nothing."})


def main() -> None:
    """Entry point of `python -m hub_cards.push`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    (arguments,) = HfArgumentParser(PushArguments).parse_args_into_dataclasses()
    uploads = push_run(
        arguments.run,
        arguments.org,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.commit_message,
        create_pr=arguments.create_pr,
        dry_run=arguments.dry_run,
    )
    for upload in uploads:
        print(upload)


if __name__ == "__main__":
    main()
