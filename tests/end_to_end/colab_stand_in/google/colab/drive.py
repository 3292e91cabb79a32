"""Google Drive: a folder that several machines share."""

from pathlib import Path

_really_mounted = Path.is_mount


def mount(mountpoint: str, force_remount: bool = False) -> None:
    """From now on, `mountpoint` is a mount with `MyDrive` in it."""
    (Path(mountpoint) / "MyDrive").mkdir(parents=True, exist_ok=True)
    Path.is_mount = lambda self: str(self) == mountpoint or _really_mounted(self)
    print(f"Mounted at {mountpoint}")
