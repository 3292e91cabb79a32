"""Upload an adapter folder or a merged model to the Hugging Face Hub. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from httpx import HTTPError
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from peft_scratch.errors import UserError
from peft_scratch.files import read_json

CARD_FILE = "README.md"
CONFIG_FILE = "adapter_config.json"
# The files that this kit writes into such a folder. Other files are not uploaded.
_FILES = (CARD_FILE, "*.json", "*.safetensors", "pytorch_adapter.bin", "spiece.model")


def push(folder: Path, name: str, *, public: bool = False) -> str:
    """Upload `folder` to the model repository `name`, which is created if needed.

    The token is the one that `hf auth login` or the environment variable HF_TOKEN gives. It is passed to the
    Hub only, and is neither printed nor written.

    Args:
        folder: as `convert` or `export_merged` wrote it, with its model card.
        name: `OWNER/NAME`.
        public: whether everybody can see a new repository; an existing one stays as it is.

    Returns:
        The address of the uploaded version.

    Raises:
        UserError: the folder is not such a folder, nobody is logged in, or the Hub refuses it.
    """
    if not (folder / CARD_FILE).is_file():
        raise UserError(f"{folder} has no {CARD_FILE}: make the folder with `peft-scratch convert`.")
    _refuse_local_base(folder)
    token = get_token()
    if token is None:
        raise UserError("Nobody is logged in to the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN.")
    try:
        api = HfApi(token=token)
        repository = api.create_repo(name, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message="Upload by peft-scratch",
        )
    except HFValidationError:
        raise UserError(f"{name!r} is not the name of a repository: give OWNER/NAME.") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids using the Hub: unset that environment variable.") from None
    except HfHubHTTPError as problem:
        status = problem.response.status_code if problem.response is not None else None
        raise UserError(_refused(name, status)) from None
    except (OSError, HTTPError) as problem:
        raise UserError(
            f"The Hugging Face Hub cannot be reached ({type(problem).__name__}): check the connection and "
            "run the same command again."
        ) from None
    return done.commit_url


def _refuse_local_base(folder: Path) -> None:
    """Raise a UserError if the folder's configuration names a base that only this machine has."""
    path = folder / CONFIG_FILE
    config = read_json(path) or {}
    base = config.get("base_model_name_or_path") or config.get("model_name")
    if base and Path(base).exists():
        raise UserError(
            f"{path} names the base {base}, a folder of this machine that nobody else can load: convert "
            "again with the base's name on the Hub as --base, or without --base."
        )


def _refused(name: str, status: int | None) -> str:
    if status == 401:
        return "The Hugging Face Hub does not accept the token: run `hf auth login` again."
    if status == 403:
        return (
            f"The Hugging Face Hub does not let you write to {name}: use your name, and a token for writing."
        )
    return f"The Hugging Face Hub did not take {name} (status {status}): try again later."
