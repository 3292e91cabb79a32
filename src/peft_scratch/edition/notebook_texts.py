"""What the edition's notebooks say in place of the kit's texts, by number and cell, with no answer in it."""

# ruff: noqa: E501 - paragraphs of Markdown.

from __future__ import annotations

#: Cells that show an answer.
LEFT_OUT = {5: ("trap-init", "trap-init-code")}

#: Sentences that are left out of the idea: they announce the code, which comes after the tasks, or give an answer.
IDEA_WITHOUT = {
    (2, "idea"): r"The code shows(?s:.*)",
    (3, "idea"): r"T5 has\s+one feed-forward layer in each block of its encoder and its decoder\.(?s:.*)",
    (5, "idea"): r"The code shows(?s:.*)",
}

#: The text above the tasks of a notebook.
TASKS = """## Yours: `layers.py`

Here you write {pieces} of code, for {points} of this notebook's {whole} points. The other {rest} are for the executed notebook: its hand count, its runs, its numbers and its files.

The code goes into `layers.py`, beside the folder `notebooks`. Its docstrings say what is asked, the shapes and where to read. Write one piece, save the file, and run the cell under the task: the cell says what is wrong. The kit then trains, counts and saves with your code. Until your layers are right, the times above are only rough.

In Colab, open `peft-scratch/layers.py` in the file browser on the left. Download it before you leave, because it is lost with the machine, and upload it into the same place next time."""

#: The text below them, if an earlier notebook asks for some of the code.
EARLIER = """This notebook also needs {names}, which notebook 2 asks for. If you start with this notebook, write these three first: their tasks and what to read are in notebook 2 and in the docstrings."""

#: The text above the code that a notebook shows.
YOUR_CODE = {0: "Your code, as the kit has it now:", 4: "The code that calls yours:"}

#: What a marked cell of a notebook asks for.
ASKED_IN_CELLS = {
    (1, "count-code"): "the number of parameters of a T5 of `config`, derived by hand; return it.",
    (2, "count-code"): "the number of trainable parameters, from `n` and `d`, as `by_hand`.",
    (3, "count-code"): "the number of trainable parameters, from `config` and `b`, as `by_hand`.",
    (4, "count-code"): "the number of trainable parameters, from `config` and `b`, as `by_hand`.",
    (5, "count-code"): "the number of trainable parameters, from `config` and `r`, as `by_hand`.",
}

_COUNT = """### The parameters, by hand and by torch

{}

Derive the number by hand, in letters first and then with the sizes of `model.config`. The same derivation belongs
in your report. The cell compares it with what torch counts:"""

#: Texts in place of the kit's.
REPLACED = {
    (1, "count"): _COUNT.format(
        "Count the whole model. Which matrices does an attention have, which a feed-forward layer? Where are the layer "
        "norms, and how many relative positions are there? What do encoder, decoder and output share? Look at "
        "`model.named_parameters()`, then write the sum for any `config`."
    ),
    (2, "count"): _COUNT.format("What does a soft prompt of $N$ rows add to a model of width $d$?"),
    (3, "injection"): "## Into the model\n\nWe take a fresh base and put your bottleneck in the places "
    "that `adapter_places` names:",
    (3, "count"): _COUNT.format(
        "What does one bottleneck of width $b$ add to a model of width $d$, and how many bottlenecks are there?"
    ),
    (4, "idea"): """## The idea

The adapter is the one of notebook 3, with the Pfeiffer placement (Pfeiffer et al. 2021, *AdapterFusion*; the
bottleneck is from Houlsby et al. 2019, section 2.1).

AdapterHub's library `adapters` calls it a sequential bottleneck and gives its width as a *reduction factor* $d / b$.
Its double form is Houlsby's, with twice as many places. The library prepares a model, adds an adapter to it, and
freezes everything else; its page on adapter methods explains the calls. Two of them are yours.""",
    (4, "count"): _COUNT.format("Of which part of a bottleneck does the size not depend on $b$?"),
    (5, "count"): _COUNT.format(
        "How many attention layers does the model have? What do $A$ and $B$ add to each layer that is replaced?"
    ),
    **{
        (number, "hand-in"): f"""## Hand in

From this notebook: the notebook itself{what}. This cell keeps the executed notebook beside its results and shows
what is still missing. In JupyterLab and VS Code, save the notebook before you run it. The report is yours to write:
put it into the folder that the cell names, as `report/report.pdf`. When all is there, the cell checks everything and
packs the three files to hand in; it then asks once for your name and student number."""
        for number, what in {
            1: " and one number",
            2: ", three numbers and `prompts.pt`",
            3: ", one number and `adapter.pt`",
            4: " and two numbers",
            5: ", three numbers and `lora.pt`",
        }.items()
    },
}
