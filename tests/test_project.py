"""The repository as a whole: one address, versions that agree, notebooks fit to be read."""

import importlib
import importlib.util
import json
import re
import shutil
import stat
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from peft_scratch.paths import OFFLINE_BASE, ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))


def _script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lines(path):
    return [line.partition("#")[0].strip() for line in path.read_text().splitlines()]


def _code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


# The address


def _addresses(text):
    found = re.findall(r"github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?(?=[\"\s)/\\]|$)", text, re.MULTILINE)
    return {address.removeprefix("github/") for address in found} | set(
        re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/", text)
    )


def test_readme_and_notebooks_have_the_address_of_pyproject():
    script = _script("address")
    address = script.address((ROOT / "pyproject.toml").read_text())
    # Until a real one is set, a reader sees none at all.
    assert _addresses((ROOT / "README.md").read_text()) == ({address} - {script.UNSET})
    for path in NOTEBOOKS:
        assert _addresses(path.read_text()) == ({address} - {script.UNSET}), path.name


def _copy_of_the_project(folder):
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    script = _script("address")
    script.ROOT = folder
    return script


def test_make_address_changes_every_place(tmp_path):
    script = _copy_of_the_project(tmp_path)
    before = (tmp_path / "README.md").read_text()
    script.main(["some-one/a.fork"])
    assert script.address((tmp_path / "pyproject.toml").read_text()) == "some-one/a.fork"
    readme = (tmp_path / "README.md").read_text()
    assert "git clone https://github.com/some-one/a.fork\ncd a.fork\n" in readme
    colab = "https://colab.research.google.com"
    assert readme.count(f"[![Colab]]({colab}/github/some-one/a.fork/") == len(NOTEBOOKS)
    assert readme.count(f"\n\n[Colab]: {colab}/assets/colab-badge.svg\n") == 1
    for path in (tmp_path / "README.md", *(tmp_path / "notebooks").glob("*.ipynb")):
        assert _addresses(path.read_text()) == {"some-one/a.fork"}, path.name
        if path.suffix == ".ipynb":
            first = json.loads(path.read_text())["cells"][0]["source"]
            assert first[0].endswith(f"/some-one/a.fork/blob/main/notebooks/{path.name})\n")
            assert first[2].startswith("# ")
    script.main([script.UNSET])
    assert (tmp_path / "README.md").read_text() == before
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        assert json.loads(path.read_text()) == json.loads((ROOT / "notebooks" / path.name).read_text())
        assert not _addresses(path.read_text())


def test_a_long_address_leaves_the_readme_short(tmp_path):
    script = _copy_of_the_project(tmp_path)
    script.main([f"{'o' * 20}/{'n' * 19}"])
    assert len((tmp_path / "README.md").read_bytes()) < 9_000


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/some-one/a.fork.git",
        "git@github.com:some-one/a.fork.git",
        "https://github.com/some-one/a.fork",
    ],
)
def test_the_address_is_the_remote_s_by_default(tmp_path, remote):
    script = _copy_of_the_project(tmp_path)
    for command in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert script.asked([]) == "some-one/a.fork"


def test_without_a_remote_the_address_has_to_be_given(tmp_path):
    script = _script("address")
    script.ROOT = tmp_path
    with pytest.raises(SystemExit, match="no remote `origin`: run `make address REPOSITORY=owner/name`"):
        script.asked([])
    with pytest.raises(SystemExit, match="is not an address on GitHub"):
        script.asked(["https://elsewhere.org/a/b"])


