"""The report's figures: matplotlib draws them as SVG, Typst sets their labels.

Text stays text in the SVG. Typst sets it in the PDF and in the pictures, because Typst shapes Persian and
not every matplotlib does. Every figure is drawn from the results alone, and is None if nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from peft_scratch.reporting.figures.bars import knowledge, memory, seconds
from peft_scratch.reporting.figures.lines import curves, small
from peft_scratch.reporting.figures.scatter import accuracy
from peft_scratch.reporting.figures.style import styled, svg
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.languages import Language


def draw(inputs: Inputs, language: Language) -> Mapping[str, str]:
    """The figures that there is data for, as SVG, by name."""
    with styled(language):
        figures = {
            "accuracy": accuracy(inputs, language),
            "curves": curves(inputs.runs, language),
            "memory": memory(inputs.runs, language),
            "knowledge": knowledge(inputs.runs, language),
            "small_data": small(inputs.small_data, language),
            "time": seconds(inputs.runs, language),
        }
        return {name: svg(figure) for name, figure in figures.items() if figure is not None}
