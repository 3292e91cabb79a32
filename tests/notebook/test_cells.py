"""The notebooks' cells in any order: twice, interrupted, in a new kernel, skipped; on a tiny base."""

import ast
import json

import matplotlib.pyplot as plt
import pytest
import torch
from test_kills import outcome
from tiny_bench import made_up_reviews, tiny_profile

from peft_scratch.assignment import PROFILES, RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments import session as workbench
from peft_scratch.experiments.session import Session
from peft_scratch.paths import ROOT
from peft_scratch.training import device
from peft_scratch.training.trainer import Trainer

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = [
    pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem),
    pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive"),
]


class Notebook:
    """The code cells of a notebook and the names they share, as a kernel has them."""

    def __init__(self, path, output):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.cells = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        (parameters,) = [n for n, cell in enumerate(self.cells) if cell.startswith("PROFILE = ")]
        names = "PROFILE, SEED, OUTPUT, RECIPE, DRIVE"
        self.cells[parameters] = f"{names} = 'smoke', 0, {str(output)!r}, 'fast', True"
        self.names = {}

    def run(self, cell):
        exec(compile(cell, "<cell>", "exec"), self.names)


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """Let `smoke` be a profile that trains in a second."""
    plt.switch_backend("agg")
    monkeypatch.setitem(PROFILES, "smoke", tiny_profile(tmp_path))
    monkeypatch.setattr(workbench, "load_reviews", lambda _: made_up_reviews(test=40))
    monkeypatch.setattr(device, "precision_of", lambda: (torch.float32, "float32, for a test"))
    yield
    plt.close("all")


def _straight(path, output):
    """What the runs of the notebook at `path` leave when nothing happens to them."""
    bench = Session.open("smoke", output=output)
    for run in RUNS.values():
        if run.notebook == int(path.name[:2]):
            bench.prepare(run.id).train()
    return outcome(output)


def test_each_cell_twice_one_interrupted_then_all_in_a_new_kernel(path, tmp_path, monkeypatch):
    calls = []
    train_epoch = Trainer.train_epoch

    def interrupted_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(Trainer, "train_epoch", interrupted_once)
    notebook = Notebook(path, tmp_path / "twice")
    interrupted = 0
    for cell in notebook.cells:
        for _ in range(2):
            try:
                notebook.run(cell)
            except KeyboardInterrupt:
                interrupted += 1
                notebook.run(cell)
    assert interrupted == 1
    found = outcome(tmp_path / "twice")

    def again(*arguments):
        raise AssertionError("a finished run is trained again")

    monkeypatch.setattr(Trainer, "train_epoch", again)
    restarted = Notebook(path, tmp_path / "twice")  # no name is left, the folder is
    for cell in restarted.cells:
        restarted.run(cell)
    assert outcome(tmp_path / "twice") == found

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    expected = _straight(path, tmp_path / "straight")
    assert expected.keys() <= found.keys()
    for name, content in expected.items():
        assert found[name] == content, f"{name} differs"


def test_what_needs_a_skipped_cell_says_so_and_runs_after_it(path, tmp_path):
    notebook = Notebook(path, tmp_path / "skipped")
    skipped = [cell for cell in notebook.cells if ".train()" in cell]
    assert skipped
    missing = {name for cell in skipped for name in _bound(cell)}
    waiting = []
    for cell in notebook.cells:
        if cell in skipped:
            continue
        try:
            notebook.run(cell)
        except NameError as error:
            assert error.name in missing, cell
        except UserError:
            pass
        except AssertionError as error:
            assert "run the cell" in str(error), cell
        else:
            continue
        missing |= _bound(cell)
        waiting.append(cell)
    assert waiting, "nothing noticed that the training was skipped"
    for cell in (*skipped, *waiting):
        notebook.run(cell)


def _bound(cell):
    """The names that `cell` gives a value."""
    nodes = ast.walk(ast.parse(cell))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
