"""The solution, as it is marked in the source: taken out of the kit, and left blank in `layers.py`.

`# BEGIN SOLUTION` and `# END SOLUTION` enclose what a student writes: lines inside a function or method that
`blanks` describes, or a whole helper that only the solution needs.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from peft_scratch.edition.blanks import BLANKS, BY_NAME, GROUPS, Blank
from peft_scratch.edition.layers_file import without_markers

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
#: How much is blank: only the lines that matter, or each function and class whole.
LEVELS = ("lines", "classes")

_HEAD = '''"""Your layers. The kit takes them from here: what you train, count and hand in is this code.

Each function and class below is yours to write; its docstring says what is asked, the shapes, and where to
read. Names and signatures stay as they are. Save the file and run a cell again: the notebook takes the new
code. `peft-scratch self-check layers.py`, or the cell under each task, says what is wrong and where to read.
"""

'''
_ALWAYS_IMPORTED = (
    "import math",
    "import torch",
    "from torch import Tensor, nn",
    "from torch.nn import functional as F",
)


@dataclass(frozen=True)
class Source:
    """A module of the kit that has solutions in it."""

    module: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def regions(self) -> list[tuple[int, int]]:
        """First and last line of each solution, its markers included; lines count from 1."""
        return regions(self.lines, self.module)

    def definitions(self) -> dict[str, ast.stmt]:
        """The top-level functions, classes and constants, by name."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = node
            elif isinstance(node, ast.Assign):
                found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        return found

    def last(self, node: ast.stmt) -> int:
        """The last line of `node`, with the marker after it where a solution ends there."""
        end = node.end_lineno or node.lineno
        return max([end, *(b for a, b in self.regions if _first(node) <= a <= end)])

    def code(self, node: ast.stmt) -> str:
        """The source of `node`, markers included."""
        return "\n".join(self.lines[_first(node) - 1 : self.last(node)])


def regions(lines: list[str], where: str) -> list[tuple[int, int]]:
    """First and last line of each marked solution in `lines`, counted from 1.

    Raises:
        ValueError: the markers do not pair up.
    """
    found, start = [], None
    for number, line in enumerate(lines, start=1):
        if line.strip() == BEGIN and start is None:
            start = number
        elif line.strip() == END and start is not None:
            found.append((start, number))
            start = None
        elif line.strip() in (BEGIN, END):
            raise ValueError(f"{where}, line {number}: the markers of the solutions do not pair up")
    if start is not None:
        raise ValueError(f"{where}, line {start}: this solution has no end")
    return found


def sources() -> dict[str, Source]:
    """The modules that have solutions, by name."""
    found = {}
    for module in dict.fromkeys(blank.module for blank in BLANKS):
        origin = find_spec(module).origin  # type: ignore[union-attr]
        found[module] = Source(module, Path(origin).read_text(encoding="utf-8"))  # type: ignore[arg-type]
    return found


def without_solution(source: Source) -> str:
    """The text of the module in the edition, where the student's code comes from `layers.py`."""
    lines = list(source.lines)
    cuts: list[tuple[int, int, list[str]]] = [
        (start, end, []) for start, end in source.regions if not lines[start - 1].startswith(" ")
    ]
    for name, node in source.definitions().items():
        if name in BY_NAME and BY_NAME[name].module == source.module:
            cuts.append((_first(node), source.last(node), [f'{name} = of_student("{name}")']))
    for start, end, instead in sorted(cuts, reverse=True):
        lines[start - 1 : end] = instead
    text = "\n".join(lines) + "\n"
    if BEGIN in text:
        raise ValueError(f"{source.module}: there is a solution that no blank describes")
    return _with_imports(text)


def layers(level: str = "lines", solved: bool = False) -> str:
    """The text of `layers.py`.

    Args:
        level: how much is blank, one of `LEVELS`.
        solved: with the solution put in, as a lecturer needs it to try the edition.
    """
    of_module, parts, copied = sources(), [], set()
    for group, (heading, check) in GROUPS.items():
        parts.append(f"# {heading}\n# Check: {check}() in a notebook")
        for blank in (one for one in BLANKS if one.group == group):
            source = of_module[blank.module]
            node = source.definitions()[blank.name]
            code = without_markers(source.code(node)) if solved else _blank(source, node, blank, level)
            for helper in _helpers(source, code):
                if helper not in copied:
                    copied.add(helper)
                    parts.append(without_markers(source.code(source.definitions()[helper])))
            parts.append(code)
    body = "\n\n\n".join(parts) + "\n"
    return f"{_HEAD}from __future__ import annotations\n\n{_imports(of_module.values(), body)}\n\n{body}"


def solution_lines() -> list[str]:
    """The lines of all solutions in the kit's modules that would give an answer away, without spaces."""
    found = []
    for source in sources().values():
        for start, end in source.regions:
            found += source.lines[start : end - 1]
    return telling(found)


def telling(lines: Iterable[str]) -> list[str]:
    """Those of `lines` that would give an answer away, without spaces and comments."""
    bare = (squeezed(line.partition("  #")[0]) for line in lines)
    whole = (line for line in bare if not line.endswith(("(", "[", "{")))
    return [line for line in whole if len(line) >= 16 and not line.startswith(("#", '"""', "def"))]


