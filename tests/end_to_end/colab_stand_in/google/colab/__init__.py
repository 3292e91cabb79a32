"""As much of Colab's own package as the notebooks call; folders stand for Drive and for downloads."""

from google.colab import _message, drive, files

__all__ = ["_message", "drive", "files"]
