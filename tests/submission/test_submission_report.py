"""The report compared run by run: in tables and text, in Persian and English, in any order of digits."""

from __future__ import annotations

import io
import re

import pypdf
import pytest
import typst
from PIL import Image

from peft_scratch.assignment import RUNS
from peft_scratch.submission import report
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import ERROR, LOOK, OK
from peft_scratch.submission.hints import sizes_in
from peft_scratch.submission.sizes import sizes_of
from submission.parts import NUMBERS, pdf

PERSIAN = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


def made(source: str) -> bytes:
    return typst.compile(source.encode())


def examine(data: bytes, numbers: dict[str, float] | None = None) -> list:
    files = [File("r.pdf", "r.pdf", data)]
    return list(report.examine(files, NUMBERS if numbers is None else numbers, "course", ""))


def codes(found: list, mark: str) -> list[str]:
    return [one.code for one in found if one.mark == mark]


def text(found: list, code: str) -> str:
    return next(one.text for one in found if one.code == code)


def written(value: float, form: str) -> str:
    return {
        "point": f"{value:.1f}",
        "comma": f"{value:.1f}".replace(".", ","),
        "per cent before": f"%{value:.1f}",
        "two decimals": f"{value:.2f}",
        "persian": f"{value:.1f}".translate(PERSIAN).replace(".", "٫"),
        "slash": f"{value:.1f}".translate(PERSIAN).replace(".", "/"),
    }[form]


FORMS = ("point", "comma", "per cent before", "two decimals", "persian", "slash")


def long_table(numbers: dict[str, float], form: str = "point") -> str:
    """One row per run: method, implementation, size, accuracy."""
    cells = ""
    for run in RUNS.values():
        size = next((f"{k} = {v}" for k, v in run.hyperparameters.items() if k != "alpha"), "-")
        who = {"none": "-", "scratch": "from scratch"}.get(run.library, f"library ({run.library})")
        value = written(numbers[run.id], form) if run.id in numbers else ""
        cells += f"[{run.kind.replace('_', ' ')}],[{who}],[{size}],[{value}],\n"
    return f"= Results\n#table(columns: 4, [Method],[Implementation],[Size],[Accuracy],\n{cells})"


def wide_table(numbers: dict[str, float]) -> str:
    """One row per method, a column per way."""
    n = numbers
    rows = (
        (
            "Soft prompt N = 10",
            "N = 1",
            "prompt_scratch_n10",
            "prompt_opendelta_n1",
            "",
            "prompt_opendelta_n10",
        ),
        (
            "Adapter",
            "b = 1",
            "adapter_scratch_b8",
            "adapter_adapterhub_b1",
            "b = 8: ",
            "adapter_adapterhub_b8",
        ),
        ("LoRA", "r = 1", "lora_scratch_r8", "lora_peft_r1", "r = 8: ", "lora_peft_r8"),
    )
    cells = "".join(
        f"[{m}],[{n[own]}],[{s}: {n[small]}],[{t}{n[large]}],\n" for m, s, own, small, t, large in rows
    )
    head = "[Method],[From scratch],[Library, size 1],[Library, size 8 or 10],"
    return f"Full fine-tuning reached {n['full']:.1f} %.\n#table(columns: 4, {head}\n{cells})"


def prose(numbers: dict[str, float]) -> str:
    return f"""Full fine-tuning gave {numbers["full"]} %.

The soft prompt from scratch with N=10 gave {numbers["prompt_scratch_n10"]} %, OpenDelta with N=1
{numbers["prompt_opendelta_n1"]} % and with N=10 {numbers["prompt_opendelta_n10"]} %.

The adapter from scratch (bottleneck = 8) reached {numbers["adapter_scratch_b8"]} %.

With AdapterHub we got {numbers["adapter_adapterhub_b8"]} % for bottleneck = 8 and
{numbers["adapter_adapterhub_b1"]} % for bottleneck = 1.

LoRA from scratch with r=8: {numbers["lora_scratch_r8"]} %. LoRA with PEFT: r=1: {numbers["lora_peft_r1"]} %,
r=8: {numbers["lora_peft_r8"]} %."""


