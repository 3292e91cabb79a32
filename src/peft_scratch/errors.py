"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake the user can mend; its message is one sentence: what is wrong, where, what to do.

    The command line prints the message alone and exits with status 2, a notebook shows it alone
    under the cell. Anything else that is raised is a defect of the kit.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack trace."""
        return [f"Stopped: {self}"]
