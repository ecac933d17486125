"""An artefact: what one repository of the Hub is to hold, and its push."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from .hub_calls import call_hub

SHARDS = ("*.parquet", "*.safetensors", "*.safetensors.index.json")
"""Files that a push takes away where it does not bring them: an old shard would be read together with the new ones."""


@dataclass(frozen=True)
class Artefact:
    """
    What one repository of the Hub is to hold.

    Args:
        repo_id (`str`):
            Account and name, such as `"my-org/mint-rag"`.
        repo_type (`str`):
            `"model"`, `"dataset"` or `"space"`.
        files (`dict[str, Path | bytes]`):
            Path in the repository to the file on disk, or to the content where it differs from the file on disk.
        note (`str`):
            What it is, in a line.
    """

    repo_id: str
    repo_type: str
    files: dict[str, Path | bytes]
    note: str

    @property
    def card(self) -> str:
        """Text of its card."""
        return self.files["README.md"].decode()

    def push_to_hub(
        self,
        repo_id: str | None = None,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> CommitInfo:
        """
        Pushes it as one commit: a push that is cut leaves the repository as it was before, and the next one sends no
        large file again that has arrived.

        Files of the repository that the artefact does not have stay there, unless they are `SHARDS`.

        Args:
            repo_id (`str`, *optional*):
                Where to, if not to the artefact's own `repo_id`. Cards of other artefacts go on naming that one.
            private (`bool`, *optional*):
                Whether the repository is private if it does not exist yet. By default, what the account has set.
            revision (`str`, *optional*, defaults to the main branch):
                Branch to commit to; made where there is none.
            commit_message (`str`, *optional*, defaults to `"Push MINT run"`):
                First line of the commit.
            create_pr (`bool`, *optional*, defaults to `False`):
                Whether to open a pull request (against the main branch) instead of committing.

        Returns:
            [`~huggingface_hub.CommitInfo`]: the commit; the last one there is, if the repository holds all of it
            already.

        Raises:
            ValueError: both a `revision` and `create_pr` are asked for, or the Hub finds fault with the card.
            huggingface_hub.errors.HfHubHTTPError: the Hub refused.
        """
        if create_pr and revision is not None:
            raise ValueError("A pull request goes to the main branch: give a revision or ask for one, not both.")
        api, where = HfApi(), {"repo_id": repo_id or self.repo_id, "repo_type": self.repo_type}
        sdk = "gradio" if self.repo_type == "space" else None
        call_hub(api.create_repo, **where, private=private, space_sdk=sdk, exist_ok=True)
        if revision is not None:
            call_hub(api.create_branch, **where, branch=revision, exist_ok=True)
        present = call_hub(api.list_repo_files, **where, revision=revision)
        stale = [path for path in present if path not in self.files and _is_shard(path)]
        return call_hub(
            api.create_commit,
            **where,
            operations=[
                *(CommitOperationAdd(path, content) for path, content in self.files.items()),
                *(CommitOperationDelete(path) for path in stale),
            ],
            commit_message=commit_message or "Push MINT run",
            revision=revision,
            create_pr=create_pr,
        )

    def __str__(self) -> str:
        sizes = {
            path: len(content) if isinstance(content, bytes) else content.stat().st_size
            for path, content in self.files.items()
        }
        lines = [f"{self.repo_type} {self.repo_id}: {len(sizes)} files, {sum(sizes.values()):,} bytes"]
        return "\n".join(lines + [f"  {path} ({size:,} bytes)" for path, size in sizes.items()])


def visible_files(folder: Path) -> dict[str, Path]:
    """Files of a folder by their path in the repository, without hidden ones and bytecode."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        relative.as_posix(): path
        for relative, path in paths.items()
        if not any(part.startswith((".", "__pycache__")) for part in relative.parts)
    }


def as_json(settings: dict[str, Any]) -> bytes:
    """Content of a settings file."""
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()


def _is_shard(path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in SHARDS)