def persian_table(numbers: dict[str, float]) -> str:
    kinds = {"full": "تنظیم کامل", "soft_prompt": "پرامپت نرم", "adapter": "آداپتور", "lora": "لورا"}
    cells = ""
    for run in RUNS.values():
        who = {"none": "-", "scratch": "از صفر"}.get(run.library, "کتابخانه")
        size = next((str(v).translate(PERSIAN) for k, v in run.hyperparameters.items() if k != "alpha"), "-")
        cells += f"[{kinds[run.kind]}],[{who}],[{size}],[{written(numbers[run.id], 'persian')}],\n"
    head = '#set text(lang: "fa", dir: rtl, font: "DejaVu Sans")\n'
    return f"{head}= نتایج\n#table(columns: 4, [روش],[پیاده‌سازی],[اندازه],[دقت],\n{cells})"


def spanning_table(numbers: dict[str, float]) -> str:
    """One row of numbers: methods span columns, long names break in mid-word, own runs have no size."""
    n = {run: f"{value:.1f}" for run, value in numbers.items()}
    first = "[Notebook],[Full],table.cell(colspan: 3)[Soft prompt],[Adap\\ ter-1],"
    first += "table.cell(colspan: 2)[Adapter-2],table.cell(colspan: 3)[LoRA],"
    tokens = "[],[],[],[N_SOFT_P\\ ROMPT_T\\ OKENS=1],[N_SOFT_PRO\\ MPT_TOKE\\ NS=10]"
    second = f"{tokens},[],[BOTTLEN\\ ECK_SIZ\\ E=8],[BOTTLEN\\ ECK_SIZ\\ E=1],[],[RANK=1],[RANK=8],"
    order = (
        "full",
        "prompt_scratch_n10",
        "prompt_opendelta_n1",
        "prompt_opendelta_n10",
        "adapter_scratch_b8",
    )
    order += ("adapter_adapterhub_b8", "adapter_adapterhub_b1", "lora_scratch_r8", "lora_peft_r1")
    third = "[Accuracy %]," + "".join(f"[{n.get(run, '')}]," for run in (*order, "lora_peft_r8"))
    return f"#set text(7pt)\n#table(columns: 11, align: center, {first}\n{second}\n{third})"


#: What a course calls the runs in its own words: method and, below it, size in the letters of formulas.
NAMED = {
    "full": (1, "Full fine-tuning", ""),
    "prompt_scratch_n10": (2, "Soft-prompt\\ tuning", "num_soft_token = 10"),
    "prompt_opendelta_n1": (2, "OpenDelta", "num_soft_token = 1"),
    "prompt_opendelta_n10": (2, "OpenDelta", "num_soft_token = 10"),
    "adapter_scratch_b8": (3, "Adapter", "bottleneck_size = 8"),
    "adapter_adapterhub_b8": (4, "Adapter Hub", "bottleneck_size = 8"),
    "adapter_adapterhub_b1": (4, "Adapter Hub", "bottleneck_size = 1"),
    "lora_scratch_r8": (5, "Lora", "rank = 8"),
    "lora_peft_r1": (5, "PEFT", "rank = 1"),
    "lora_peft_r8": (5, "PEFT", "rank = 8"),
}
ITALIC = {ord(c): chr(0x1D44E + n) for n, c in enumerate("abcdefghijklmnopqrstuvwxyz") if c != "h"}


def numbered_table(numbers: dict[str, float], stroke: str = "(x: none, y: 0.5pt)") -> str:
    """A row per run with a running number and the number of its notebook; rules across alone, or none."""
    cells = ""
    for n, (run, (book, method, size)) in enumerate(NAMED.items(), start=1):
        said = f"Best performance\\ \\@{size.translate(ITALIC)}" if size else "Best performance"
        cells += f"[{n}],[{book}],[{method}],[{said}],[{numbers[run]:.1f} %],\n"
    head = "[No.],[Notebook],[Method],[Description],[Value],"
    shape = f"columns: 5, column-gutter: 14pt, align: center + horizon, stroke: {stroke}"
    return f"#table({shape}, {head}\n{cells})"


