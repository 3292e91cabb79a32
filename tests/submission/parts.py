"""Right submissions to be damaged: the notebooks of the kit in tiny, weights, a PDF; how they come."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from peft_scratch.assignment import RUNS
from peft_scratch.submission.findings import Checked
from peft_scratch.submission.sizes import sizes_of

NUMBERS = {run.id: run.published[0] for run in RUNS.values()}
FIRST_A = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_A"
FIRST_B = "encoder.block.0.layer.0.SelfAttention.q.sharif_llm_B"
PROMPT = "encoder.embed_tokens.sharif_llm_soft_prompts.prompt_emb"
STEM = "400123456_Ada_Lovelace"


# A right submission


def notebook(number: int, profile: str = "course") -> nbformat.NotebookNode:
    """What the kit's notebook of that number leaves of its ten numbers, in tiny."""
    runs = [run for run in RUNS.values() if run.notebook == number]

    def said(text: str) -> list:
        return [new_output("stream", name="stdout", text=text)]

    cells = [new_code_cell("bench = Session.open()", outputs=said(f"profile    {profile}, because it is\n"))]
    for run in runs:
        best = NUMBERS[run.id]
        log = [f"Number of parameters: {sizes_of(run.id, profile).whole:,}"]
        for epoch in range(1, 11):
            bar = f"\repoch {epoch}/10: 100%|##| 9/9\r{' ' * 24}\r"
            accuracy = best - abs(epoch - 7) / 10
            log.append(f"{bar}epoch {epoch}/10: loss 0.3, test accuracy {accuracy:.1f} %, 9 s")
        source = f'bench.train(bench.prepare("{run.id}"))'
        cells.append(new_code_cell(source, outputs=said("\n".join(log) + "\n")))
    rows = [f"| {run.title} | {NUMBERS[run.id]:.1f} | - |" for run in runs]
    table = "\n".join(["|  | for the report, % | file to hand in |", "| :--- | ---: | ---: |", *rows])
    shown = [new_output("display_data", data={"text/markdown": table, "text/plain": table})]
    cells += [new_markdown_cell("## What to hand in"), new_code_cell("show.hand_in(bench)", outputs=shown)]
    made = new_notebook(cells=cells)
    count(made)
    return made


def count(made: nbformat.NotebookNode) -> None:
    for n, cell in enumerate(code_cells(made), start=1):
        cell.execution_count = n


def code_cells(made: nbformat.NotebookNode) -> list:
    return [cell for cell in made.cells if cell.cell_type == "code"]


def weights(profile: str = "course") -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        RUNS[name].weight_file: {
            entry: torch.randn(shape, generator=generator) / 50
            for entry, shape in sizes_of(name, profile).entries.items()
        }
        for name in ("prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8")
    }


def report_lines(profile: str = "course") -> list[str]:
    lines = [f"{RUNS[name].id}: {number:.1f}" for name, number in NUMBERS.items()]
    counts = [f"adds {sizes_of(name, profile).added:,}" for name in RUNS]
    by_hand = "by hand: 12 x (2 x 512 x 8 + 8 + 512)"
    return [*lines, *counts, by_hand, f"student number {STEM[:9]}"]


def pdf(lines: list[str]) -> bytes:
    """A page with these lines, as small as a PDF gets."""
    text = " ".join(f"({line}) Tj T*" for line in lines)
    content = f"BT /F1 9 Tf 40 800 Td 12 TL {text} ET" if lines else ""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = "%PDF-1.4\n", []
    for n, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{n} 0 obj\n{body}\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    out += "".join(f"{place:010} 00000 n \n" for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.encode("latin-1")


def saved(content: object, **options: object) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, **options)
    return data.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return data.getvalue()


@dataclass
class Submission:
    """The parts of a submission, to be damaged before they are packed, or `files` after."""

    notebooks: dict[str, nbformat.NotebookNode | bytes]
    weights: dict[str, dict[str, torch.Tensor] | bytes]
    report: bytes
    more: dict[str, bytes] = field(default_factory=dict)  # in the weights' zip
    stem: str = STEM
    #: Applied to the finished files, by name.
    afterwards: object = None

    def parts(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        books = {
            name: made if isinstance(made, bytes) else nbformat.writes(made).encode()
            for name, made in self.notebooks.items()
        }
        tensors = {
            name: content if isinstance(content, bytes) else saved(content)
            for name, content in self.weights.items()
        }
        return books, tensors | self.more

    def files(self) -> dict[str, bytes]:
        books, tensors = self.parts()
        files = {
            f"{self.stem}_notebooks.zip": zipped(books),
            f"{self.stem}_weights.zip": zipped(tensors),
            f"{self.stem}.pdf": self.report,
        }
        if self.afterwards:
            self.afterwards(files)
        return files

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)
        return folder

    def write_unpacked(self, folder: Path) -> Path:
        """As the kit leaves them."""
        books, tensors = self.parts()
        report = {"report.pdf": self.report}
        for part, files in (("notebooks", books), ("weights", tensors), ("report", report)):
            (folder / part).mkdir(parents=True)
            for name, content in files.items():
                (folder / part / name).write_bytes(content)
        return folder


def lora_not_trained(s: Submission) -> None:
    """B of every place is zero."""
    s.weights["lora.pt"] = {name: entry * name.endswith("A") for name, entry in s.weights["lora.pt"].items()}


def an_offline_notebook(s: Submission) -> None:
    """The notebooks are of the offline profile."""
    s.notebooks = {f"0{n}_part.ipynb": notebook(n, "offline") for n in range(1, 6)}


def codes(checked: Checked, mark: str | None = None) -> set[tuple[int, str]]:
    return {(found.item, found.code) for found in checked.findings if mark in (None, found.mark)}
