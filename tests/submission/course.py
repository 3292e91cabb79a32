"""Notebooks as the course's template and finished submissions look, in the variants that were seen.

The text is this project's own; the shape follows published submissions: headings, constants in cells, what is
printed, how cells were executed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peft_scratch.assignment import RUNS
from peft_scratch.submission.sizes import sizes_of

#: Numbers that tell each run from every other, and lie outside what was published: no range can help.
NUMBERS = {
    "full": 71.4,
    "prompt_scratch_n10": 66.6,
    "prompt_opendelta_n1": 77.3,
    "prompt_opendelta_n10": 63.9,
    "adapter_scratch_b8": 58.2,
    "adapter_adapterhub_b8": 69.7,
    "adapter_adapterhub_b1": 81.5,
    "lora_scratch_r8": 61.1,
    "lora_peft_r1": 85.8,
    "lora_peft_r8": 74.6,
}
FILES = {
    1: "01_Full FineTune.ipynb",
    2: "02_Soft Prompt.ipynb",
    3: "03_Adapter.ipynb",
    4: "04_AdapterHub.ipynb",
    5: "05_LoRA.ipynb",
}
PERSIAN = str.maketrans("0123456789.", "۰۱۲۳۴۵۶۷۸۹٫")

#: Ways to print an accuracy in per cent.
FORMATS: dict[str, Callable[[float], str]] = {
    "course": lambda a: f"Best model preformance is: %{a:.1f}",
    "after": lambda a: f"Best model performance: {a:.1f}%",
    "share": lambda a: f"best accuracy = {a / 100:.4f}",
    "numpy": lambda a: f"Best model preformance is: {{'accuracy': np.float64({a / 100:.3f})}}",
    "tensor": lambda a: f"Best model preformance is: tensor({a / 100:.4f}, device='cuda:0')",
    "comma": lambda a: f"Best model preformance is: %{a:.1f}".replace(".", ","),
    "persian": lambda a: f"Best model preformance is: {f'{a:.1f}'.translate(PERSIAN)}٪",
    "persian words": lambda a: f"بهترین دقت مدل: {f'{a:.1f}'.translate(PERSIAN)}",
    "coloured": lambda a: f"\x1b[1mBest model preformance is: \x1b[32m%{a:.1f}\x1b[0m",
    "long": lambda a: f"Best model preformance is: %{a + 0.004:.6f}",
}


@dataclass
class Style:
    """How a student's notebooks look.

    Attributes:
        form: a key of `FORMATS`.
        count: `whole`, `trained`, `peft` (the library's own line), or `none`.
        count_in: `same` cell as the accuracy, or the cell `before` or `after` it.
        order: of the library runs; `forwards` has the first size first.
        sizes_by: what says the size: `constant`, `heading`, `keyword`, `function`, `loop`, `line` or `count`.
        table: `html`, `plain`, `growing` (one per epoch), `prints`, or `none`.
        closing: whether the line with the best accuracy is printed.
        executed: `in order`, `gaps`, `out of order`, `missing counts`.
    """

    form: str = "course"
    count: str = "whole"
    count_in: str = "same"
    order: str = "forwards"
    sizes_by: str = "constant"
    table: str = "html"
    closing: bool = True
    executed: str = "in order"


@dataclass
class Book:
    """A notebook in the making."""

    style: Style
    numbers: dict[str, float]
    seed: int = 0
    cells: list[dict[str, Any]] = field(default_factory=list)

    def text(self, source: str) -> None:
        self.cells.append({"cell_type": "markdown", "metadata": {"id": "x"}, "source": lines(source)})

    def code(self, source: str, *outputs: dict[str, Any]) -> None:
        metadata = {"colab": {"base_uri": "https://localhost:8080/", "height": 363}, "id": "x"}
        cell = {"cell_type": "code", "execution_count": None, "metadata": metadata, "source": lines(source)}
        self.cells.append({**cell, "outputs": list(outputs)})

    def finished(self) -> bytes:
        code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        for n, cell in enumerate(code, start=1):
            cell["execution_count"] = n
        if self.style.executed == "gaps":
            for cell in code[len(code) // 2 :]:
                cell["execution_count"] += 7
        elif self.style.executed == "out of order":
            for cell in code[: len(code) // 2]:
                cell["execution_count"] += 40
        elif self.style.executed == "missing counts":
            for cell in code[len(code) // 2 :]:
                cell["execution_count"] = None
        widgets = {
            "application/vnd.jupyter.widget-state+json": {"0a": {"model_name": "HBoxModel", "state": {}}}
        }
        metadata = {
            "accelerator": "GPU",
            "colab": {"provenance": [], "gpuType": "T4"},
            "kernelspec": {"display_name": "Python 3", "name": "python3"},
            "widgets": widgets,
        }
        book = {"cells": self.cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 0}
        return json.dumps(book, ensure_ascii=False).encode()


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def printed(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": lines(text + "\n")}


def curve_of(best: float, seed: int) -> list[float]:
    """Ten accuracies whose best is `best`."""
    drops = np.abs(np.random.default_rng(seed).normal(0.6, 0.4, 10)) + 0.11
    drops[seed % 10] = 0
    return [best - drop for drop in drops]


def table(values: list[float], seed: int) -> dict[str, Any]:
    """What pandas displays of a data frame with index `epoch`."""
    losses = np.random.default_rng(seed + 1).uniform(0.1, 0.6, len(values))
    rows = [
        (n, f"{loss:.6f}", f"{value / 100:.5f}")
        for n, (loss, value) in enumerate(zip(losses, values, strict=True))
    ]
    plain = "       train_loss  valid_acc\nepoch                       \n"
    plain += "\n".join(f"{n:<5}    {loss}    {value}" for n, loss, value in rows)
    body = "".join(
        f"<tr>\n<th>{n}</th>\n<td>{loss}</td>\n<td>{value}</td>\n</tr>\n" for n, loss, value in rows
    )
    head = "<tr><th></th><th>train_loss</th><th>valid_acc</th></tr><tr><th>epoch</th><th></th><th></th></tr>"
    rows_of_html = f"<thead>{head}</thead><tbody>{body}</tbody>"
    html = f'<div id="df-1">\n<table border="1" class="dataframe">{rows_of_html}</table></div>'
    data = {
        "text/plain": lines(plain),
        "text/html": lines(html),
        "application/vnd.google.colaboratory.intrinsic+json": {},
    }
    return {"output_type": "display_data", "metadata": {}, "data": data}


def training(style: Style, best: float, seed: int) -> list[dict[str, Any]]:
    """The outputs of a training's cell."""
    values = curve_of(best, seed)
    bar = printed(
        "\r  0%|          | 0/782 [00:00<?, ?it/s]\r100%|####| 782/782 [01:02<00:00, 12.5it/s, loss=0.31]"
    )
    shown = table(values, seed)
    if style.table == "html":
        return [bar, shown]
    if style.table == "plain":
        return [bar, {**shown, "data": {"text/plain": shown["data"]["text/plain"]}}]
    if style.table == "growing":
        return [bar, *(table(values[:n], seed) for n in range(1, 11))]
    if style.table == "prints":
        said = [
            f"Epoch {n}: train loss 0.{n}512, train acc: 0.9912, valid_acc: {value / 100:.5f}"
            for n, value in enumerate(values, 1)
        ]
        return [bar, printed("\n".join(said))]
    return [bar]


def count_line(style: Style, run: str) -> str:
    sizes = sizes_of(run, "course")
    if style.count == "peft":
        share = 100 * sizes.added / sizes.whole
        return f"trainable params: {sizes.added:,} || all params: {sizes.whole:,} || trainable%: {share:.4f}"
    return f"Number of parameters: {sizes.added if style.count == 'trained' and sizes.added else sizes.whole}"


def closing(book: Book, run: str, size_name: str = "", size: int = 0) -> None:
    """The cells after a training: the number of parameters and the best accuracy."""
    style, best = book.style, book.numbers[run]
    said = FORMATS[style.form](best)
    if style.sizes_by == "line" and size_name:
        said = said.replace(" is:", f" given {size_name} = {size} is:")
    count = count_line(style, run) if style.count != "none" else ""
    accuracy = "print(f'Best model preformance is: %{100 * max(valid_accs):.1f}')"
    counting = "print(f'Number of parameters: {sum(p.numel() for p in model.parameters())}')"
    if style.count_in == "same" or not count or not style.closing:
        text = "\n".join(part for part in (count, said if style.closing else "") if part)
        book.code(f"{counting}\n{accuracy}", *([printed(text)] if text else []))
    elif style.count_in == "before":
        book.code(counting, printed(count))
        book.code(accuracy, printed(said))
    else:
        book.code(accuracy, printed(said))
        book.code(counting, printed(count))


TRAIN = """def train_loop(model, loader, optimizer):
    model.train()
    for batch in tqdm(loader):
        loss = model(**batch.to('cuda')).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

def valid_loop(model, loader):
    model.eval()
    return accuracy.compute()['accuracy']

def fit(model):
    for epoch in range(EPOCHS):
        train_loop(model, train_loader, optimizer)
        valid_accs.append(valid_loop(model, valid_loader))
        display(pd.DataFrame(results).set_index('epoch'))"""

SCRATCH = {
    2: ("SoftPrompt", "n_tokens", "N_SOFT_PROMPT_TOKENS"),
    3: ("AdapterLayer", "bottleneck_size", "BOTTLENECK_SIZE"),
    5: ("LoRALinear", "rank", "RANK"),
}
LIBRARY = {
    2: (
        "N_SOFT_PROMPT_TOKENS",
        "soft_token_num",
        "from opendelta import SoftPromptModel",
        "delta_model = SoftPromptModel(backbone_model=model, {keyword}={value})\n"
        "delta_model.freeze_module(exclude=['deltas'])",
    ),
    4: (
        "BOTTLENECK_SIZE",
        "reduction_factor",
        "from adapters import AdapterTrainer, PfeifferConfig",
        "config = PfeifferConfig({keyword}={value})\nmodel.add_adapter('imdb', config=config)\n"
        "model.train_adapter('imdb')",
    ),
    5: (
        "RANK",
        "r",
        "from peft import LoraConfig, get_peft_model",
        "peft_config = LoraConfig(task_type='SEQ_2_SEQ_LM', {keyword}={value}, lora_alpha=4,"
        " target_modules=['q', 'v'])\n"
        "model = get_peft_model(model, peft_config)",
    ),
}


def notebook(
    number: int, style: Style | None = None, numbers: dict[str, float] | None = None, seed: int = 0
) -> bytes:
    """The bytes of the course's notebook `number`, completed in a style; `seed`: of its epochs."""
    style = style or Style()
    book = Book(style, numbers or NUMBERS, 1_000 * seed)
    _start(book, number)
    if number != 4:
        _scratch(book, number)
    if number in LIBRARY:
        _library(book, number)
    elif number == 3:
        book.text("# Use external library")
    return book.finished()


def _start(book: Book, number: int) -> None:
    book.text("# Homework 1 Part 2\nIn this part a parameter-efficient method (PEFT) is put into T5.")
    book.code(
        "!pip install -q transformers datasets",
        printed("\x1b[2K     \x1b[90m━━━━━\x1b[0m \x1b[32m7.2/7.2 MB\x1b[0m"),
    )
    book.text("### Import libraries")
    book.code("import torch\nfrom torch import nn\nfrom transformers import T5ForConditionalGeneration")
    book.text("### Constants")
    constants = "BATCH_SIZE = 32\nEPOCHS = 10\nLR = 1e-4\nALPHA = 4.0"
    if number in SCRATCH or number in LIBRARY:
        name = SCRATCH[number][2] if number in SCRATCH else LIBRARY[number][0]
        constants += f"\n{name} = {10 if number == 2 else 8}"
    book.code(constants)
    book.text("### Define related functions")
    book.code(TRAIN)


def _scratch(book: Book, number: int) -> None:
    run = next(run for run in RUNS.values() if run.notebook == number and run.library in ("none", "scratch"))
    if number in SCRATCH:
        made, argument, constant = SCRATCH[number]
        book.code(f"class {made}(nn.Module):\n    def __init__(self, module, {argument}):\n        pass")
        book.code(
            f"def mutate(model):\n    for module in model.modules():\n        {made}(module, {constant})"
        )
        book.code("model = T5ForConditionalGeneration.from_pretrained('t5-small')\nmutate(model)")
    else:
        book.code("model = T5ForConditionalGeneration.from_pretrained('t5-small')")
    book.text("# Train and evaluate")
    best = book.numbers[run.id]
    book.code("fit(model)", *training(book.style, best, seed=book.seed + len(run.id)))
    book.text("### Best Performance and number of parameters")
    style = book.style
    book.style = Style(**{**vars(style), "count": "whole" if style.count == "peft" else style.count})
    closing(book, run.id)
    book.style = style
    if number in SCRATCH:
        book.text("### Save PEFT file")
        book.code(
            "torch.save({k: v for k, v in model.state_dict().items() if 'sharif_llm' in k}, 'method.pt')"
        )


def _library(book: Book, number: int) -> None:
    constant, keyword, imports, build = LIBRARY[number]
    style = book.style
    runs = [run for run in RUNS.values() if run.notebook == number and run.library not in ("none", "scratch")]
    runs.sort(key=lambda run: next(iter(run.hyperparameters.values())), reverse=style.order != "forwards")
    sizes = [int(next(iter(run.hyperparameters.values()))) for run in runs]
    book.text("# Use external library")
    book.code(imports)
    if style.sizes_by == "loop":
        _in_a_loop(book, runs, sizes, constant, keyword, build)
        return
    if style.sizes_by == "function":
        body = build.format(keyword=keyword, value=_value(keyword, "size")).replace("\n", "\n    ")
        book.code(f"def run(size):\n    model = load()\n    {body}\n    fit(model)")
    for run, size in zip(runs, sizes, strict=True):
        best = book.numbers[run.id]
        outputs = training(style, best, seed=book.seed + len(run.id) + size)
        name = constant
        if style.sizes_by in ("constant", "line"):
            name = constant
            book.code(f"{constant} = {size}")
        elif style.sizes_by == "heading":
            book.text(f"### Fine-Tuning With {constant} = {size}")
        if style.sizes_by == "function":
            book.code(f"run({size})", *outputs)
        else:
            value = {"constant": constant, "line": constant, "keyword": str(size)}.get(
                style.sizes_by, "CHOSEN"
            )
            source = build.format(keyword=keyword, value=_value(keyword, value))
            if style.sizes_by in ("heading", "count"):
                source = f"CHOSEN = int(input())\n{source}"
            book.code(f"model = T5ForConditionalGeneration.from_pretrained('t5-small')\n{source}")
            book.code("fit(model)", *outputs)
        book.text("### Best Performance and number of parameters")
        closing(book, run.id, name.lower(), size)


def _value(keyword: str, value: str) -> str:
    return f"model.config.d_model / {value}" if keyword == "reduction_factor" else value


def _in_a_loop(book: Book, runs: list, sizes: list[int], constant: str, keyword: str, build: str) -> None:
    body = build.format(keyword=keyword, value=_value(keyword, constant)).replace("\n", "\n    ")
    source = f"for {constant} in {sizes}:\n    model = load()\n    {body}\n    fit(model)"
    outputs = []
    for run, size in zip(runs, sizes, strict=True):
        best = book.numbers[run.id]
        outputs += training(book.style, best, seed=book.seed + len(run.id) + size)
        said = [count_line(book.style, run.id)] if book.style.count != "none" else []
        said += [FORMATS[book.style.form](best)] if book.style.closing else []
        outputs += [printed("\n".join(said))] if said else []
    book.code(source + "\n    print('Best model preformance is:', max(valid_accs))", *outputs)


def styles() -> dict[str, Style]:
    """The variants: each form alone, and the ways of saying which run it is in both orders."""
    made = {f"form {form}": Style(form=form) for form in FORMATS}
    for sizes_by, order in itertools.product(
        ("constant", "heading", "keyword", "function", "loop", "line"), ("forwards", "backwards")
    ):
        made[f"size by {sizes_by}, {order}, no count"] = Style(sizes_by=sizes_by, order=order, count="none")
        made[f"size by {sizes_by}, {order}, no closing line"] = Style(
            sizes_by=sizes_by, order=order, count="none", closing=False
        )
    for count, where, order in itertools.product(
        ("whole", "trained", "peft"), ("same", "before", "after"), ("forwards", "backwards")
    ):
        made[f"size by count {count} {where}, {order}"] = Style(
            count=count, count_in=where, sizes_by="count", order=order
        )
    for shown in ("plain", "growing", "prints", "none"):
        made[f"table {shown}"] = Style(table=shown)
        if shown != "none":
            made[f"table {shown}, no closing line"] = Style(table=shown, closing=False)
    for executed in ("gaps", "out of order", "missing counts"):
        made[f"executed {executed}"] = Style(executed=executed)
    return made