def persian_sections(numbers: dict[str, float]) -> str:
    """A section per notebook, where count and accuracy stand in lines of their own."""
    counts = {run: sizes_of(run, "course").whole for run in RUNS}
    intro = "تعداد پارامترها و بهترین عملکرد مدل"
    sections = [
        ("نوتبوک اول (Full Fine-Tune)", [("", "full")]),
        (
            "نوتبوک دوم (Soft Prompt)",
            [
                ("", "prompt_scratch_n10"),
                ("با استفاده از OpenDelta و N\\_SOFT\\_PROMPTS = 10", "prompt_opendelta_n10"),
                ("با استفاده از OpenDelta و N\\_SOFT\\_PROMPTS = 1", "prompt_opendelta_n1"),
            ],
        ),
        ("نوتبوک سوم (Adapter)", [("", "adapter_scratch_b8")]),
        (
            "نوتبوک چهارم (Adapter Hub)",
            # The second size is a slip of the pen; the count below it says which is meant.
            [("با سایز باتل‌نک ۸", "adapter_adapterhub_b8"), ("با سایز باتل‌نک ۲", "adapter_adapterhub_b1")],
        ),
        (
            "نوتبوک پنجم (LoRA)",
            [
                ("", "lora_scratch_r8"),
                ("با استفاده از کتابخانه PEFT و RANK = 8", "lora_peft_r8"),
                ("با استفاده از کتابخانه PEFT و RANK = 1", "lora_peft_r1"),
            ],
        ),
    ]
    text = '#set text(lang: "fa", dir: rtl, font: "DejaVu Sans")\n'
    for head, runs in sections:
        text += f"== {head}\n"
        for said, run in runs:
            text += f"{intro} {said}:\n\n{counts[run]}\n\n{numbers[run]:.1f}\n\n"
    return text


def respectively(numbers: dict[str, float]) -> str:
    """Sentences that name several sizes before their numbers, over line ends."""
    n = numbers
    return f"""#set page(width: 11cm)
The model that is fully fine-tuned has an accuracy of {n["full"]}%. The soft prompt of our own with 10 tokens
reaches {n["prompt_scratch_n10"]}%. Using the OpenDelta library with soft token counts of 1 and 10, the
accuracies are {n["prompt_opendelta_n1"]}% and {n["prompt_opendelta_n10"]}%. The adapter from scratch has
{n["adapter_scratch_b8"]}%. AdapterHub with bottleneck sizes 8 and 1 leads to
{n["adapter_adapterhub_b8"]}% and {n["adapter_adapterhub_b1"]}%, respectively. Our own LoRA reaches
{n["lora_scratch_r8"]}%. LoRA with the PEFT library and ranks 1 and 8 gives {n["lora_peft_r1"]}% and
{n["lora_peft_r8"]}%, respectively."""


def matrix(numbers: dict[str, float]) -> str:
    """A row per method, a column per implementation and size."""
    n = numbers
    return f"""#table(columns: 4, [Method],[From scratch],[Library (size 1)],[Library (size 8/10)],
[Full],[{n["full"]}],[-],[-],
[Soft prompt],[{n["prompt_scratch_n10"]}],[{n["prompt_opendelta_n1"]}],[{n["prompt_opendelta_n10"]}],
[Adapter],[{n["adapter_scratch_b8"]}],[{n["adapter_adapterhub_b1"]}],[{n["adapter_adapterhub_b8"]}],
[LoRA],[{n["lora_scratch_r8"]}],[{n["lora_peft_r1"]}],[{n["lora_peft_r8"]}])"""


