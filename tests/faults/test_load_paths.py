"""Nothing that reads a file can run code from it: no eval, no pickle, no unsafe loader, in any module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for folder in ("ecgfair", "data_modules", "experiments") for path in (ROOT / folder).rglob("*.py")
)

NEVER = {"eval", "exec", "compile", "__import__"}
"""Built-ins that make code of text."""
NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "code", "runpy"}
"""Modules that make code, or objects of any class, of bytes."""
UNSAFE_YAML = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}


def findings(source: str) -> list[str]:
    """Return what in a module could run code from a file, with its line."""
    found = []
    tree = ast.parse(source)
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [f"{node.lineno}: import of {name}" for name in _imported(node) if name in NEVER_IMPORTED]
        elif isinstance(node, ast.Call):
            found += [f"{node.lineno}: {what}" for what in _unsafe(node, aliases)]
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name.partition(".")[0] for name in names]


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for, such as np for numpy and load for torch.load."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def _unsafe(call: ast.Call, aliases: dict[str, str]) -> list[str]:
    name = _name(call.func)
    first, dot, rest = name.partition(".")
    name = aliases.get(first, first) + dot + rest
    settings = {keyword.arg: keyword.value for keyword in call.keywords}
    found = []
    if name in NEVER or name.startswith(("builtins.eval", "builtins.exec", "builtins.compile")):
        found.append(name)
    if name in {"torch.load", "torch.serialization.load"} and not _is(settings.get("weights_only"), True):
        found.append("torch.load without weights_only=True")
    if _is(settings.get("weights_only"), False):
        found.append("weights_only=False")
    if name in {
        "torch.jit.load",
        "torch.hub.load",
        "torch.package.PackageImporter",
        "joblib.load",
        "pandas.read_pickle",
    }:
        found.append(name)
    if name.endswith((".read_pickle", ".load_from_checkpoint")) and not _is(settings.get("weights_only"), True):
        found.append(name)
    if "allow_pickle" in settings and not _is(settings["allow_pickle"], False):
        found.append("allow_pickle")
    if name.startswith("yaml.") and name.removeprefix("yaml.") in UNSAFE_YAML:
        found.append(name)
    return found


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_module_can_run_code_from_what_it_reads():
    found = {str(path.relative_to(ROOT)): findings(path.read_text(encoding="utf-8")) for path in MODULES}
    assert len(found) > 200
    assert {path: told for path, told in found.items() if told} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "__import__(name)",
        "import builtins\nbuiltins.eval(text)",
        "import pickle",
        "from pickle import loads",
        "import dill as p",
        "import marshal",
        "import shelve",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import torch as t\nt.load(path)",
        "from torch import load\nload(path)",
        "trainer.fit(module, weights_only=False)",
        "import torch\ntorch.jit.load(path)",
        "import torch\ntorch.hub.load(repo, name)",
        "import joblib\njoblib.load(path)",
        "import pandas as pd\npd.read_pickle(path)",
        "Module.load_from_checkpoint(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import load\nload(text)",
    ],
)
def test_what_could_is_found(source):
    assert findings(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "import ast\nast.literal_eval(text)",
        "import re\nre.compile(text)",
        "import torch\ntorch.compile(module)",
        "module.eval()",
        "import json\njson.load(file)",
    ],
)
def test_what_could_not_is_not(source):
    assert findings(source) == []
