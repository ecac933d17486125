"""Pushes every artefact of a run to the Hub: the collection, the training data, both full models, two adapters and
their base, where the run has them, the docid search, the metrics, the demo Space, and a Collection of all of them.

```bash
python -m hub_cards.push --org my-org --run outputs/demo --dry_run
```
"""

import logging
import os
import sys
from dataclasses import asdict, dataclass, field

from httpx2 import HTTPError
from huggingface_hub import RepoCard, get_token
from transformers import HfArgumentParser

from .artefacts import Artefact
from .collection import tie_together
from .hub_calls import call_hub, explain
from .plan import plan_push

logger = logging.getLogger(__name__)


class PushError(OSError):
    """A push that ended early: says what was pushed, what was not, why, and what helps."""


def push_run(
    run: str | os.PathLike,
    org: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
) -> list[Artefact]:
    """
    Pushes every artefact of a run, each as one commit: a push that is cut leaves a repository as it was before, and
    pushing again finishes it.

    The run folder stays untouched. What differs on the Hub is made on the way: cards name the account's repositories,
    and the processors read the collection from the Hub instead of from the folder beside them.

    Args:
        run (`str` or `os.PathLike`):
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
            Whether to open pull requests instead of committing. The account's Collection then stays as it is.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to upload nothing and only return what would go where.

    Returns:
        `list[Artefact]`: what went (or would go) where.

    Raises:
        FileNotFoundError: the run is not complete.
        ValueError: `run.json` lacks a fact that a card states, the Hub finds fault with a card, or both a `revision`
            and `create_pr` are asked for.
        PermissionError: there is no token.
        PushError: the Hub refused, or the connection was lost.
    """
    if create_pr and revision is not None:
        raise ValueError("Pull requests go to the main branch: give --revision or --create_pr, not both.")
    artefacts = plan_push(run, org)
    if dry_run:
        return artefacts
    if get_token() is None:
        raise PermissionError("No Hugging Face token: run `hf auth login`, or set HF_TOKEN. Nothing was uploaded.")
    pushed: list[str] = []
    try:
        for artefact in artefacts:
            try:
                call_hub(RepoCard(artefact.card).validate, artefact.repo_type)
            except ValueError as error:
                raise ValueError(f"The Hub refuses the card of {artefact.repo_id}: {error}") from error
        for artefact in artefacts:
            commit = artefact.push_to_hub(
                private=private, revision=revision, commit_message=commit_message, create_pr=create_pr
            )
            logger.info("Pushed %s", commit.pr_url or commit.commit_url)
            pushed.append(artefact.repo_id)
        if not create_pr:
            logger.info("Collection %s", tie_together(artefacts, org, bool(private)).url)
    except (HTTPError, RuntimeError) as error:
        missing = [artefact.repo_id for artefact in artefacts if artefact.repo_id not in pushed]
        raise PushError(
            f"{explain(error)} Pushed: {', '.join(pushed) or 'nothing'}. "
            f"Not pushed, and as it was before: {', '.join(missing) or 'the Collection'}. "
            "The same command goes on from here."
        ) from error
    return artefacts


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
    """Entry point of `python -m hub_cards.push`; a fault of the run, the account or the Hub is told in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    (arguments,) = HfArgumentParser(PushArguments).parse_args_into_dataclasses()
    try:
        artefacts = push_run(**asdict(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for artefact in artefacts:
        print(artefact)


if __name__ == "__main__":
    main()
