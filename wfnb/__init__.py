"""wfnb: multi-class unlearning by weight filtering (WF-Net), reproduced in notebooks.

>>> import wfnb
>>> wf = wfnb.WFNet(wfnb.create_model("resnet20", "digits", width=0.25), num_classes=10)
>>> len(wf.filters)
21
"""

from importlib import import_module

__version__ = "0.1.0"

# name: module; loaded when first used, so that `import wfnb` costs no more than it must
_PUBLIC = {
    "Explorer": "explorer",
    "History": "history",
    "Recipe": "recipes",
    "RECIPES": "recipes",
    "Training": "recipes",
    "WFNet": "net",
    "create_model": "zoo",
    "prune": "pruning",
    "load_dataset": "data",
    "train": "training",
    "untrain": "untraining",
}
_MODULES = ("baselines", "data", "figures", "losses", "metrics", "presets", "runs", "tables", "zoo")

__all__ = [*_PUBLIC, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _PUBLIC:
        value = getattr(import_module(f"wfnb.{_PUBLIC[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"wfnb.{name}")
    else:
        raise AttributeError(f"module 'wfnb' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