def squeezed(text: str) -> str:
    """`text` without any space."""
    return "".join(text.split())


# How a definition is left blank


def _blank(source: Source, node: ast.stmt, blank: Blank, level: str) -> str:
    if isinstance(node, ast.FunctionDef):
        return _blank_function(source, node, blank.name, blank.text, level)
    assert isinstance(node, ast.ClassDef)
    parts = ["\n".join([*_signature(source, node), _docstring(blank.text, 4)])]
    for item in node.body:
        if not isinstance(item, ast.FunctionDef):
            continue
        if item.name in blank.methods:
            name, text = f"{blank.name}.{item.name}", blank.methods[item.name]
            if level == "lines" and (hint := blank.hint(item.name)):
                text = f"{text}\n\n{hint}"
            parts.append(_blank_function(source, item, name, text, level))
        elif level == "lines":
            parts.append(source.code(item))
    return "\n\n".join(parts)


def _blank_function(source: Source, node: ast.FunctionDef, name: str, text: str, level: str) -> str:
    head = _signature(source, node)
    indent = node.col_offset + 4
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    after_head = _first(node) + len(head)
    start = (first.end_lineno or 0) + 1 if is_docstring else after_head
    asked = [f"{' ' * indent}# Yours.", f'{" " * indent}raise NotImplementedError("{name} is still blank.")']
    inside = [(a, b) for a, b in source.regions if start <= a and b <= source.last(node)]
    body = []
    if level == "lines":
        for a, b in inside:
            body += [*source.lines[start - 1 : a - 1], *asked]
            start = b + 1
        body += source.lines[start - 1 : source.last(node)]
    else:
        body = asked
    return "\n".join([*head, _docstring(text, indent), *body])


def _signature(source: Source, node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """Decorators and the lines up to the colon."""
    lines = source.lines[_first(node) - 1 :]
    length = 1 + next(i for i, line in enumerate(lines) if line.rstrip().endswith(":"))
    return lines[:length]


def _docstring(text: str, indent: int) -> str:
    width = 110 - indent
    parts = (
        part
        if re.match(r"(Args|Returns|Raises):", part)
        else textwrap.fill(part, width, break_long_words=False)
        for part in text.split("\n\n")
    )
    text = "\n\n".join(parts)
    quoted = f'"""{text}"""' if "\n" not in text else f'"""{text}\n"""'
    return textwrap.indent(quoted, " " * indent, lambda line: bool(line.strip()))


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])


# What comes with it: helpers and imports


def _helpers(source: Source, code: str) -> list[str]:
    """The module's own definitions that `code` needs besides the blanks, the innermost first."""
    there, needed = source.definitions(), []

    def add(text: str) -> None:
        for name in _names(ast.parse(textwrap.dedent(text))):
            if name in there and name not in BY_NAME and name not in needed:
                add(source.code(there[name]))
                needed.append(name)

    add(code)
    return needed


def _names(tree: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _imports(modules: Iterable[Source], body: str) -> str:
    """The import statements of `modules` that `body` needs, and what every student needs."""
    tree = ast.parse(body)
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    wanted = set(_names(tree)) - defined - {"math", "torch", "nn", "Tensor", "F"}
    statements, parts = set(_ALWAYS_IMPORTED), {}
    for node in (node for source in modules for node in source.tree.body):
        names = {name.name for name in getattr(node, "names", ()) if (name.asname or name.name) in wanted}
        if isinstance(node, ast.Import):
            statements |= {f"import {name}" for name in names}
        elif isinstance(node, ast.ImportFrom) and names:
            parts.setdefault(node.module, set()).update(names)
    statements |= {f"from {module} import {', '.join(sorted(names))}" for module, names in parts.items()}
    standard, others, own = [], [], []
    for statement in sorted(statements, key=lambda statement: (statement.startswith("from"), statement)):
        package = re.split(r"[ .]", statement)[1]
        block = (
            standard if package in sys.stdlib_module_names else own if package == "peft_scratch" else others
        )
        block.append(statement)
    return "\n\n".join("\n".join(block) for block in (standard, others, own) if block)


def _with_imports(text: str) -> str:
    """`text` with `of_student` imported, and without the imports that it no longer needs."""
    tree = ast.parse(text)
    used, lines = set(_names(tree)), text.splitlines()
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines.insert(imports[-1].end_lineno, "from peft_scratch.edition.layers_file import of_student")
    for node in reversed(imports):
        module = getattr(node, "module", None)
        kept = [
            n for n in node.names if (n.asname or n.name).partition(".")[0] in used or module == "__future__"
        ]
        if len(kept) < len(node.names):
            named = ", ".join(f"{n.name} as {n.asname}" if n.asname else n.name for n in kept)
            start = f"from {module} import " if module else "import "
            lines[node.lineno - 1 : node.end_lineno] = [start + named] if kept else []
    return "\n".join(lines) + "\n"
