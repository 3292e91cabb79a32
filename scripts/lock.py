"""Print the exact versions of everything installed beside this Python, as `constraints.txt` holds them.

`make lock` runs it. A version that does not run on every Python that the kit supports gets a marker, so that
pip can choose another version on an older Python.
"""

from __future__ import annotations

from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

OLDEST = Version("3.11")
# The kit itself, and what is in every virtual environment anyway.
LEFT_OUT = {"peft-scratch", "pip", "setuptools", "wheel"}


def line(distribution: metadata.Distribution) -> str:
    """`name==version`, with a marker where the version asks for a Python newer than `OLDEST`."""
    # "+cpu" names a build, not a version: a user with a GPU must be able to install another build.
    version = distribution.version.partition("+")[0]
    lower = [
        Version(specifier.version)
        for specifier in SpecifierSet(distribution.metadata["Requires-Python"] or "")
        if specifier.operator == ">="
    ]
    newest = max(lower, default=OLDEST)
    marker = f' ; python_full_version >= "{newest}"' if newest > OLDEST else ""
    return f"{canonicalize_name(distribution.name)}=={version}{marker}"


def main() -> None:
    print("# Exact versions of everything, written by `make lock`; torch without its build (+cpu, +cu126).")
    installed = {canonicalize_name(found.name): found for found in metadata.distributions()}
    for name in sorted(installed.keys() - LEFT_OUT):
        print(line(installed[name]))


if __name__ == "__main__":
    main()
