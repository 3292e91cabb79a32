"""No version that is installed, or may stay installed, is known to run or be stopped by a foreign file.

A list of what is known of the packages that load files of others, since the index at hand may have none:
`make audit` asks the real one, and a mirror answers "not found on PyPI". Looked up in November 2026.
"""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

#: Package, advisory, the first version without it.
KNOWN = [
    ("torch", "CVE-2025-32434", "2.6.0"),  # torch.load(weights_only=True) ran code
    ("torch", "CVE-2026-24747", "2.10.0"),  # and again, through memory
    ("transformers", "CVE-2026-4372", "5.3.0"),  # config.json: _attn_implementation_internal loaded code
    ("transformers", "CVE-2026-5241", "5.5.0"),  # config.json: trust_remote_code overridden
    ("transformers", "CVE-2026-9856", "5.10.0"),  # save_pretrained wrote outside its folder
    ("peft", "huggingface/peft#3085", "0.20.0"),  # adapter_config.json named any module to import
    ("pypdf", "CVE-2026-33699", "6.9.2"),  # a PDF without an end
    ("pypdf", "CVE-2026-40260", "6.10.0"),  # a small PDF that fills the memory
    ("pypdf", "CVE-2026-59935", "6.14.2"),  # a picture without an end, and three more
    ("pypdf", "CVE-2026-84311", "6.16.1"),  # a page whose text takes hours, and two more
    ("pillow", "CVE-2024-28219", "10.3.0"),  # buffer overflow
    ("pillow", "CVE-2026-42309", "12.2.0"),  # heap overflow
    ("pillow", "PYSEC-2026-2253", "12.3.0"),  # and four more
    ("nbconvert", "CVE-2026-39378", "7.17.1"),  # a notebook's picture read any file
    ("jupyterlab", "CVE-2026-40171", "4.5.7"),  # and a notebook of others ran code as it was shown
    ("jupyter-server", "CVE-2026-44727", "2.20.0"),
]
#: Of these, which load foreign files too, none was found.
NONE_KNOWN = {"adapters", "nbformat"}


def _read(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}


def _lowest(requirement: Requirement) -> Version:
    return max(Version(s.version) for s in requirement.specifier if s.operator in (">=", "==", "~="))


@pytest.mark.parametrize(("package", "advisory", "fixed"), KNOWN)
def test_the_exact_version_is_after_the_fix(package, advisory, fixed):
    assert _lowest(_read("constraints.txt")[package]) >= Version(fixed), advisory


@pytest.mark.parametrize(("package", "advisory", "fixed"), KNOWN)
def test_no_older_version_may_stay_installed(package, advisory, fixed):
    asked_for = _read("requirements.txt") | _read("requirements-dev.txt")
    if package in asked_for:  # the others come with these, in their newest version
        assert _lowest(asked_for[package]) >= Version(fixed), advisory


def test_every_package_that_loads_foreign_files_was_looked_up():
    looked_up = {package for package, *_ in KNOWN} | NONE_KNOWN
    assert looked_up >= {"torch", "transformers", "peft", "adapters", "pypdf", "nbformat", "pillow"}
    assert looked_up <= _read("constraints.txt").keys()