def test_the_readme_is_short_and_its_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), OFFLINE_BASE / "README.md"):
        text = page.read_text(encoding="utf-8")
        if page.parent == ROOT:
            assert len(text.encode()) <= 9_000
            assert "OWNER" not in text
        for link in re.findall(r'(?:\]\(|src=")([^)"#]+)', text):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(program.strip().splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    program = program.replace("google-t5/t5-small", str(OFFLINE_BASE)).replace("range(20)", "range(2)")
    names = {}
    exec(compile(program, "README.md", "exec"), names)
    names["unmerge"] = importlib.import_module("peft_scratch").unmerge
    names["unmerge"](names["model"])
    names["load_delta"](names["model"], "lora.pt")


def test_an_address_that_is_not_set_is_reported():
    with pytest.raises(SystemExit, match="must set Repository"):
        _script("address").address("[project]\nname = 'x'\n")


# Versions


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_the_exact_versions_are_within_the_ranges(path):
    exact = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in map(Requirement, filter(None, _lines(ROOT / "constraints.txt")))
    }
    for requirement in map(Requirement, filter(None, _lines(path))):
        (pinned,) = exact.get(canonicalize_name(requirement.name), requirement.specifier)
        assert requirement.specifier.contains(pinned.version), requirement


def test_every_requirement_says_who_needs_it():
    for path in REQUIREMENTS:
        for line in path.read_text().splitlines():
            assert line.startswith("#") or re.search(r"\S\s+# \w", line), f"{path.name}: {line}"


def test_the_exact_torch_is_no_particular_build():
    (torch,) = [line for line in _lines(ROOT / "constraints.txt") if line.startswith("torch==")]
    assert "+" not in torch


def test_the_lock_names_no_build_and_marks_what_older_pythons_cannot_have():
    class Distribution:
        version = "2.13.0+cpu"
        name = "Some_Package"

        def __init__(self, python):
            self.metadata = {"Requires-Python": python}

    line = _script("lock").line
    assert line(Distribution(">=3.9")) == line(Distribution(None)) == "some-package==2.13.0"
    marked = 'some-package==2.13.0 ; python_full_version >= "3.11.5"'
    assert line(Distribution("!=3.14.1,>=3.11.5")) == marked


# What readers and machines see


def test_ci_runs_make_test_then_make_colab():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().splitlines()[1:] == ["set -euo pipefail", "make test", "make colab"]


def test_there_are_five_notebooks_in_order():
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_", "05_"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_cells_are_short_and_define_no_layer(self, path):
        for cell in _code_cells(path):
            source = "".join(cell["source"])
            assert len(source.splitlines()) <= 30, source
            assert not re.search(r"^class ", source, re.MULTILINE), source

    def test_one_parameters_cell_holds_the_defaults(self, path):
        (cell,) = [cell for cell in _code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
        assert "".join(cell["source"]).split("\n") == [
            'PROFILE = "auto"',
            "SEED = 0",
            "OUTPUT = None",
            'RECIPE = "fast"',
            "DRIVE = True",
        ]

    def test_the_set_up_cell_comes_first_and_is_everywhere_the_same(self, path):
        assert _code_cells(path)[0]["source"] == _code_cells(NOTEBOOKS[0])[0]["source"]

    def test_colab_opens_it_on_a_gpu_with_the_set_up_folded(self, path):
        metadata = json.loads(path.read_text())["metadata"]
        assert (metadata["accelerator"], metadata["colab"]["gpuType"]) == ("GPU", "T4")
        first = _code_cells(path)[0]
        assert first["source"][0] == "# @title Set up\n"
        assert first["metadata"]["cellView"] == "form"

    def test_the_last_cell_hands_in(self, path):
        assert _code_cells(path)[-1]["source"] == [f"hand_in(session, notebook={int(path.name[:2])})"]

    def test_it_was_executed_in_order_and_without_error(self, path):
        cells = _code_cells(path)
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert "error" not in {output["output_type"] for output in outputs}
        assert "stderr" not in {output.get("name") for output in outputs}  # a warning

    def test_it_is_clean(self, path):
        notebook = json.loads(path.read_text())
        assert not {"widgets", "papermill"} & set(notebook["metadata"])
        for cell in notebook["cells"]:
            assert not {"papermill", "execution"} & set(cell["metadata"])
        kept = json.dumps([cell.get("outputs", []) for cell in notebook["cells"]])
        assert not re.search(r"/(home|root|Users|tmp|content|usr|opt)/\w", kept)
        assert str(ROOT) not in kept
