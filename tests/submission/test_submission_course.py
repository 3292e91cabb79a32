"""The course's own notebooks: every number is read and given to its run by evidence, in all variants."""

from __future__ import annotations

import json

import pytest

from peft_scratch.submission import marking, notebooks
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import ERROR, LOOK, Checked
from submission import course

STYLES = course.styles()


def files(style: course.Style, names: dict[int, str] | None = None) -> list[File]:
    names = names or course.FILES
    return [File(names[n], names[n], course.notebook(n, style)) for n in range(1, 6)]


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_every_number_is_given_to_its_run(style):
    found, said = notebooks.examine(files(style))
    assert {run: one for book in found.values() for run, one in book.numbers.items()} == course.NUMBERS
    assert [one for one in said if one.mark == ERROR] == []


def emptied(data: bytes, keep=lambda cell: False) -> bytes:
    """A notebook as the template is: no output, no count; but for the cells that `keep` chooses."""
    book = json.loads(data)
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and not keep(cell):
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(book).encode()


def test_an_empty_template_has_no_point_and_a_complete_notebook_all_of_them():
    template = [File(file.name, file.where, emptied(file.data)) for file in files(course.Style())]
    _, said = notebooks.examine(template)
    checked = Checked("template", findings=said)
    assert sum(one.code == "number-missing" and one.mark == ERROR for one in said) == 10
    # A weight file without a fault keeps its share; the notebooks have none.
    assert [marking.proposed(checked, part) for part in (1, 4)] == [0, 0]
    found, said = notebooks.examine(files(course.Style()))
    complete = Checked(
        "complete", findings=said, numbers={k: v for b in found.values() for k, v in b.numbers.items()}
    )
    assert [marking.proposed(complete, part) for part in range(1, 6)] == [5, 25, 25, 5, 30]


def test_a_library_part_that_was_not_run_is_an_error_and_the_rest_is_read():
    data = emptied(course.notebook(5), keep=lambda cell: "peft" not in "".join(cell["source"]).lower())
    book = json.loads(data)
    last = max(n for n, cell in enumerate(book["cells"]) if "external library" in "".join(cell["source"]))
    for cell in book["cells"][last:]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    found, said = notebooks.examine([File("05_LoRA.ipynb", "05_LoRA.ipynb", json.dumps(book).encode())])
    assert found[5].numbers == {"lora_scratch_r8": course.NUMBERS["lora_scratch_r8"]}
    missing = [one.text for one in said if one.code == "number-missing"]
    assert len(missing) == 2 and all("library part was not executed" in text for text in missing)


def test_a_library_part_that_is_not_there_is_said():
    book = json.loads(course.notebook(5))
    last = max(n for n, cell in enumerate(book["cells"]) if "external library" in "".join(cell["source"]))
    book["cells"] = book["cells"][: last + 1]
    _, said = notebooks.examine([File("05_LoRA.ipynb", "05_LoRA.ipynb", json.dumps(book).encode())])
    assert (
        sum(one.code == "number-not-found" and one.mark == LOOK and "no library" in one.text for one in said)
        == 2
    )


@pytest.mark.parametrize(
    "names",
    [
        {n: name.replace(" ", "_") for n, name in course.FILES.items()},
        {n: name.replace(".ipynb", " (1).ipynb") for n, name in course.FILES.items()},
        {n: f"Copy of {name}" for n, name in course.FILES.items()},
        {n: f"Untitled{10 - n}x.ipynb" for n in course.FILES},
    ],
    ids=["underscores", "(1)", "copy of", "no names"],
)
def test_the_five_are_known_whatever_they_are_called(names):
    found, said = notebooks.examine(files(course.Style(), names))
    assert {n: book.file.name for n, book in found.items()} == names
    assert [one for one in said if one.mark == ERROR] == []


@pytest.mark.parametrize(("executed", "code"), [("gaps", "run-again"), ("out of order", "out-of-order")])
def test_the_order_of_cells_is_a_remark_with_the_cells_named(executed, code):
    _, said = notebooks.examine(files(course.Style(executed=executed)))
    remarks = [one for one in said if one.code == code]
    assert {one.mark for one in remarks} == {LOOK} and len({one.item for one in remarks}) == 5
    assert all("`" in one.text for one in remarks)


def test_another_size_beside_the_ten_is_no_number_of_theirs():
    book = json.loads(course.notebook(3))
    printed = course.printed("Number of parameters: 60525068\nBest model preformance is: %88.0")
    code = {
        "cell_type": "code",
        "execution_count": 99,
        "metadata": {},
        "source": "BOTTLENECK_SIZE = 1\nfit(model)",
    }
    heading = {"cell_type": "markdown", "metadata": {}, "source": "# Bottleneck effect"}
    book["cells"] += [heading, {**code, "outputs": [printed]}]
    found, said = notebooks.examine([File("03_Adapter.ipynb", "03_Adapter.ipynb", json.dumps(book).encode())])
    assert found[3].numbers == {"adapter_scratch_b8": course.NUMBERS["adapter_scratch_b8"]}
    assert [one.item for one in said if one.mark == ERROR and one.item == 3] == []


def test_an_adaptertrainer_table_is_read():
    rows = "".join(f"<tr><td>{n}</td><td>0.31</td><td>0.28</td><td>0.8{n}1</td></tr>" for n in range(1, 10))
    head = "<tr><th>Epoch</th><th>Training Loss</th><th>Validation Loss</th><th>Accuracy</th></tr>"
    page = f"<progress value='9'></progress><table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    output = {
        "output_type": "display_data",
        "data": {"text/html": page, "text/plain": "<IPython.core.display.HTML>"},
    }
    book = json.loads(course.notebook(4, course.Style(table="none", closing=False)))
    trained = [cell for cell in book["cells"] if "".join(cell["source"]) == "fit(model)"]
    trained[0]["outputs"] = [output]
    found, _ = notebooks.examine(
        [File("04_AdapterHub.ipynb", "04_AdapterHub.ipynb", json.dumps(book).encode())]
    )
    assert found[4].numbers == {"adapter_adapterhub_b1": 89.1}


@pytest.mark.parametrize("executed", ["in order", "out of order"])
def test_all_five_in_one_file_are_read_as_five(executed):
    books = [json.loads(course.notebook(n, course.Style(executed=executed), seed=n)) for n in range(1, 6)]
    whole = {**books[0], "cells": [cell for book in books for cell in book["cells"]]}
    found, said = notebooks.examine([File("HW1.ipynb", "HW1.ipynb", json.dumps(whole).encode())])
    numbers = {run: value for one in found.values() for run, value in one.numbers.items()}
    assert numbers == course.NUMBERS
    assert [str(one) for one in said if one.mark == ERROR] == []


def test_the_full_notebook_is_known_without_its_name_though_its_text_speaks_of_the_others():
    book = json.loads(course.notebook(1))
    intro = "Later we will use LoRA, adapters and a soft prompt. LoRA adapters, soft prompts!"
    book["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": intro})
    found, _ = notebooks.examine([File("a.ipynb", "a.ipynb", json.dumps(book).encode())])
    assert {number: one.numbers for number, one in found.items()} == {1: {"full": course.NUMBERS["full"]}}
