"""Files of the Hugging Face Hub: where local copies are, and why something cannot be loaded."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from datasets import config as datasets_config
from datasets.exceptions import DatasetNotFoundError
from httpx import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from requests import RequestException

from peft_scratch.assignment import REVISIONS
from peft_scratch.errors import UserError
from peft_scratch.files import REFUSED
from peft_scratch.paths import BY_HAND, ROOT

#: What is loaded, in words; its kind of repository on the Hub; the files that are needed.
MODEL = ("base model", "model", "config.json, model.safetensors, tokenizer.json and tokenizer_config.json")
REVIEWS = ("reviews", "dataset", "the parquet files of train and test")


def place(name: str) -> str:
    """What to load `name` from: the folder of that name in `BY_HAND` if there is one, else the Hub.

    An absolute path, such as the offline base's, stays as it is.
    """
    folder = BY_HAND / name
    return str(folder) if folder.is_dir() else name


def revision(name: str) -> str:
    """Which version of `name` to load: the one that is pinned, or `main`, which a folder ignores."""
    return REVISIONS.get(name, "main")


def failure(kind: tuple[str, str, str], name: str, problem: Exception) -> UserError:
    """The error to show for a `problem` with loading `kind` (`MODEL` or `REVIEWS`) called `name`."""
    what, repo_type, files = kind
    page = f"https://huggingface.co/{'datasets/' * (repo_type == 'dataset')}{name}"
    by_hand = BY_HAND.relative_to(ROOT) / name
    cause, remedy = _cause(name, repo_type, page, problem)
    version = "main" if _within(problem, RevisionNotFoundError) else revision(name)
    return UserError(
        f"The {what} {name!r} cannot be loaded, because {cause}: {remedy}; or use the offline profile; or "
        f"download {files} from {page}/tree/{version} in a browser and put them into {by_hand} in the "
        "project."
    )


def _cause(name: str, repo_type: str, page: str, problem: Exception) -> tuple[str, str]:
    """The cause, and what to do about it."""
    within = functools.partial(_within, problem)
    # Only the message of datasets says that a repository is gated.
    if within(GatedRepoError) or "gated" in str(within(DatasetNotFoundError)):
        return (
            "the Hugging Face Hub gives it only to accounts that have permission",
            f"ask for it on {page} and log in with `hf auth login`",
        )
    if within(RevisionNotFoundError):  # first, because datasets also raises DatasetNotFoundError for it
        return (
            f"the Hugging Face Hub does not have its version {revision(name)}, which this kit names in "
            "src/peft_scratch/assignment.py, under REVISIONS",
            f"take a newer release of this kit, or write there a version that {page}/commits/main lists",
        )
    if within(RepositoryNotFoundError, DatasetNotFoundError):
        return (
            "the Hugging Face Hub has nothing of that name, or no longer has it",
            f"see on {page} whether it was renamed, or take a newer release of this kit",
        )
    for link in _chain(problem):
        if isinstance(link, OSError) and link.errno in REFUSED:
            return (
                f"its files cannot be written to {constants.HF_HOME} ({link.strerror})",
                "free some space, or set the environment variable HF_HOME to a folder that has room",
            )
    if constants.HF_HUB_OFFLINE and within(LocalEntryNotFoundError, ConnectionError):
        return (
            "HF_HUB_OFFLINE forbids downloading it and there is no complete copy here",
            "unset that environment variable",
        )
    missing = within(EntryNotFoundError)
    if missing and not isinstance(missing, LocalEntryNotFoundError):
        return (
            f"a file that is needed is not on the Hugging Face Hub ({type(missing).__name__})",
            f"see on {page} what has changed, or take a newer release of this kit",
        )
    network = within(LocalEntryNotFoundError, ConnectionError, TimeoutError, RequestException, HTTPError)
    if network or "on the Hugging Face Hub either" in str(problem):  # again only the message of datasets
        kind = type(network or problem).__name__
        return (
            f"the Hugging Face Hub does not deliver it ({kind}) and there is no complete copy here",
            "check the connection and run again (complete files are kept)",
        )
    first = (str(problem).strip().splitlines() or [""])[0].rstrip(".")
    return (
        f"a file of it is damaged or missing ({type(problem).__name__}: {first})",
        f"delete {' and '.join(map(str, _copies(name, repo_type)))} and run again",
    )


def _copies(name: str, repo_type: str) -> list[Path]:
    """The folders that hold local copies of `name`."""
    if place(name) != name:
        return [Path(place(name))]
    copies = [Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=repo_type)]
    if repo_type == "dataset":  # datasets also keeps a converted copy
        copies.append(Path(datasets_config.HF_DATASETS_CACHE) / name.replace("/", "___"))
    return copies


def _within(problem: Exception, *kinds: type[Exception]) -> Exception | None:
    """The first exception of one of `kinds` among `problem` and its causes."""
    return next((link for link in _chain(problem) if isinstance(link, kinds)), None)


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    """`problem` and its causes, as a traceback would show them."""
    while problem is not None:
        yield problem
        problem = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
