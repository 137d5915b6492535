"""What SECURITY.md promises and can be seen without a network: bounds of the dependencies, and nothing in files that is run."""

import ast
import importlib
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("utils", "models", "dataloaders", "tasks", "evaluation", "sizing", "scripts", "benchmarks")
PROJECT = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(  # tomli comes with pytest
    (ROOT / "pyproject.toml").read_text()
)["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
KNOWN_BAD = re.findall(r"^\| `([\w-]+)` \| ([\d., ]+) \|", (ROOT / "SECURITY.md").read_text(), re.M)

RUNS = re.compile(
    r"(eval|exec|compile|__import__|importlib\.import_module|runpy\.\w+|os\.(system|popen)"
    r"|(pickle|_pickle|marshal|dill|cloudpickle|joblib|shelve)\.(load|loads|open|Unpickler)"
    r"|pandas\.(read_pickle|eval)|torch\.(load|hub\.\w+)|numpy\.load|yaml\.(load|full_load|unsafe_load)(_all)?"
    r"|hydra\.utils\.(instantiate|call|get_class|get_method|get_object))"
)
"""Calls that may run what they read."""
ALLOWED = {
    "dataloaders/foreshock/inert.py": {"pickle.Unpickler"},  # the base of the one that makes inert records
    "utils/registry.py": {"importlib.import_module"},  # the files of our own rooms
    "models/xlstm/probe_child.py": {"importlib.import_module"},  # functions of ours, named by the process that started it
}


def dotted(node):
    """``a.b.c`` of an expression, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def safe(name, node):
    """Whether a call's own words make it harmless."""
    words = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
    if name == "torch.load":
        return words.get("weights_only") is True
    if name == "numpy.load":
        return not any(word.arg in ("allow_pickle", None) for word in node.keywords) or words.get("allow_pickle") is False
    return name == "importlib.import_module" and isinstance(node.args[0], ast.Constant)


def running(source):
    """Names of what a module uses that may run what it reads, with full names behind aliases; in the order of the file."""
    tree, full = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    harmless, found = set(), []
    for node in ast.walk(tree):  # a call comes before its function
        called = node.func if isinstance(node, ast.Call) else node
        head, _, rest = dotted(called).partition(".")
        name = full.get(head, head) + (f".{rest}" if rest else "")
        if isinstance(node, ast.Call):
            if RUNS.fullmatch(name) and safe(name, node):
                harmless.add(called)
            shell = [word for word in node.keywords if word.arg == "shell" and getattr(word.value, "value", True)]
            found += ["shell"] * len(shell)
        elif (
            isinstance(node, ast.Name | ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and RUNS.fullmatch(name)
            and node not in harmless
        ):
            found.append(name)
    return found


FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")) + sorted(ROOT.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_read_is_run(file):
    name = str(file.relative_to(ROOT))
    assert set(running(file.read_text())) == ALLOWED.get(name, set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("eval(text)", ["eval"]),
        ("map(exec, texts)", ["exec"]),
        ("model.eval()", []),
        ("import re\nre.compile(text)", []),
        ("import pickle as p\np.loads(data)", ["pickle.loads"]),
        ("from pickle import load as read\nread(file)", ["pickle.load"]),
        ("import pickle\nclass Mine(pickle.Unpickler): ...", ["pickle.Unpickler"]),
        ("import pandas as pd\npd.read_pickle(path)", ["pandas.read_pickle"]),
        ("import torch\ntorch.load(path)", ["torch.load"]),
        ("import torch\ntorch.load(path, weights_only=False)", ["torch.load"]),
        ("import torch\ntorch.load(path, weights_only=flag)", ["torch.load"]),
        ("import torch\ntorch.load(path, weights_only=True)", []),
        ("import numpy as np\nnp.load(path)", []),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", ["numpy.load"]),
        ("import numpy as np\nnp.load(path, **options)", ["numpy.load"]),
        ("import subprocess\nsubprocess.run(text, shell=True)", ["shell"]),
        ("from importlib import import_module\nimport_module(name)", ["importlib.import_module"]),
        ("from importlib import import_module\nimport_module('seisbench.data')", []),
        ("from hydra.utils import instantiate\ninstantiate(config)", ["hydra.utils.instantiate"]),
    ],
)
def test_the_search_finds_what_it_is_for(source, found):
    assert running(source) == found


@pytest.mark.parametrize("requirement", REQUIRED + OPTIONAL, ids=str)
def test_every_dependency_has_a_lower_bound(requirement):
    assert any(each.operator in (">=", "==", "~=", ">") for each in requirement.specifier)
    assert not requirement.url, "packages come from the index, not from an address"


def test_versions_known_to_be_bad_cannot_be_installed():
    bounds = {requirement.name: requirement.specifier for requirement in REQUIRED}
    assert {"torch", "pytorch-lightning"} <= {name for name, _ in KNOWN_BAD}, "SECURITY.md names them in a table"
    for name, versions in KNOWN_BAD:
        for bad in versions.split(", "):
            assert not bounds[name].contains(bad, prereleases=True), f"{name} {bad}"


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda each: each.name)
def test_what_runs_here_is_within_the_bounds(requirement):
    if requirement.marker and not requirement.marker.evaluate():
        pytest.skip("not for this machine")
    assert requirement.specifier.contains(Version(version(requirement.name)), prereleases=True)
