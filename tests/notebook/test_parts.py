"""A notebook's share of a submission as one file, and five of them put together."""

import json
import zipfile

import pytest
from left_behind import make

from peft_scratch.assignment import NOTEBOOKS
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.notebook.parts import merge_parts, missing_from, read_part, write_part


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".zip"
    }


def test_five_parts_of_five_machines_are_the_whole(tmp_path):
    parts = [make(tmp_path / f"machine {n}", n) for n in NOTEBOOKS]
    assert [path.name for path in parts] == [f"part-{n}.zip" for n in NOTEBOOKS]
    assert merge_parts(parts, tmp_path / "all") == tmp_path / "all"
    found = content(tmp_path / "all")
    assert len(found) == 5 + 10 + 3
    for n in NOTEBOOKS:
        assert content(tmp_path / f"machine {n}").items() <= found.items()
    assert missing_from(tmp_path / "all") == []


def test_what_is_missing_is_said_by_notebook(tmp_path):
    merge_parts([make(tmp_path / "machine", 1)], tmp_path / "all")
    make(tmp_path / "all", 5)
    (tmp_path / "all" / "weights" / "lora.pt").unlink()
    (tmp_path / "all" / "report" / "results" / "lora_peft_r1.json").unlink()
    assert missing_from(tmp_path / "all") == [
        "notebook 2: 3 numbers, prompts.pt, the executed notebook",
        "notebook 3: 1 number, adapter.pt, the executed notebook",
        "notebook 4: 2 numbers, the executed notebook",
        "notebook 5: 1 number, lora.pt",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 7), ("epochs", 3), ("recipe", "other"), ("base_sha256", "0")]
)
def test_parts_of_different_settings_are_refused_in_one_sentence(tmp_path, name, value):
    parts = [make(tmp_path / "one", 1), make(tmp_path / "two", 2, **{name: value})]
    with pytest.raises(
        UserError, match=f"part-2.zip was made with {name} {value!r}, part-1.zip with "
    ) as raised:
        merge_parts(parts, tmp_path / "all")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "all").exists(), "something was written"
    make(tmp_path / "three", 3)
    with pytest.raises(UserError, match=f"was made with {name}"):
        merge_parts(parts[1:], tmp_path / "three")


def test_the_same_part_twice_is_taken_once_and_two_versions_are_refused(tmp_path):
    first = make(tmp_path / "one", 2)
    copy = tmp_path / "part-2 (1).zip"
    copy.write_bytes(first.read_bytes())
    merge_parts([first, copy], tmp_path / "all")
    write_atomically(tmp_path / "one" / "weights" / "prompts.pt", "others")
    again = write_part(tmp_path / "one", 2)
    with pytest.raises(UserError, match=r"part-2 \(1\).zip and part-2.zip are both of notebook 2 and differ"):
        merge_parts([copy, again], tmp_path / "all")


def test_a_file_that_is_no_part_is_refused(tmp_path):
    path = tmp_path / "part-1.zip"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a part of this kit"):
        read_part(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "part.json", json.dumps({"format": 1, "notebook": 9, "settings": {"profile": "smoke"}})
        )
    with pytest.raises(UserError, match="is not a part of this kit"):
        read_part(path)
    with pytest.raises(UserError, match="There is no "):
        merge_parts([tmp_path / "absent.zip"], tmp_path)
    with pytest.raises(UserError, match="no part to put together"):
        merge_parts([], tmp_path)


def test_a_part_can_write_nowhere_else(tmp_path):
    path = make(tmp_path / "one", 1)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "x")
        archive.writestr("weights/lora.pt", "not of notebook 1")
    merge_parts([path], tmp_path / "all")
    assert not (tmp_path / "outside.txt").exists()
    assert not (tmp_path / "all" / "weights").exists()


def test_a_notebook_without_a_finished_run_has_no_part(tmp_path):
    with pytest.raises(UserError, match="No run of notebook 4 is finished"):
        write_part(tmp_path, 4)
