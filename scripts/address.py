"""Set the repository's address in pyproject.toml, the badges of README and notebooks, and the set-up cells.

`make address` runs it. The address is that of this checkout's remote `origin`, or `REPOSITORY=owner/name`.
Until it is set there is no badge and no clone command, and the README says how to upload a notebook.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What pyproject.toml and the set-up cells hold until an address is set.
UNSET = "OWNER/peft-scratch"
_ADDRESS = re.compile(r"(?:https://github\.com/|git@github\.com:|^)([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_SET = re.compile(r'^(Repository = "https://github\.com/)([\w.-]+/[\w.-]+)(")$', re.MULTILINE)

NOTEBOOKS = {
    "01_full_fine_tuning": ("1 Full fine-tuning", "1, and the baselines"),
    "02_soft_prompt": ("2 Soft prompt", "3: from scratch; OpenDelta, N = 1 and 10"),
    "03_adapter": ("3 Adapter", "1: from scratch"),
    "04_adapter_library": ("4 Adapter, library", "2: AdapterHub, b = 1 and 8"),
    "05_lora": ("5 LoRA", "3: from scratch; PEFT, r = 1 and 8"),
}


def address(pyproject: str) -> str:
    """`owner/name`, as the text of pyproject.toml sets it."""
    found = _SET.search(pyproject)
    if found is None:
        raise SystemExit(
            "pyproject.toml must set Repository under [project.urls], as https://github.com/owner/name."
        )
    return found[2]


def asked(arguments: list[str]) -> str:
    """`owner/name`: as given, otherwise that of the remote `origin`."""
    if arguments:
        text = arguments[0]
    else:
        command = ["git", "remote", "get-url", "origin"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        text = done.stdout.strip()
        if done.returncode:
            raise SystemExit(
                "This checkout has no remote `origin`: run `make address REPOSITORY=owner/name`."
            )
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise SystemExit(f"{text!r} is not an address on GitHub: run `make address REPOSITORY=owner/name`.")
    return found[1]


_COLAB = "https://colab.research.google.com"
_BADGE = f"{_COLAB}/assets/colab-badge.svg"


def badge(owner_and_name: str, notebook: str, image: str = f"![Open in Colab]({_BADGE})") -> str:
    """The badge that opens a notebook in Colab; nothing until an address is set."""
    if owner_and_name == UNSET:
        return ""
    return f"[{image}]({_COLAB}/github/{owner_and_name}/blob/main/notebooks/{notebook}.ipynb)"


def readme(text: str, owner_and_name: str) -> str:
    """The README with its table of notebooks and its first command for this address."""
    unset = owner_and_name == UNSET
    rows = [
        f"| [{title}](notebooks/{name}.ipynb) | {numbers} | {badge(owner_and_name, name, '![Colab]')} |"
        for name, (title, numbers) in NOTEBOOKS.items()
    ]
    # The image's address stands once, below the table, so that a long owner/name keeps the page short.
    image = [] if unset else ["", f"[Colab]: {_BADGE}"]
    table = "\n".join(["| notebook | numbers | |", "|---|---|---|", *rows, *image])
    get = (
        "# download peft-scratch, unpack it, then:"
        if unset
        else f"git clone https://github.com/{owner_and_name}"
    )
    commands = f"""```
{get}
cd {owner_and_name.partition("/")[2]}
make run     # install into .venv, execute the five notebooks, make the report
make test    # lint and tests, without network or GPU
```"""
    return _between(_between(text, "notebooks", table), "commands", commands)


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}: written by `make address` -->", f"<!-- /{name} -->"
    before, start, rest = text.partition(start)
    _, end, after = rest.partition(end)
    if not start or not end:
        raise SystemExit(f"The README lacks its markers {name!r}: put them back.")
    return f"{before}{start}\n{content}\n{end}{after}"


def notebook(text: str, owner_and_name: str, name: str) -> str:
    """A notebook's JSON with its badge and its set-up cell for this address."""
    content = json.loads(text)
    title = content["cells"][0]["source"]
    if title[0].startswith("[![Open in Colab]"):
        del title[:2]
    if found := badge(owner_and_name, name):
        title[:0] = [f"{found}\n", "\n"]
    cloned = "" if owner_and_name == UNSET else f"https://github.com/{owner_and_name}"
    for cell in content["cells"]:
        cell["source"] = [
            re.sub(r'^(REPOSITORY = ")[^"]*(")', rf"\g<1>{cloned}\2", line) for line in cell["source"]
        ]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    chosen = asked(arguments)
    pyproject = ROOT / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    address(text)
    pyproject.write_text(_SET.sub(rf"\g<1>{chosen}\3", text), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8"), chosen), encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        path.write_text(notebook(path.read_text(encoding="utf-8"), chosen, path.stem), encoding="utf-8")
    print(f"The address is https://github.com/{chosen} now.")


if __name__ == "__main__":
    main(sys.argv[1:])
