"""The page on exactness, made from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterable

_LIBRARIES = {"lora": "LoRA", "adapter": "Adapter", "soft_prompt": "Soft prompt", "base": "The base"}
#: What is compared, by the name of its column.
_COMPARED = {
    "logits": "logits",
    "loss": "loss",
    "gradients": "gradients",
    "after the steps": "weights_after_steps",
}
_OF_VERSIONS = ["method", "attention", "logits", "largest logit", *list(_COMPARED)[1:], "same tokens"]
_ALSO = {"moved": "moved", "control": "control", "base alone": "base_alone"}


def page(results: dict) -> str:
    """The results of `parity.run` as Markdown."""
    bases = results["bases"]
    rows = [row for base in bases for row in base["rows"]]
    passed = sum(row["equal"] for row in rows)
    detected = sum(row["control_detected"] for row in rows)
    exact = sum(largest(row) == 0 for row in rows)
    lines = [
        "# From scratch equals the library",
        "",
        f"Every method from scratch compared with each library that has it: {len(rows)} comparisons on "
        f"{len(bases)} base{'s' if len(bases) > 1 else ''}. {exact} are equal to the last bit in "
        f"everything compared, {passed} are within the limits, and {detected} of {len(rows)} negative "
        "controls are detected.",
        "",
        "Both sides get the same weights (the method's start plus noise of standard deviation "
        f"{results['noise']}, because LoRA and the adapter start as the identity) and the same batches of "
        "real reviews, in float32 with dropout off. The columns show max |difference| over all entries: of "
        "the logits, of the loss, of every trainable gradient, and of every trained weight after steps of "
        f"AdamW at the assignment's learning rate. The limit is {_number(results['limit'])}, and "
        f"{_number(results['limit_after_steps'])} after the steps. *Moved* shows how far the steps moved the "
        "weights: equal weights are the result of equal steps. *Control* is max |difference| of the logits "
        f"when one weight of the library is moved by {results['nudge']}; it has to exceed the limit. *Base "
        "alone* shows how far the library's version of the base differs without any method in it.",
    ]
    for base in bases:
        lines += [
            "",
            f"## {base['title']}",
            "",
            f"{base['about']} Each batch has {base['reviews']} reviews of at most {base['tokens']} tokens; "
            f"there are {base['steps']} steps. "
            f"{', '.join(f'{library} {number}' for library, number in base['versions'].items())}.",
            "",
            *_table(["from scratch", "against", *_COMPARED, *_ALSO], map(_row, base["rows"])),
        ]
        if others := [row for row in base["rows"] if row["logits_in_our_order"] is not None]:
            lines += ["", "Summed in our own order, the logits differ by:", ""]
            lines += [
                f"- {row['ours']} against {row['library']}: {_number(row['logits_in_our_order'])}"
                for row in others
            ]
    lines += ["", "## Where the libraries differ", ""]
    lines += _table(["", "library", "about", "how", "where"], map(_difference, results["differences"]))
    lines += _versions(results.get("versions", []))
    lines += [
        "",
        "No library uses dropout inside its layers here: all have 0, their default.",
        "",
    ]
    return "\n".join(lines)


def _versions(measured: list[dict]) -> list[str]:
    """The section on two versions of transformers, with a table for each base."""
    if not measured:
        return []
    newer, older = measured[0]["versions"]
    plain = [row for base in measured for row in base["rows"] if row["attention"] == "eager"]
    exact = sum(largest(row) == 0 for row in plain)
    lines = [
        "",
        "## Two versions of transformers",
        "",
        f"The kit uses transformers {newer}; `adapters` was made for {older}. Each method computes the same "
        "thing on both versions, each in a process of its own, on the same weights and batches; on "
        f"{older}, AdapterHub is as it comes. The steps are {measured[0]['steps']} of gradient descent.",
        "",
        f"With `eager`, the plain attention of both versions, {exact} of {len(plain)} rows are equal to the "
        f"last bit in everything compared; the limit of the others is {_number(measured[0]['limit'])}. They "
        "are those in which T5's relative position bias trains. Version 4 adds the mask to it once "
        "(models/t5/modeling_t5.py, T5Attention.forward: `position_bias = position_bias + causal_mask`), "
        "version 5 adds each to the scores in every block (eager_attention_forward: `attn_weights = "
        "attn_weights + position_bias`), so the gradient of the bias is summed in another order. With "
        "`sdpa`, which version 5 uses by default, T5 calls torch's fused attention "
        "(models/t5/modeling_t5.py, T5Attention.forward: `attention_interface`), which adds up in another "
        "order: the limit is the same, but relative to the largest logit, or gradient, if that is above 1.",
    ]
    for base in measured:
        lines += [
            "",
            f"### {base['title']}",
            "",
            *_table(_OF_VERSIONS, map(_version_row, base["rows"])),
        ]
    return lines


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, *rows)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]


def _row(row: dict) -> list[str]:
    verdict = "" if row["equal"] and row["control_detected"] else " **FAILED**"
    numbers = [_number(row[name]) for name in (_COMPARED | _ALSO).values()]
    return [row["ours"], f"{row['library']} {row['what']}{verdict}", *numbers]


def _version_row(row: dict) -> list[str]:
    verdict = "" if row["equal"] else " **FAILED**"
    logits, *others = (_number(row[name]) for name in _COMPARED.values())
    numbers = [logits, f"{row['largest_logit']:.1f}", *others]
    return [row["method"] + verdict, row["attention"], *numbers, "yes" if row["tokens"] else "no"]


def _difference(one: dict) -> list[str]:
    source = f"`{one['package']}` {one['version']}, `{one['file']}`, line {one['line']}: `{one['code']}`"
    return [_LIBRARIES[one["kind"]], one["library"], one["about"], one["text"], source]


def largest(row: dict) -> float:
    """The largest of the differences in a row."""
    return max(row[name] for name in _COMPARED.values())


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"
