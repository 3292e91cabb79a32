"""Downloads: copies in the folder that stands for the browser's."""

import os
import shutil


def download(filename: str) -> None:
    """Copy a file to where downloads go."""
    shutil.copy(filename, os.environ["STAND_IN_DOWNLOADS"])
