"""What the student says, what the report rests on, and who wrote which part."""

from __future__ import annotations

from collections.abc import Set

from peft_scratch.reporting.notes import parse, reads_right_to_left
from peft_scratch.reporting.sections.blocks import Block, Page


def discussion(page: Page) -> list[Block]:
    """The student's notes; without them the report says that they are missing."""
    notes = page.inputs.notes
    # In the report's own language if there are such notes, else in the other.
    text = notes.get(page.language.code) or next(iter(notes.values()), "")
    heading = page.heading("discussion")
    if not text:
        file = page.language.ltr(page.language.notes_file)
        return [heading, {"kind": "alarm", "text": page.say("discussion_missing", file=file)}]
    direction = "rtl" if reads_right_to_left(text) else "ltr"
    return [heading, {"kind": "notes", "direction": direction, "blocks": parse(text)}]


def sources(page: Page) -> list[Block]:
    """The references, and the line on who wrote what."""
    cited = {of for run in page.runs.values() for of in (run.config.kind, run.config.library)}
    return [
        page.heading("references"),
        {"kind": "references", "items": references(cited)},
        page.heading("honesty"),
        page.text(
            page.say(
                "honesty_text" if page.inputs.notes else "honesty_text_missing",
                kit=page.language.ltr("peft-scratch"),
            )
        ),
    ]


# The references

#: By the method or library that they are cited for. Those under "" are always cited.
_REFERENCES: dict[str, tuple[str, ...]] = {
    "": (
        "Raffel, C. et al. (2020). Exploring the limits of transfer learning with a unified text-to-text "
        "transformer. Journal of Machine Learning Research 21(140). [T5]",
        "Maas, A. L. et al. (2011). Learning word vectors for sentiment analysis. ACL. [IMDB reviews]",
        "Socher, R. et al. (2013). Recursive deep models for semantic compositionality over a sentiment "
        "treebank. EMNLP. [SST-2]",
        "Loshchilov, I. and Hutter, F. (2019). Decoupled weight decay regularization. ICLR. [AdamW]",
        "McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or "
        "percentages. Psychometrika 12(2). [comparison of two runs]",
        "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 6(2). [correction for several comparisons]",
    ),
    "soft_prompt": (
        "Lester, B., Al-Rfou, R. and Constant, N. (2021). The power of scale for parameter-efficient prompt "
        "tuning. EMNLP. [soft prompt]",
    ),
    "adapter": (
        "Houlsby, N. et al. (2019). Parameter-efficient transfer learning for NLP. ICML. [adapter]",
        "Pfeiffer, J. et al. (2021). AdapterFusion: non-destructive task composition for transfer learning. "
        "EACL. [placement of the adapter]",
    ),
    "lora": ("Hu, E. J. et al. (2022). LoRA: low-rank adaptation of large language models. ICLR. [LoRA]",),
    "opendelta": (
        "Hu, S. et al. (2023). OpenDelta: a plug-and-play library for parameter-efficient adaptation of "
        "pre-trained models. ACL, system demonstrations.",
    ),
    "adapterhub": (
        "Poth, C. et al. (2023). Adapters: a unified library for parameter-efficient and modular transfer "
        "learning. EMNLP, system demonstrations. [AdapterHub]",
    ),
    "peft": (
        "Mangrulkar, S. et al. (2022). PEFT: state-of-the-art parameter-efficient fine-tuning methods. "
        "github.com/huggingface/peft.",
    ),
}


def references(cited: Set[str]) -> list[str]:
    """The references for the methods and libraries in `cited`, in alphabetical order.

    Args:
        cited: kinds of methods and names of libraries, as the results give them.
    """
    return sorted(text for key, texts in _REFERENCES.items() if not key or key in cited for text in texts)
