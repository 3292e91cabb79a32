"""`make publish`: a finished offline run comes into the repository whole, and nothing else does."""

import json
import random
import shutil

import pytest
from typer.testing import CliRunner

from peft_scratch import publish as publishing
from peft_scratch.assignment import BASELINES, RUNS
from peft_scratch.cli import app
from peft_scratch.errors import UserError
from peft_scratch.experiments.settings import fingerprint
from peft_scratch.paths import NOTEBOOKS, ROOT
from peft_scratch.publish import END, START, publish
from peft_scratch.results import read_results
from peft_scratch.seeds import read_seeds


@pytest.fixture
def output(tmp_path):
    """An output folder as the offline run that is published now left it."""
    folder = tmp_path / "out"
    for name in ("results", "small_data"):
        if (ROOT / "report" / name).is_dir():
            shutil.copytree(ROOT / "report" / name, folder / "report" / name)
    (folder / "weights").mkdir()
    for path in (ROOT / "weights").glob("*.pt"):
        shutil.copy(path, folder / "weights")
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return folder


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text(f"# Kit\n\n{START}\nold\n{END}\n\nmore\n")
    for old in (
        "report/figures/gone.png",
        "weights/old.pt",
        "report/exactness.json",
        "weights/base/config.json",
    ):
        (folder / old).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).write_text("old")
    return folder


def _report(folder):
    """In place of the report, which takes half a minute."""
    for name in ("report.pdf", "report.fa.pdf", "tables/numbers.md", "figures/accuracy.png"):
        (folder / "report" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "report" / name).write_text(name)


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_put_where_readers_look(output, repository):
    (output / "report" / "report.pdf").write_bytes(b"with somebody's name in its head")
    (output / "runs").mkdir()
    (output / "runs" / "epoch-0001.pt").write_bytes(b"unfinished")
    changed = publish(output, _report, repository)
    there = _files(repository)
    for folder in ("report/results", "report/small_data", "weights", "notebooks"):
        for path in (output / folder).glob("*.*"):
            assert there[f"{folder}/{path.name}"] == path.read_bytes()
    assert there["report/report.pdf"] == b"report.pdf", "the PDF is made again, so that it names nobody"
    assert there["report/figures/accuracy.png"] == b"figures/accuracy.png"
    assert not {"report/figures/gone.png", "weights/old.pt"} & there.keys(), "what is not of the run is gone"
    assert {"report/exactness.json", "weights/base/config.json"} < there.keys(), "what no run makes is kept"
    assert not any("epoch" in name for name in there)
    readme = there["README.md"].decode()
    assert readme.startswith("# Kit\n\n") and readme.endswith(f"{END}\n\nmore\n")
    results = read_results(output / "report" / "results")
    for run in RUNS.values():
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| {run.title} |")]
        low, high = run.published
        assert f"| {low} to {high} | {results[run.id].percent:.1f} |" in row
    assert all(title in readme for title in BASELINES.values())
    assert {str(path.relative_to(repository)) for path in changed} >= {"README.md", "weights/old.pt"}
    assert publish(output, _report, repository) == [], "a second time, nothing changes"


def _without(name):
    def spoil(output):
        for path in output.rglob(name):
            path.unlink()

    return spoil


def _changed(name, **changes):
    def spoil(output):
        path = output / "report" / "results" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def _notebook(change):
    def spoil(output):
        path = output / "notebooks" / "03_adapter.ipynb"
        notebook = json.loads(path.read_text())
        change([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
        path.write_text(json.dumps(notebook))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_without("full.json"), "results lacks full"),
        (_without("bag_of_words.json"), "results lacks bag_of_words"),
        (_without("adapter.pt"), "weights lacks adapter.pt"),
        (_without("05_lora.ipynb"), "05_lora.ipynb was not executed"),
        (lambda output: shutil.rmtree(output / "report" / "small_data"), "small_data lacks full"),
        (_changed("lora_peft_r1.json", profile="course"), "lora_peft_r1 is of the profile course"),
        (_changed("lora_peft_r1.json", fingerprint="00000000"), "lora_peft_r1 is not of seed 0"),
        (
            _notebook(lambda cells: cells[2].update(execution_count=None)),
            "03_adapter.ipynb was not executed from top to bottom",
        ),
        (
            _notebook(lambda cells: cells[2]["metadata"].update(tags=["injected-parameters"])),
            "03_adapter.ipynb was executed with parameters",
        ),
        (
            _notebook(
                lambda cells: cells[2]["outputs"].append(
                    {"output_type": "stream", "name": "stdout", "text": "/home/ada/kit"}
                )
            ),
            "03_adapter.ipynb names a folder of this machine (/home/a",
        ),
        (
            _notebook(
                lambda cells: cells[2]["outputs"].append(
                    {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
                )
            ),
            "03_adapter.ipynb ended in an error",
        ),
    ],
)
def test_what_is_not_finished_is_refused_and_nothing_written(output, repository, spoil, sentence):
    spoil(output)
    before = _files(repository)
    with pytest.raises(UserError) as raised:
        publish(output, _report, repository)
    assert f"cannot be published: {sentence}" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert _files(repository) == before


