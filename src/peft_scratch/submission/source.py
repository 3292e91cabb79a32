"""What the code of a foreign notebook says about its runs: constants, calls of libraries, loops over sizes.

The code is parsed, never executed. Numbers are followed through names, arithmetic, and calls of functions
that the notebook defines.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import re
import warnings
from dataclasses import dataclass, field

#: The names that a size can have in code, by kind of method.
SIZE_NAMES = {
    "lora": re.compile(r"(?:.*_)?(?:lora_?)?(?:rank|ranks|r|lora_r|lora_dim)(?:_\w*)?", re.IGNORECASE),
    "soft_prompt": re.compile(
        r".*(?:soft_?prompt|soft_?token|virtual_?token|prompt_?token|prompt_?len|prompt_?size|n_?prompt|n_?tokens).*|n",
        re.IGNORECASE,
    ),
    "adapter": re.compile(
        r".*bottleneck.*|.*reduction_?factor.*|adapter_?(?:size|dim|hidden)\w*|b", re.IGNORECASE
    ),
}
#: Calls that build a model with a library, by the last part of their names.
_LIBRARY_CALLS = {
    "lora": {
        *("LoraConfig", "LoRAConfig", "get_peft_model", "LoraModel", "inject_adapter_in_model"),
        "PeftModelForSeq2SeqLM",
    },
    "soft_prompt": {"SoftPromptModel", "PromptTuningConfig", "get_peft_model", "PromptEmbedding"},
    "adapter": {
        *("add_adapter", "train_adapter", "AdapterTrainer", "PfeifferConfig", "SeqBnConfig", "BnConfig"),
        *("DoubleSeqBnConfig", "HoulsbyConfig", "AdapterConfig", "AdapterModel", "Seq2SeqAdapterTrainer"),
        *("AutoAdapterModel", "T5AdapterModel", "set_active_adapters", "BottleneckAdapter"),
    },
}
#: Modules of the libraries, whose import in a part from scratch is worth a look.
LIBRARY_MODULES = {"peft", "opendelta", "adapters", "loralib"}
_TRAINS = re.compile(r"\.backward\(|optim\w*\.step|trainer\.train\(|\.fit\(|Trainer\(|\btrain_?\w*\(")
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_LARGEST_SOURCE, _MOST_STEPS, _DEEPEST = 200_000, 40_000, 5
#: d_model of t5-small, where a notebook computes with it.
_D_MODEL = 512

_Function = ast.FunctionDef | ast.AsyncFunctionDef
#: The values of names; None for a value that was not followed.
_Names = dict[str, object]


@dataclass
class Event:
    """Something that the code of a cell does.

    Attributes:
        what: `size`, `sizes` (a loop over several), `library`, `scratch`.
        values: the sizes.
        by: the call or the name that shows it, for messages.
    """

    what: str
    values: tuple[float, ...] = ()
    by: str = ""


@dataclass
class CodeReader:
    """Reads the cells of one notebook in their order.

    Attributes:
        kind: the kind of method that the notebook is about: `lora`, `soft_prompt` or `adapter`.
        imports: modules that the cells import.
        trains: whether any cell trains a model.
    """

    kind: str
    imports: set[str] = field(default_factory=set)
    trains: bool = False
    _names: _Names = field(default_factory=dict)
    _functions: dict[str, _Function] = field(default_factory=dict)
    _classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)
    _steps: int = 0

    def read(self, source: str) -> list[Event]:
        """The events of a cell."""
        self._events = []
        self._steps = 0
        if len(source) > _LARGEST_SOURCE:
            return []
        self.trains |= bool(_TRAINS.search(source))
        plain = _without_magics(source)
        whole = _parsed(plain)
        # What cannot be parsed as a whole is read line by line.
        pieces = [whole] if whole else map(_parsed, map(str.strip, plain.splitlines()[:2_000]))
        for piece in filter(None, pieces):
            with contextlib.suppress(_Enough, RecursionError):
                self._walk(piece.body, self._names, 0)
        return self._events

    # Statements

    def _walk(self, body: list[ast.stmt], names: _Names, depth: int) -> None:
        for statement in body:
            self._step()
            if isinstance(statement, _Function):
                self._functions[statement.name] = statement
            elif isinstance(statement, ast.ClassDef):
                self._classes[statement.name] = statement
            elif isinstance(statement, ast.Import):
                self.imports |= {module.name.partition(".")[0] for module in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                self.imports.add(str(statement.module).partition(".")[0])
            elif isinstance(statement, (ast.For, ast.AsyncFor)):
                self._loop(statement, names, depth)
            elif hasattr(statement, "body") or hasattr(statement, "cases"):
                self._compound(statement, names, depth)
            else:
                self._simple(statement, names, depth)

    def _compound(self, statement: ast.AST, names: _Names, depth: int) -> None:
        """`if`, `while`, `with`, `try`, `match`: first its head, then every branch."""
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt):
                self._walk([child], names, depth)
            elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
                self._compound(child, names, depth)
            else:
                self._calls(child, names, depth)

    def _simple(self, statement: ast.stmt, names: _Names, depth: int) -> None:
        self._calls(statement, names, depth)
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            return
        for target in targets:
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            for one, expression in pairs:
                got = self._value(expression, names)
                if isinstance(one, ast.Name):
                    names[one.id] = got
                    self._size(one.id, got)
                elif isinstance(one, ast.Attribute):
                    self._size(one.attr, got)

    def _loop(self, loop: ast.For | ast.AsyncFor, names: _Names, depth: int) -> None:
        self._calls(loop.iter, names, depth)
        values = self._value(loop.iter, names)
        name = loop.target.id if isinstance(loop.target, ast.Name) else ""
        if not (isinstance(values, tuple) and values and name):
            self._walk(loop.body, names, depth)
            return
        names[name] = values[0]
        before = len(self._events)
        self._walk(loop.body, names, depth)
        said = self._events[before:]
        others = [event for event in said if event.what != "size"]
        if self._is_size(name) or len(others) < len(said):
            made = tuple(self._as_size(name, value) for value in values)
            self._events[before:] = [*others, Event("sizes", made, f"the loop over {name}")]

    # Calls

    def _calls(self, node: ast.AST, names: _Names, depth: int) -> None:
        for inner in _outside_functions(node):
            self._step()
            if isinstance(inner, ast.Call):
                self._call(inner, names, depth)

    def _call(self, call: ast.Call, names: _Names, depth: int) -> None:
        full = _dotted(call.func)
        last = full.rpartition(".")[2]
        if last in self._classes:
            self._own_class(call, self._classes[last], names)
        elif full in self._functions and depth < _DEEPEST:
            function = self._functions[full]
            local = names | self._bound(function, call, names)
            parameters = {argument.arg for argument in function.args.args}
            for name in [name for name in local if name in parameters]:
                self._size(name, local[name])
            self._walk(function.body, local, depth + 1)
        else:
            callee = full if last == "load" and "AdapterConfig" in full else last
            if callee != last or last in _LIBRARY_CALLS[self.kind] or full == "adapters.init":
                self._events.append(Event("library", (), callee))
            for word in call.keywords:
                if word.arg:
                    self._size(word.arg, self._value(word.value, names), callee)

    def _own_class(self, call: ast.Call, made: ast.ClassDef, names: _Names) -> None:
        """The notebook's own layer: this is a part from scratch, unless the class is no module."""
        bases = " ".join(map(_dotted, made.bases))
        word = {"lora": "lora|low_?rank", "soft_prompt": "prompt", "adapter": "adapter|bottleneck"}[self.kind]
        if "Module" in bases and re.search(word, made.name, re.IGNORECASE):
            self._events.append(Event("scratch", (), made.name))
        init = next((f for f in made.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
        if init is not None:
            for name, value in self._bound(init, call, names, skip=1).items():
                self._size(name, value, made.name)

    def _bound(self, function: _Function, call: ast.Call, names: _Names, skip: int = 0) -> _Names:
        """The values of a function's parameters in this call: defaults, positions, keywords."""
        parameters = [argument.arg for argument in function.args.args][skip:]
        with_defaults = zip(reversed(parameters), reversed(function.args.defaults), strict=False)
        given = [
            *[*with_defaults][::-1],
            *zip(parameters, call.args, strict=False),
            *((word.arg, word.value) for word in call.keywords if word.arg),
        ]
        return {name: self._value(value, names) for name, value in given}

    # Sizes

    def _is_size(self, name: str) -> bool:
        return bool(SIZE_NAMES[self.kind].fullmatch(name))

    def _as_size(self, name: str, value: object) -> float:
        number = float(value) if isinstance(value, (int, float)) else 0.0
        return _D_MODEL / number if "reduction" in name.lower() and number else number

    def _size(self, name: str, value: object, callee: str = "") -> None:
        """Note a value whose name is that of a size: a constant, or an argument in a call of `callee`."""
        if isinstance(value, (int, float)) and self._is_size(name):
            size = self._as_size(name, value)
            if 1 <= size <= 512:
                by = f"{callee}({name}={value:g})" if callee else f"{name} = {value:g}"
                self._events.append(Event("size", (size,), by))

    # Values

    def _value(self, node: ast.AST | None, names: _Names) -> object:
        """A number or a tuple of numbers; None for whatever needs more than arithmetic."""
        self._step()
        if isinstance(node, ast.Constant):
            number = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
            return node.value if number and abs(node.value) < 1e9 else None
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Attribute):
            return _D_MODEL if node.attr in ("d_model", "hidden_size") else None
        if isinstance(node, (ast.List, ast.Tuple)):
            values = tuple(self._value(one, names) for one in node.elts[:20])
            return values if values and all(isinstance(one, (int, float)) for one in values) else None
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = self._value(node.left, names), self._value(node.right, names)
            if isinstance(left, (int, float)) and isinstance(right, (int, float)):
                try:
                    result = _OPERATIONS[type(node.op)](left, right)
                except (ZeroDivisionError, OverflowError):
                    return None
                return result if abs(result) < 1e12 else None
        if isinstance(node, ast.Call) and _dotted(node.func) in ("int", "float", "round") and node.args:
            return self._value(node.args[0], names)
        return None

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise _Enough


class _Enough(Exception):
    """The cell is larger than anything a student writes."""


def literal_numbers(source: str) -> str:
    """The strings and numbers in a cell's print calls and assignments: what was typed, not computed."""
    nodes = list(ast.walk(_parsed(_without_magics(source[:_LARGEST_SOURCE])) or ast.Module([], [])))
    calls = [n for n in nodes if isinstance(n, ast.Call) and _dotted(n.func) in ("print", "display")]
    said = [inner for call in calls for inner in ast.walk(call)]
    said += [n.value for n in nodes if isinstance(n, ast.Assign)]
    values = [one.value for one in said if isinstance(one, ast.Constant)]
    return " ".join(str(value) for value in values if isinstance(value, (str, int, float)))[:20_000]


def _parsed(source: str) -> ast.Module | None:
    """The syntax tree; None if `source` is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _outside_functions(node: ast.AST) -> list[ast.AST]:
    """The nodes of a statement in the order in which they end, without the bodies of functions in it."""
    found = [node]
    for one in found:  # grows while it is walked
        if not isinstance(one, (ast.Lambda, ast.FunctionDef, ast.ClassDef)):
            found.extend(ast.iter_child_nodes(one))
    return sorted(
        found, key=lambda n: (getattr(n, "end_lineno", 0) or 0, getattr(n, "end_col_offset", 0) or 0)
    )


def _dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _without_magics(source: str) -> str:
    lines = source.expandtabs().splitlines()
    for at, line in enumerate(lines):
        bare = line.lstrip()
        if bare.startswith("%%"):
            if not re.match(r"%%(time|timeit|capture|prun)\b", bare):
                return ""
            lines[at] = ""
        elif bare.startswith(("%", "!", "?")) or bare.endswith("?"):
            lines[at] = line[: len(line) - len(bare)] + "pass"
    return "\n".join(lines)
