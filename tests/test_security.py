"""What the code never does: run what a file holds, or hand a name to a shell."""

import ast
import json

import pytest

from peft_scratch.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = [
    *sorted((ROOT / "src").rglob("*.py")),
    *sorted((ROOT / "scripts").glob("*.py")),
    *sorted(ROOT.glob("*.py")),
    *NOTEBOOKS,
]
# What runs code that is data, starts a shell, or unpacks an archive beyond its folder; zipfile does not.
FORBIDDEN = {"eval", "exec", "system", "popen", "unpack_archive"}
FORBIDDEN_MODULES = {"pickle", "joblib", "marshal", "shelve", "tarfile", "dill", "cloudpickle"}


def _code(path):
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _faults(code):
    """The calls and imports in `code` that can run what they are given."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            faults += [a.name for a in node.names if a.name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            # Its exception is what torch raises, and harmless.
            faults += [f"{node.module}.{a.name}" for a in node.names if a.name != "UnpicklingError"]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            plain = isinstance(node.func, ast.Name) or name.partition(".")[0] in ("os", "shutil", "builtins")
            if (
                (plain and name.rpartition(".")[2] in FORBIDDEN)
                or (name == "torch.load" and options.get("weights_only") != "True")
                or options.get("shell", "False") != "False"
                or options.get("allow_pickle", "False") != "False"
                or options.get("trust_remote_code", "False") != "False"
                or (name.startswith("subprocess.") and node.args and _is_text(node.args[0]))
                or (_loads_a_model(name) and options.get("use_safetensors") != "True")
            ):
                faults.append(ast.unparse(node))
    return faults


def _loads_a_model(name):
    """`T5ForConditionalGeneration.from_pretrained` and the like, not a tokenizer's or a configuration's."""
    owner, _, call = name.rpartition(".")
    return call == "from_pretrained" and ("For" in owner or "Model" in owner)


def _is_text(node):
    return isinstance(node, (ast.JoinedStr, ast.BinOp)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_or_a_name_holds(path):
    assert _faults(_code(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "os.system('ls')",
        "subprocess.run('ls ' + name)",
        "subprocess.run(f'ls {name}')",
        "subprocess.run(command, shell=True)",
        "shutil.unpack_archive(path)",
        "np.load(path, allow_pickle=True)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=True)",
        "T5ForConditionalGeneration.from_pretrained(name)",
        "AutoModel.from_pretrained(name, use_safetensors=None)",
    ],
)
def test_each_of_them_would_be_found(code):
    assert len(_faults(code)) == 1


def test_all_sources_are_looked_at():
    names = {path.name for path in SOURCES}
    assert {"trainer.py", "checkpoint.py", "setup_notebook.py", "05_lora.ipynb"} <= names
    assert len(NOTEBOOKS) == 5