def test_the_readme_holds_the_table_once_however_often_it_is_written(output):
    results = read_results(output / "report" / "results")
    once = publishing.with_numbers(f"before\n{START}\nold\n{END}\nafter\n", results)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert f"{results['full'].percent:.1f}" in once
    assert publishing.with_numbers(once, results) == once


def test_a_readme_without_markers_is_refused(output):
    with pytest.raises(UserError, match="lacks its markers"):
        publishing.with_numbers("# Kit", read_results(output / "report" / "results"))


def test_the_readme_has_the_markers_and_the_published_numbers():
    readme = (ROOT / "README.md").read_text()
    results = read_results(ROOT / "report" / "results")
    seeds = read_seeds(ROOT / "report")
    assert publishing.with_numbers(readme, results, seeds) == readme, "run `make publish`"


# Further seeds


def _train(output, seeds):
    """Stand-ins for the results of further seeds: other mistakes and fingerprints than the first seed's."""
    for name in RUNS:
        first = json.loads((output / "report" / "results" / f"{name}.json").read_text())
        for seed in seeds:
            config = {**first["config"], "seed": seed}
            mistakes = random.Random(f"{name} {seed}").sample(range(first["reviews"]["test"]), 180 + seed)
            further = {
                **first,
                "config": config,
                "fingerprint": fingerprint(config),
                "mistakes": sorted(mistakes),
                "accuracy": {**first["accuracy"], "best": 1 - len(mistakes) / first["reviews"]["test"]},
            }
            path = output / "report" / "seeds" / str(seed) / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(further))


def test_further_seeds_are_published_as_one_small_file(output, repository):
    _train(output, range(1, 10))
    publish(output, _report, repository)
    file = repository / "report" / "seeds.json"
    assert file.stat().st_size < 600 * 90, "six hundred bytes per run and seed"
    assert read_seeds(file.parent) == read_seeds(output / "report"), "nothing that is compared is lost"
    assert not (repository / "report" / "seeds").exists()
    (row,) = [
        line for line in (repository / "README.md").read_text().splitlines() if "LoRA, PEFT, r = 1" in line
    ]
    ours = [100 * read_results(output / "report" / "results")["lora_peft_r1"].accuracy.best]
    ours += [100 - (180 + seed) / 10 for seed in range(1, 10)]
    assert f"| {sum(ours) / 10:.1f} ± " in row
    assert publish(output, _report, repository) == []


def test_a_run_of_one_seed_keeps_the_published_seeds_of_its_base_alone(output, repository):
    _train(output, [1, 2])
    publish(output, _report, repository)
    kept = (repository / "report" / "seeds.json").read_bytes()
    shutil.rmtree(output / "report" / "seeds")
    assert publish(output, _report, repository) == []
    text = kept.decode()
    (repository / "report" / "seeds.json").write_text(text.replace('"fingerprint": "', '"fingerprint": "x'))
    publish(output, _report, repository)
    assert not (repository / "report" / "seeds.json").exists(), "of another base or other constants"


def _lose_one(output):
    (output / "report" / "seeds" / "2" / "full.json").unlink()


def _of_another_base(output):
    path = output / "report" / "seeds" / "2" / "full.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "00000000"}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_lose_one, "seed 2 lacks full; run `peft-scratch"),
        (_of_another_base, "seeds holds results of another base"),
    ],
)
def test_seeds_that_are_not_whole_or_of_another_base_are_refused(output, repository, spoil, sentence):
    _train(output, [1, 2])
    spoil(output)
    before = _files(repository)
    with pytest.raises(UserError, match=sentence):
        publish(output, _report, repository)
    assert _files(repository) == before


def test_sweeps_are_published_and_those_of_earlier_runs_stay(output, repository):
    for folder, names in ((repository, ("old.json", "both.json")), (output, ("both.json", "new.png"))):
        (folder / "report" / "sweeps").mkdir(parents=True)
        for name in names:
            (folder / "report" / "sweeps" / name).write_text(f"{folder.name}")
    publish(output, _report, repository)
    found = {path.name: path.read_text() for path in (repository / "report" / "sweeps").iterdir()}
    assert found == {"old.json": "repository", "both.json": "out", "new.png": "out"}


def test_the_command_without_a_run_gets_a_sentence(tmp_path):
    done = CliRunner().invoke(app, ["publish", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "cannot be published: results lacks full, " in done.stderr