def tables_of_notebooks(numbers: dict[str, float]) -> str:
    """A table per notebook, below its name."""
    source = ""
    for book in range(1, 6):
        runs = [run for run in RUNS.values() if run.notebook == book]
        cells = "".join(f"[{r.title.partition(', ')[2] or r.title}],[{numbers[r.id]}],\n" for r in runs)
        source += f"Notebook {book}\n#table(columns: 2, [Setting],[Accuracy],\n{cells})\n\n"
    return source


def other_columns(numbers: dict[str, float]) -> str:
    """Counts, the loss and the last epoch stand beside the accuracy; no rules."""
    cells = "".join(
        f"[{run.title}],[{sizes_of(run.id, 'course').whole:,}],[0.12],[{numbers[run.id]}],"
        f"[{numbers[run.id] - 0.4:.1f}],\n"
        for run in RUNS.values()
    )
    head = "[Run],[Parameters],[Train loss],[Best accuracy],[Last epoch],"
    return f"#table(columns: 5, stroke: none, column-gutter: 12pt, {head}\n{cells})"


LAYOUTS = {
    "spanning table": spanning_table(NUMBERS),
    "numbered table": numbered_table(NUMBERS),
    "numbered table without rules": numbered_table(NUMBERS, "none"),
    "persian sections": persian_sections(NUMBERS),
    "respectively": respectively(NUMBERS),
    **{f"long table, {form}": long_table(NUMBERS, form) for form in FORMS},
    "wide table": wide_table(NUMBERS),
    "prose": prose(NUMBERS),
    "persian table": persian_table(NUMBERS),
}


@pytest.mark.parametrize("source", LAYOUTS.values(), ids=LAYOUTS)
def test_a_right_report_is_right(source):
    found = examine(made(source))
    assert codes(found, ERROR) == []
    assert "report-numbers" in codes(found, OK), [str(one) for one in found]


@pytest.mark.parametrize("layout", [long_table, wide_table, prose, persian_table])
def test_a_number_typed_wrongly_is_named(layout):
    found = examine(made(layout({**NUMBERS, "prompt_scratch_n10": 87.6})))
    assert codes(found, ERROR) == ["report-number"]
    assert re.search(r"87.6( %)? for Soft prompt, from scratch, N = 10", text(found, "report-number"))


def test_a_number_rounded_to_a_whole_one_is_named():
    source = long_table(NUMBERS).replace("[86.6]", "[87]")
    found = examine(made(source))
    assert codes(found, ERROR) == ["report-number"]
    assert "has 87 for Soft prompt, from scratch, N = 10, but its notebook has 86.6 %" in text(
        found, "report-number"
    )


@pytest.mark.parametrize("layout", [long_table, wide_table, prose, persian_table])
def test_two_numbers_swapped_are_named(layout):
    adapter, lora = NUMBERS["adapter_scratch_b8"], NUMBERS["lora_scratch_r8"]
    found = examine(made(layout({**NUMBERS, "adapter_scratch_b8": lora, "lora_scratch_r8": adapter})))
    assert codes(found, ERROR) == ["report-swapped"]
    assert "Adapter, from scratch" in text(found, "report-swapped")
    assert "LoRA, from scratch" in text(found, "report-swapped")


def test_an_empty_cell_is_named():
    numbers = {run: value for run, value in NUMBERS.items() if run != "lora_peft_r1"}
    found = examine(made(long_table(numbers)))
    assert codes(found, ERROR) == ["report-number-empty"]
    assert "LoRA, PEFT, r = 1" in text(found, "report-number-empty")


def test_an_empty_cell_between_numbers_is_named():
    numbers = {run: value for run, value in NUMBERS.items() if run != "adapter_adapterhub_b1"}
    found = examine(made(spanning_table(numbers)))
    assert codes(found, ERROR) == ["report-number-empty"]
    assert "leaves the cell of Adapter, AdapterHub, b = 1 empty" in text(found, "report-number-empty")


