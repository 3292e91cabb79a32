"""Notebooks of others that follow no template: what is read, what is left to a person, what is an error."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from peft_scratch.submission import check, notebooks
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import ERROR, LOOK
from submission.parts import codes, count, pdf, report_lines


def foreign(*cells: str | tuple[str, ...]) -> nbformat.NotebookNode:
    """A notebook of headings (`# ...`) and of cells: the source, and what each output says."""
    made = new_notebook()
    for cell in cells:
        source, *outputs = (cell,) if isinstance(cell, str) else cell
        said = [new_output("stream", text=text) for text in outputs]
        made.cells.append(
            new_markdown_cell(source) if source.startswith("#") else new_code_cell(source, outputs=said)
        )
    count(made)
    return made


def foreign_notebooks() -> dict[str, nbformat.NotebookNode]:
    return {
        "HW-full.ipynb": foreign(
            "model = T5ForConditionalGeneration.from_pretrained('t5-small')",
            ("count()", "Number of parameters: 60506624"),
            (
                "train()",
                "Epoch 1: train acc: 0.951, test acc: 0.8911\nEpoch 2: train acc: 0.967, test acc: 0.9003",
            ),
        ),
        "HW-2.ipynb": foreign(
            "class SoftPrompt(nn.Module):\n    pass\nN_TOKENS = 10\nmodel = SoftPrompt()",
            ("train()", "Number of parameters: 60511744\n{'accuracy': 0.8512}\n{'accuracy': 0.8688}"),
            "from opendelta import SoftPromptModel\ndelta = SoftPromptModel(model, soft_token_num=1)",
            ("train()", "epoch 10 valid accuracy: 84.81%"),
            "delta = SoftPromptModel(model, soft_token_num=10)",
            ("train()", "Epoch 9: 100%|####| 782/782 [01:02<00:00, loss=0.31, acc=0.8662]"),
        ),
        "c.ipynb": foreign(
            "class Adapter(nn.Module):\n    pass\nmodel.adapter = Adapter()",
            ("train()", "Number of parameters: 60,611,168\nTest Accuracy = 90.7 %"),
        ),
        "d.ipynb": foreign(
            "import adapters\nadapters.init(model)",
            ("add(SeqBnConfig(reduction_factor=64))\nmodel.train_adapter('a')", "acc: 0.902"),
            ("add(SeqBnConfig(reduction_factor=512))\nmodel.train_adapter('a')", "acc: 0.8921"),
        ),
        "lora.ipynb": foreign(
            "class LoRA(nn.Module):\n    pass\nrank = 8\nmodel = LoRA()",
            ("train()", "Number of parameters: 60801536\nacc 0.8933"),
            "# With PEFT, r = 1",
            ("peft_config = LoraConfig(r=1)\ntrain()", "acc 0.8868"),
            ("peft_config = LoraConfig(r=8)\ntrain()", "acc 0.8879"),
        ),
    }


READ = {
    "full": 90.0,
    "prompt_scratch_n10": 86.9,
    "prompt_opendelta_n1": 84.8,
    "prompt_opendelta_n10": 86.6,
    "adapter_scratch_b8": 90.7,
    "adapter_adapterhub_b8": 90.2,
    "adapter_adapterhub_b1": 89.2,
    "lora_scratch_r8": 89.3,
    "lora_peft_r1": 88.7,
    "lora_peft_r8": 88.8,
}


def test_the_notebooks_of_others_are_read_as_best_one_can(right, tmp_path):
    right.notebooks = foreign_notebooks()
    lines = [line for line in report_lines() if ":" not in line or "by hand" in line]
    right.report = pdf([*lines, *(f"{run}: {number}" for run, number in READ.items())])
    checked = check.check([right.write(tmp_path)])
    assert checked.marked(ERROR) == []
    assert checked.numbers == READ


def test_what_is_not_found_in_the_notebooks_of_others_is_said(right, tmp_path):
    right.notebooks = foreign_notebooks()
    # Two accuracies and nothing that says which is which; and a notebook that shows none.
    right.notebooks["d.ipynb"] = foreign(
        "import adapters\nadapters.init(model)", ("train()", "acc: 0.612", "acc: 0.8921")
    )
    right.notebooks["HW-full.ipynb"] = foreign(("model = T5()", "done"))
    checked = check.check([right.write(tmp_path)])
    assert (4, "number-not-assigned") in codes(checked, LOOK)
    assert (1, "number-missing") in codes(checked, ERROR)
    assert (1, "count-missing") in codes(checked, LOOK)
    assert not {"adapter_adapterhub_b8", "adapter_adapterhub_b1", "full"} & set(checked.numbers)


def examine(*cells: str | tuple[str, ...], name: str = "05_LoRA.ipynb") -> tuple[dict[str, float], list]:
    file = File(name, name, nbformat.writes(foreign(*cells)).encode())
    found, said = notebooks.examine([file])
    numbers = {run: value for book in found.values() for run, value in book.numbers.items()}
    return numbers, [one for one in said if one.code != "notebook-missing"]


@pytest.mark.parametrize(
    "form",
    [
        "{{'accuracy': {}}}",
        "{{'accuracy': np.float64({})}}",
        "accuracy: tensor({})",
        "Accuracy on the test set: {}",
        "acc = [0.81, {}, 0.8]",
    ],
)
def test_an_accuracy_is_read_however_it_is_printed(form):
    numbers, said = examine("RANK = 8\nclass LoRA(nn.Module): pass\nLoRA()", ("train()", form.format(0.8921)))
    assert numbers == {"lora_scratch_r8": 89.2}
    assert not [one for one in said if one.mark == ERROR and "8" in one.code]


def test_what_contradicts_itself_is_left_to_a_person():
    numbers, said = examine(
        "### Fine-Tuning With RANK = 1", "config = LoraConfig(r=8)", ("train()", "Best accuracy: 88.7%")
    )
    assert numbers == {}
    (one, *_) = [one for one in said if one.code == "number-not-assigned"]
    assert one.mark == LOOK and "RANK = 1" in one.text and "r=8" in one.text


def test_the_count_beside_a_number_outweighs_a_stale_constant():
    numbers, _ = examine(
        "RANK = 8",
        "model = get_peft_model(model, LoraConfig(r=RANK))",
        ("show()", "Number of parameters: 60543488\nBest model preformance is: %88.7"),
    )
    assert numbers == {"lora_peft_r1": 88.7}


def test_a_number_that_would_fit_a_published_range_is_not_moved_there():
    numbers, _ = examine(
        "model = get_peft_model(model, LoraConfig(r=1))",
        ("show()", "Best accuracy: 88.9%"),
        "model = get_peft_model(model, LoraConfig(r=8))",
        ("show()", "Best accuracy: 88.5%"),
    )
    assert numbers == {"lora_peft_r1": 88.9, "lora_peft_r8": 88.5}


def test_a_typed_number_without_training_is_said():
    numbers, said = examine(
        ("RANK = 8\nprint('Best model preformance is: %89.3')", "Best model preformance is: %89.3")
    )
    assert numbers == {"lora_scratch_r8": 89.3}
    assert [one.mark for one in said if one.code == "number-typed"] == [LOOK]
    assert not [one for one in said if one.code == "number"]


def test_a_part_from_scratch_that_uses_the_library_is_said():
    cells = ("import adapters", ("BOTTLENECK_SIZE = 8\ntrain()", "Best accuracy: 90.1%"))
    _, said = examine(*cells, name="03_Adapter.ipynb")
    assert [one.mark for one in said if one.code == "scratch-imports"] == [LOOK]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"cells": [{"cell_type": "code", "source": "lora = 1"}]}', None),
        (b'{"cells": [{"cell_type": "code", "source": ["lora=1"], "outputs": null}], "nbformat": "4"}', None),
        (b'{"worksheets": [{"cells": [{"cell_type": "code", "input": "lora = 1", "outputs": []}]}]}', None),
        (b"\xef\xbb\xbf" + b'{"cells": [{"cell_type": "raw", "source": "x"}], "nbformat": 4}', None),
        (b"", "it is empty"),
        (b"<html>", "it is not JSON"),
        (b'{"cells": [', "cut short"),
        (b'{"cells": 1}', "no list of cells"),
        (b"[{}," * 600_000, "more than any notebook needs"),
        (b"[" * 5_000, "nested too deeply"),
    ],
)
def test_what_jupyter_opens_is_never_called_damaged(data, why):
    _, said = notebooks.examine([File("05_LoRA.ipynb", "05_LoRA.ipynb", data)])
    damaged = [one for one in said if one.code == "notebook-damaged"]
    assert bool(damaged) == (why is not None)
    assert why is None or why in damaged[0].text


@pytest.mark.parametrize(
    ("name", "cells", "number"),
    [
        (
            "04_AdapterHub.ipynb",
            ("from adapters import AdapterTrainer", "c = PfeifferConfig()", "# adapter"),
            4,
        ),
        ("03_Adapter.ipynb", ("class Adapter(nn.Module): pass", "# Use external library"), 3),
        ("Untitled3.ipynb", ("class Adapter(nn.Module): pass", "adapter"), 3),
        ("01_Full_FineTune (1).ipynb", ("# LoRA comes in notebook 5, LoRA", "model = T5()"), 1),
        ("HW1_part2_05_LoRA.ipynb", ("rank = 8", "x"), 5),
        ("400123456_2.ipynb", ("x = 1",), 2),
    ],
)
def test_a_notebook_is_known_by_name_and_content_together(name, cells, number):
    found, _ = notebooks.examine([File(name, name, nbformat.writes(foreign(*cells)).encode())])
    assert list(found) == [number]


@pytest.mark.parametrize("source", ["max(results['valid_acc'])", "print(max(valid_accs))", "best_acc"])
def test_a_bare_number_is_read_where_its_cell_is_about_an_accuracy(source):
    name = "01_Full FineTune.ipynb"
    assert examine("model = T5()", (source, "0.89988"), name=name)[0] == {"full": 90.0}
    assert examine("model = T5()", ("losses[-1]", "0.89988"), name=name)[0] == {}


def test_a_library_part_that_failed_has_no_number(tmp_path):
    """Its accuracies are all of the part from scratch; what an installer prints is none."""
    made = foreign(
        "class SoftPrompt(nn.Module):\n    pass\nN_SOFT_PROMPT_TOKENS = 10\nmodel = SoftPrompt()",
        ("train()", "Number of parameters: 60511744\nBest model preformance is: %86.9"),
        "# Use external library",
        ("!pip install opendelta", "Downloading wheels (59.1 MB) at 77.3 MB/s"),
        ("from opendelta import SoftPromptModel\ndelta = SoftPromptModel(model)", ""),
    )
    made.cells[-1].outputs = [
        new_output("error", ename="ImportError", evalue="cannot import", traceback=["x"])
    ]
    file = File("02_Soft Prompt.ipynb", "02_Soft Prompt.ipynb", nbformat.writes(made).encode())
    found, said = notebooks.examine([file])
    assert found[2].numbers == {"prompt_scratch_n10": 86.9}
    missing = [one.text for one in said if one.code == "number-missing" and one.item == 2]
    assert len(missing) == 2
    assert all("the library part ended with ImportError" in text for text in missing)


def test_what_lies_beside_the_five_does_not_take_their_place(tmp_path):
    """A folder with the exercise sheet and another homework in it, as a student's folder may be."""
    other = foreign(*[("print(1)", "1")] * 30)
    (tmp_path / "sheet").mkdir()
    (tmp_path / "sheet" / "HW1.pdf").write_bytes(pdf(["Write a report about ten numbers"]))
    (tmp_path / "Report_400123456_Ada.pdf").write_bytes(pdf(report_lines()))
    (tmp_path / "HW2_Part1.ipynb").write_text(nbformat.writes(other))
    for name, made in foreign_notebooks().items():
        (tmp_path / name).write_text(nbformat.writes(made))
    checked = check.check([tmp_path])
    assert checked.numbers["full"] == 90.0
    assert (0, "notebook-other") in codes(checked, LOOK)
    assert not [one for one in checked.findings if one.code in ("notebook-more", "report-nothing")]
