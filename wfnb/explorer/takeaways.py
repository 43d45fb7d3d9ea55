"""One sentence a picture, made from the numbers that it shows."""

from collections.abc import Sequence

import pandas as pd
import torch

from wfnb.explorer.lookups import SHARES, Lookups, Outcome
from wfnb.explorer.views import true_class_probability

__all__ = ["classes", "gates", "insertion", "predictions", "scores"]


def scores(before: Outcome, after: Outcome) -> pd.DataFrame:
    """Acc_r and Acc_f in percent and ZRF, of the original and with the class forgotten."""
    rows = [[o.acc_r_pct, o.acc_f_pct, o.zrf] for o in (before, after)]
    return pd.DataFrame(rows, ["original", "class forgotten"], ["Acc_r, %", "Acc_f, %", "ZRF"])


def predictions(look: Lookups, after: Outcome) -> str:
    """How many predictions change, and for how many images of other classes."""
    was, now = look.original().logits[0].argmax(1), after.logits[after.at].argmax(1)
    changed, own = was != now, torch.isin(look.labels, torch.tensor(after.classes))
    return (
        f"The prediction changes for {int((changed & own).sum())} of {int(own.sum())} shown images of the "
        f"class, and for {int((changed & ~own).sum())} of {int((~own).sum())} others."
    )


def classes(before: Outcome, after: Outcome, class_names: Sequence[str]) -> str:
    """What the forgotten class is predicted as, and how much the other classes change at most."""
    if before.counts is None or after.counts is None:
        return "Not measured."
    (c,) = after.classes
    share = 100 * after.counts[c].double() / after.counts[c].sum()
    best = share.argsort(descending=True, stable=True)[:3].tolist()
    named = ", ".join(f"{class_names[other]} ({share[other]:.0f} %)" for other in best)
    change = after.per_class_pct - before.per_class_pct
    others = [other for other in range(len(class_names)) if other != c]
    most = max(others, key=lambda other: abs(change[other]))
    return (
        f"Images of {class_names[c]} are now predicted as {named}. Among the other classes, the accuracy of "
        f"{class_names[most]} changes most, by {change[most]:+.1f} points."
    )


def insertion(look: Lookups, after: Outcome) -> str:
    """The share of gates at which the true class is more likely than not."""
    values = true_class_probability(look, after).tolist()
    back = next((share for share, p in zip(SHARES, values, strict=True) if p > 0.5), None)
    rise = f"The probability of the true class is {values[0]:.2f} with no gate re-opened"
    if back is None:
        return f"{rise} and {values[-1]:.2f} with all."
    return f"{rise}. It exceeds 0.5 from {100 * back:.0f} % on: the class is hidden, not erased."


def gates(look: Lookups, forget: int) -> str:
    """How many gates close for a class (below 0.5)."""
    tables = look.wf.gates(forget)
    closed = sum(int((gate < 0.5).sum()) for gate in tables.values())
    total = sum(gate.numel() for gate in tables.values())
    name = look.data.class_names[forget]
    return f"For {name}, {closed} of the network's {total:,} gates are closed (below 0.5)."