@pytest.mark.parametrize(
    "layout",
    [numbered_table, persian_sections, respectively, matrix, tables_of_notebooks, other_columns],
)
@pytest.mark.parametrize("run", ["prompt_scratch_n10", "adapter_adapterhub_b1", "lora_scratch_r8"])
def test_a_wrong_number_is_named_with_its_run_in_any_layout(layout, run):
    assert codes(examine(made(layout(NUMBERS))), ERROR) == []
    found = examine(made(layout({**NUMBERS, run: 83.3})))
    assert codes(found, ERROR) == ["report-number"]
    assert f"has 83.3 for {RUNS[run].title}" in text(found, "report-number").replace(" %", "").replace(
        "%", ""
    )


def test_nothing_is_called_right_that_was_not_compared():
    found = examine(made(long_table({})), numbers={})
    assert codes(found, ERROR) == [] and "report-numbers" not in codes(found, OK)
    assert "report-not-compared" in codes(found, LOOK)


def test_a_report_that_cannot_be_understood_accuses_nobody():
    found = examine(made("The results are in the attached figure. We are happy with 73.2 of them."))
    assert codes(found, ERROR) == []
    assert codes(found, LOOK).count("report-number-not-found") == len(NUMBERS)


def test_a_list_of_numbers_alone_does_not_say_whose_they_are():
    found = examine(made("\n".join(f"+ {number:.1f}" for number in NUMBERS.values())))
    assert codes(found, ERROR) == [] and "report-numbers" not in codes(found, OK)
    assert "report-unlabelled" in codes(found, LOOK)


def test_two_sizes_at_the_start_of_a_sentence_are_read():
    assert sizes_in("Ranks 1 and 8 give 88.5 and 88.7") == [1, 8]


NOTHING = "The course asks for a report. It explains four methods, and where to hand in the files."


def picture(width: int) -> str:
    """A picture of this width in points, as large as a logo or as a table."""
    made_of = io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(made_of, "PNG")
    data = ", ".join(map(str, made_of.getvalue()))
    return f"#image(bytes(({data})), width: {width}pt)"


def test_another_document_is_no_report():
    for source in (NOTHING, f"{picture(60)}\n\n{NOTHING}"):
        for numbers in (NUMBERS, {}):
            assert codes(examine(made(source), numbers), ERROR) == ["report-nothing"]
    found = examine(made(f"{NOTHING}\n\n{picture(300)}"))  # the numbers may stand in it
    assert codes(found, ERROR) == []
    assert "report-number-not-found" in codes(found, LOOK)


def test_a_page_whose_resources_are_missing_is_no_reason_to_stop():
    data = pdf(["Full fine-tuning: 89.9"]).replace(b"/Resources << /Font", b"/Resources 9 0 R << /Font")
    assert codes(examine(data, {"full": 89.9}), ERROR) == []


def test_other_numbers_of_a_run_are_no_error():
    more = (
        "\n\nIn the last epoch LoRA from scratch (r=8) had 88.2 %, in training 95.1; published: 89.1 to 89.5."
    )
    assert codes(examine(made(long_table(NUMBERS) + more)), ERROR) == []


def test_the_counts_and_the_calculation_are_looked_for():
    table = "#table(columns: 2, [prompt],[5,120],[adapter],[104,544],[LoRA],[294 912],[full],[60,506,624])"
    found = examine(made(f"{table}\n\n$12 times (2 times 512 times 8 + 8 + 512) = 104544$"))
    assert {"report-counts", "report-calculation"} <= set(codes(found, OK))
    found = examine(made("nothing of it"))
    assert {"report-count", "report-calculation"} <= set(codes(found, LOOK))


def test_a_scan_is_said_to_be_one_and_a_restricted_pdf_is_read():
    assert codes(examine(pdf([])), LOOK) == ["report-no-text"]
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(made(long_table(NUMBERS))))
    writer.encrypt("", "owner", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    assert "report-numbers" in codes(examine(data.getvalue()), OK)


@pytest.mark.parametrize("digits", ["89.9", "9.98"])
def test_digits_count_in_whatever_order_the_text_layer_has_them(digits):
    found = examine(pdf([f"Full fine-tuning: {digits}"]), {"full": 89.9})
    assert codes(found, ERROR) == []
    assert "report-numbers" in codes(found, OK)
