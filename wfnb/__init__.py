"""wfnb: multi-class unlearning by weight filtering (WF-Net), reproduced in notebooks.

>>> import wfnb
>>> wf = wfnb.WFNet(wfnb.create_model("resnet20", "digits", width=0.25), num_classes=10)
>>> len(wf.filters)
21
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# imported at first use, so that `import wfnb` does not import torch
_OBJECTS = {
    "Explorer": "wfnb.explorer.network",
    "RECIPES": "wfnb.recipes",
    "Recipe": "wfnb.recipes",
    "Training": "wfnb.recipes",
    "WFNet": "wfnb.net",
    "create_model": "wfnb.originals.zoo",
    "load_dataset": "wfnb.originals.data",
    "prune": "wfnb.evaluation.pruning",
    "train": "wfnb.originals.training",
    "untrain": "wfnb.untraining",
}
_MODULES = {
    "baselines": "wfnb.evaluation.baselines",
    "data": "wfnb.originals.data",
    "figures": "wfnb.figures",
    "losses": "wfnb.losses",
    "metrics": "wfnb.metrics",
    "presets": "wfnb.reproduction.presets",
    "runs": "wfnb.reproduction.runs",
    "tables": "wfnb.reproduction.tables",
    "zoo": "wfnb.originals.zoo",
}
__all__ = [*_OBJECTS, *_MODULES, "__version__"]

if TYPE_CHECKING:  # what editors and type checkers see
    from wfnb import figures, losses, metrics
    from wfnb.evaluation import baselines
    from wfnb.evaluation.pruning import prune
    from wfnb.explorer.network import Explorer
    from wfnb.net import WFNet
    from wfnb.originals import data, zoo
    from wfnb.originals.data import load_dataset
    from wfnb.originals.training import train
    from wfnb.originals.zoo import create_model
    from wfnb.recipes import RECIPES, Recipe, Training
    from wfnb.reproduction import presets, runs, tables
    from wfnb.untraining import untrain


def __getattr__(name: str) -> object:
    if name in _OBJECTS:
        value = getattr(import_module(_OBJECTS[name]), name)
    elif name in _MODULES:
        value = import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'wfnb' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
