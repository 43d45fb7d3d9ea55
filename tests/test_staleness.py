"""What makes a finished run stale: code that its notebook reaches, and nothing else."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wfnb
from wfnb.paths import notebooks_folder
from wfnb.reproduction import staleness
from wfnb.reproduction.staleness import code_of
from wfnb.reproduction.steps import STEPS

FILES = {
    "__init__": '''
        """A package."""
        from typing import TYPE_CHECKING
        _OBJECTS = {"Lazy": "own.deep.lazy"}
        _MODULES = {"tools": "own.deep.tools"}
        if TYPE_CHECKING:
            from own.deep import tools
            from own.deep.lazy import Lazy
        def __getattr__(name): ...
    ''',
    "deep.__init__": "from own.deep.tools import scaled, scaled as rescaled\n",
    "deep.lazy": "class Lazy:\n    def run(self): return 1\n    def rest(self): return 2\n",
    "deep.tools": '''
        """Tools."""
        import functools
        from own.settings import FACTOR, unused_setting
        @functools.lru_cache(maxsize=4)
        def scaled(x: int, by: "int" = FACTOR) -> int:
            """Scale it."""
            from own.network import offset
            if x < 0:
                raise ValueError(f"{x} is negative")
            return by * x + offset()  # a comment
        def unreached(): return scaled(0)
    ''',
    "settings": "FACTOR = 2\nunused_setting = 3\n",
    "network": '''
        import torch
        from torch import nn
        def offset(): return START
        START = 0
        class Base(nn.Module):
            size: int = 3
            def __init__(self): self.run()
            def __repr__(self): return "Base"
            def forward(self, x): return self.helper(x)
            def helper(self, x): return x
            def summary(self): return "summary"
            @property
            def width(self): return 1
            @width.setter
            def width(self, value): self.wide = value
            def run(self): ...
        class Net(Base):
            def extra(self): return 1
        class Hooked(torch.fx.Tracer):
            def is_leaf_module(self, m, name): return True
        torch.manual_seed(0)
    ''',
}  # fmt: skip
NOTEBOOK = [
    "seed = 0",
    "import own\nfrom own.deep import rescaled\nfrom own.network import Net, Hooked",
    "net = Net()\nprint(rescaled(seed), net)",
    "tracer = Hooked()\nlazy = own.Lazy().run()",
]


def dedented(source):
    lines = source.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines) + "\n"


@pytest.fixture
def own(tmp_path):
    """A small package and a notebook that may be changed; called, it returns what the notebook depends on."""

    class Own:
        def __init__(self):
            for module, source in FILES.items():
                self.write(module, dedented(source))
            self.notebook(*NOTEBOOK)

        def path(self, module):
            return tmp_path / "own" / f"{module.replace('.', '/')}.py"

        def write(self, module, source):
            self.path(module).parent.mkdir(parents=True, exist_ok=True)
            self.path(module).write_text(source)

        def change(self, module, old, new):
            source = self.path(module).read_text()
            assert old in source
            self.write(module, source.replace(old, new))

        def notebook(self, *cells):
            cells = [{"cell_type": "code", "source": cell} for cell in cells]
            (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))

        def __call__(self):
            return code_of(tmp_path / "a.ipynb", tmp_path / "own")

    return Own()


def test_reached_definitions_and_their_files(own):
    assert set(own().definitions) == {
        "own.deep.lazy.Lazy", "own.deep.lazy.Lazy.run", "own.deep.tools.scaled", "own.settings.FACTOR",
        "own.network.offset", "own.network.START", "own.network.#0", "own.network.Base",
        "own.network.Base.__init__", "own.network.Base.forward", "own.network.Base.helper",
        "own.network.Base.run", "own.network.Net", "own.network.Hooked", "own.network.Hooked.is_leaf_module",
    }  # fmt: skip
    assert [path.stem for path in own().files] == ["lazy", "tools", "network", "settings"]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("deep.tools", "Scale it.", "Another docstring."),
        ("deep.tools", "# a comment", "# another"),
        ("deep.tools", "by * x + offset()", "(by\n        * x) + offset()"),
        ("deep.tools", "x: int", "x: float"),
        ("deep.tools", " -> int", ""),
        ("deep.tools", "is negative", "must be 0 or more"),
        ("deep.tools", "def unreached(): return scaled(0)", "def unreached(): return scaled(1)"),
        ("deep.tools", "import functools\n", "import functools\nimport math\n"),
        ("settings", "unused_setting = 3", "unused_setting = 4"),
        ("network", 'return "summary"', 'return "another"'),
        ("network", 'return "Base"', 'return "another"'),
        ("network", "self.wide = value", "self.wide = 2"),
        ("network", "size: int = 3", "size: float = 3"),
        ("network", "def extra(self): return 1", "def extra(self): return 2"),
        ("deep.lazy", "return 2", "return 3"),
    ],
)
def test_kept_by(own, module, old, new):
    before = own().sha256
    own.change(module, old, new)
    assert own().sha256 == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("deep.tools", "by * x", "x * by"),
        ("deep.tools", "x < 0", "x <= 0"),
        ("deep.tools", "maxsize=4", "maxsize=8"),
        ("deep.tools", "by: \"int\" = FACTOR", "by: \"int\" = 2"),
        ("settings", "FACTOR = 2", "FACTOR = 4"),
        ("network", "START = 0", "START = 1"),
        ("network", "size: int = 3", "size: int = 4"),
        ("network", "return self.helper(x)", "return self.helper(x) + 1"),
        ("network", "def helper(self, x): return x", "def helper(self, x): return -x"),
        ("network", "return True", "return False"),
        ("network", "def run(self): ...", "def run(self): self.width = 1"),  # reaches the property
        ("network", "manual_seed(0)", "manual_seed(1)"),
        ("network", "from torch import nn", "from another import nn"),
        ("network", "Net(Base)", "Net(Base, flag=1)"),
        ("deep.lazy", "return 1", "return 3"),
    ],
)  # fmt: skip
def test_made_stale_by(own, module, old, new):
    before = own().sha256
    own.change(module, old, new)
    assert own().sha256 != before


def test_a_definition_may_move_to_another_module(own):
    before = own().sha256
    own.change("network", "def offset(): return START\nSTART = 0\n", "")
    own.write("elsewhere", "START = 0\ndef offset():\n    return START\n")
    own.change("deep.tools", "from own.network import offset", "from own.elsewhere import offset")
    assert own().sha256 == before
    assert "own.elsewhere.offset" in own().definitions


def test_the_notebook_counts_without_its_imports_and_with_the_order_of_its_statements(own):
    before = own().sha256
    own.notebook(NOTEBOOK[0], "import math\n" + NOTEBOOK[1], "# comment\n" + NOTEBOOK[2], NOTEBOOK[3])
    assert own().sha256 == before
    own.notebook(NOTEBOOK[0], NOTEBOOK[1], NOTEBOOK[3], NOTEBOOK[2])
    assert own().sha256 != before
    own.notebook("seed = 1", *NOTEBOOK[1:])
    assert own().sha256 != before


@pytest.mark.parametrize("how", ["own.tools.unreached()", "tools.unreached()", "t.unreached()", "late()"])
def test_every_way_to_import_is_followed(own, how):
    own.notebook(
        "import own\nfrom own import tools\nimport own.deep.tools as t",
        "from own.deep.tools import unreached as late",
        how,
    )
    assert {"own.deep.tools.unreached", "own.deep.tools.scaled"} <= set(own().definitions)


@pytest.mark.parametrize("line", ["from .tools import scaled", "from own.deep.tools import *"])
def test_imports_that_cannot_be_followed_are_refused(own, line):
    own.write("deep.lazy", f"{line}\nLazy = scaled\n")
    with pytest.raises(ValueError, match=r"own\.deep\.lazy, line 1: only 'from package\.module import name'"):
        own()


def test_code_that_cannot_be_parsed_is_one_clear_error(own):
    own.notebook("seed = (")
    with pytest.raises(ValueError, match=r"a\.ipynb is not valid Python"):
        own()


# -- the real package
# --------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path):
    """A copy of ``wfnb``, and the hashes of all steps with it."""
    package = tmp_path / "wfnb"
    shutil.copytree(Path(wfnb.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def change_function(path, name):
    """Add a statement to a function or method of a module."""
    tree = ast.parse(path.read_text())
    node = tree
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", "") == part)
    node.body.append(ast.Assert(ast.Constant(True)))
    path.write_text(ast.unparse(tree))


def hashes(package):
    return {name: code_of(notebook(name), package).sha256 for name in STEPS}


def notebook(step):
    return notebooks_folder() / f"{STEPS[step].notebook}.ipynb"


def definitions(step):
    return {name.split(".", 1)[1] for name in code_of(notebook(step)).definitions}


RUNS_A_WFNET = {
    "untrain", "baselines", "relearn", "insertion", "filters", "without_training_set", "explorer", "lesson",
    "benchmark", "your_network",
}  # fmt: skip


def test_training_does_not_depend_on_weight_filtering():
    names = definitions("train")
    assert {"originals.training.train", "originals.zoo.create_model", "originals.data.load_dataset"} <= names
    assert not [name for name in names if name.startswith(("net.", "layers.", "losses.", "untraining."))]


def test_lazily_imported_names_are_followed():
    assert "untraining.untrain" in definitions("untrain")  # wfnb.untrain
    assert "net.WFNet.forward" in definitions("untrain")  # wfnb.WFNet
    assert "originals.images.sample" in definitions("untrain")  # wfnb.data.sample, a re-export


def test_what_a_run_gives_its_notebook_counts_method_by_method():
    given = {step: {n.split(".")[-1] for n in definitions(step) if ".RunInputs." in n} for step in STEPS}
    assert {"__init__", "data", "new_model", "random_model", "training"} <= given["train"]
    assert not {"wfnet", "original", "checkpoint_network"} & given["train"]
    assert {"wfnet", "original", "needs"} <= given["insertion"]
    assert "checkpoint_network" in given["your_network"]


def test_no_module_that_checks_shows_plans_or_records_counts():
    for step in STEPS:
        assert not [n for n in code_of(notebook(step)).definitions if n.startswith(tuple(staleness.PLUMBING))]
    for module in staleness.PLUMBING:
        place = Path(wfnb.__file__).parent.parent / module.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), module


def test_mixed_precision_counts_wherever_it_is_used():
    for step in ("train", "untrain", "baselines", "relearn", "insertion", "without_training_set"):
        assert "device.autocast" in definitions(step), step


def test_the_forward_pass_of_a_wfnet_makes_stale_what_runs_one_and_its_summary_nothing(library):
    before = hashes(library)
    change_function(library / "net.py", "WFNet.summary")
    assert hashes(library) == before
    change_function(library / "net.py", "WFNet.forward")
    after = hashes(library)
    assert {step for step in STEPS if after[step] != before[step]} == RUNS_A_WFNET


def test_planning_imports_no_torch():
    program = (
        "import sys\nfrom wfnb.reproduction.records import is_current\n"
        "from wfnb.reproduction.cells import graph\n"
        "print([is_current(cell) for cell in graph('smoke')], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_the_hash_does_not_depend_on_the_order_of_sets():
    program = (
        "import sys\nfrom pathlib import Path\nfrom wfnb.reproduction.staleness import code_of\n"
        "print(code_of(Path(sys.argv[1])).sha256)"
    )
    command, found = [sys.executable, "-c", program, str(notebook("untrain"))], set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert found == {code_of(notebook("untrain")).sha256 + "\n"}
