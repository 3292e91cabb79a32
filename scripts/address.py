"""Write the repository's address from pyproject.toml into the README and the notebooks.

`make address` runs it. The address stands in badges, in the clone command and in the notebooks'
set-up cell; `project.urls.Repository` is the one place where it is set.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What comes before an address, and the address: `owner/name` on GitHub.
PLACES = re.compile(
    r'(REPOSITORY = \\?"https://github\.com/|colab\.research\.google\.com/github/|git clone https://github\.com/)'
    r"([\w.-]+/[\w.-]+)"
)


def address(pyproject: str) -> str:
    """`owner/name`, as the text of pyproject.toml sets it."""
    found = re.search(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', pyproject, re.MULTILINE)
    if found is None:
        raise SystemExit(
            "pyproject.toml must set Repository under [project.urls], as https://github.com/owner/name."
        )
    return found[1]


def rewritten(text: str, owner_and_name: str) -> str:
    """`text` with every address in it replaced."""
    return PLACES.sub(lambda match: match[1] + owner_and_name, text)


def main() -> None:
    owner_and_name = address((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for path in (ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))):
        text = path.read_text(encoding="utf-8")
        path.write_text(rewritten(text, owner_and_name), encoding="utf-8")


if __name__ == "__main__":
    main()
