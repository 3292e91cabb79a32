"""The one exception that a user's mistake raises."""

from __future__ import annotations

import re

# As transformers says it when it is imported.
_REPLACED = re.compile(
    r"^(\S+) is required for a normal functioning of this module, but found (\S+?)\.?$", re.M
)


class UserError(Exception):
    """A mistake that the user can correct; its message is one sentence: what is wrong, where, what to do.

    The command line prints only the message and exits with status 2; a notebook shows only the message
    under the cell. Anything else that is raised is a defect of the kit.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack trace."""
        return [f"Stopped: {self}"]


def replaced_package(problem: ImportError) -> UserError | None:
    """What to do if transformers cannot be imported because a package it needs was replaced later.

    For example, installing gradio can raise huggingface_hub to a version that transformers refuses.
    Returns `None` for any other `problem`.
    """
    found = _REPLACED.search(str(problem))
    return found and UserError(
        f"{found[2]} does not work with the installed transformers, which needs {found[1]}; a later "
        f'installation has replaced it: run `pip install "{found[1]}"`, restart the notebook\'s kernel if '
        "there is one, and try again."
    )
