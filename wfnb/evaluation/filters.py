"""Which filters belong to which classes (paper, "Filter visualizations", Figures 3 and 4), by alpha.

A filter is an output channel of a convolution, or an output feature of a ``qkv`` projection. The filters of
the lowest alpha in a row are those most responsible for its class. The paper takes the ten lowest of each
class and keeps those that at least two classes share.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from wfnb.net import WFNet

__all__ = [
    "alpha_tables",
    "closed_by_head",
    "closed_filters",
    "closed_sentence",
    "expected_shared",
    "filter_names",
    "heads_of",
    "heads_sentence",
    "most_shared",
    "overlap_table",
    "qkv_parts",
    "rank_correlation",
    "row_similarity",
    "shared_filters",
    "top_filters",
]

QKV = ("q", "k", "v")


def alpha_tables(wf: WFNet) -> dict[str, np.ndarray]:
    """The tables of alpha (K, C_out) by layer as arrays, without separate tables of biases."""
    return {name: layer.alpha.detach().cpu().numpy() for name, layer in wf.filters.items()}


def top_filters(table: np.ndarray, count: int = 10) -> np.ndarray:
    """(K, min(count, C)), the filters of lowest alpha in each row of ``table`` (K, C); ties by index."""
    return np.argsort(table, axis=1, kind="stable")[:, :count]


def shared_filters(table: np.ndarray, count: int = 10, classes: int = 2) -> dict[int, list[int]]:
    """The filters among the ``count`` lowest of at least ``classes`` rows, with these rows; both ascending.

    >>> shared_filters(np.array([[0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.2, 0.8]]), count=2)
    {2: [0, 1]}
    """
    top = top_filters(table, count)
    owners = {int(f): np.nonzero((top == f).any(1))[0].tolist() for f in np.unique(top)}
    return {f: own for f, own in owners.items() if len(own) >= classes}


def closed_filters(table: np.ndarray, count: int = 10) -> dict[int, list[int]]:
    """Filters that rows close: among the ``count`` lowest of a row, with a gate below 0.5 (alpha < 0).

    Returns:
        Filter to the rows that close it; both ascending.

    >>> closed_filters(np.array([[-1.0, 2.0, 0.5], [-2.0, -0.1, 3.0]]), count=2)
    {0: [0, 1], 1: [1]}
    """
    owners = shared_filters(table, count, classes=1)
    closed = {f: [c for c in own if table[c, f] < 0] for f, own in owners.items()}
    return {f: own for f, own in closed.items() if own}


def closed_sentence(table: np.ndarray, count: int = 10) -> str:
    """How many of the ``count`` lowest gates of the rows of ``table`` (K, C) are closed.

    >>> closed_sentence(np.array([[-1.0, 2.0, 0.5], [-2.0, -0.1, 3.0]]), count=2)
    '3 of the 4 lowest gates (2 a class) are below 0.5'
    """
    lowest = min(count, table.shape[1])
    closed = sum(map(len, closed_filters(table, count).values()))
    number = closed or "none"
    return f"{number} of the {lowest * len(table)} lowest gates ({lowest} a class) are below 0.5"


def expected_shared(chosen: Sequence[int], channels: int) -> float:
    """Expected number of shared filters if each class c drew ``chosen[c]`` of ``channels`` filters at random.

    Class c draws a filter with ``p_c = chosen[c] / channels``, independently of other classes. A filter is
    shared if two or more classes draw it: ``channels (1 - prod_c (1 - p_c) - sum_c p_c prod_{d != c} (1 -
    p_d))`` are expected.

    >>> expected_shared([2, 2], 4)  # channels p^2
    1.0
    """
    p = np.asarray(chosen, dtype=float) / channels
    exactly_one = sum(p[c] * np.prod(1 - np.delete(p, c)) for c in range(len(p)))
    return float(channels * (1 - np.prod(1 - p) - exactly_one))


def row_similarity(tables: Iterable[np.ndarray]) -> np.ndarray:
    """(K, K), Pearson's correlation of the rows of alpha, the tables (K, C_l) of all layers side by side.

    Filters that all rows close raise every entry: differences between pairs of classes tell more than the
    level.
    """
    return np.corrcoef(np.concatenate(list(tables), axis=1))


def rank_correlation(
    similarity: np.ndarray, confusion: np.ndarray, permutations: int = 999, seed: int = 0
) -> dict[str, float | int | None]:
    """Do confused classes have similar rows? Spearman's rank correlation over pairs of different classes.

    Pairs that share a class are not independent, so ``p`` is by a permutation of the classes (Mantel's test,
    one-sided).

    Args:
        similarity: (K, K), symmetric.
        confusion: (K, K), counts of class y (row) predicted as class p (column). The confusion of a pair is
            the mean of both classes' shares.

    Returns:
        ``spearman`` and ``p`` (``None`` if one of the two matrices is constant over pairs), the number of
        ``pairs``, and of those that are confused at all, ``pairs_confused``.
    """
    from scipy.stats import spearmanr

    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    share = (share + share.T) / 2
    upper = np.triu_indices(len(similarity), 1)
    x, y = similarity[upper], share[upper]
    found: dict[str, float | int | None] = {"spearman": None, "p": None}
    found |= {"pairs_confused": int((y > 0).sum()), "pairs": len(y)}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return found
    rho, rng = spearmanr(x, y).statistic, np.random.default_rng(seed)
    as_high = 1
    for _ in range(permutations):
        order = rng.permutation(len(similarity))
        as_high += spearmanr(similarity[np.ix_(order, order)][upper], y).statistic >= rho
    return found | {"spearman": float(rho), "p": float(as_high / (permutations + 1))}


def most_shared(
    table: np.ndarray, heads: int | None = None, count: int = 10
) -> dict[str, tuple[int, list[int]]]:
    """The filter among the ``count`` lowest of the most classes, by name: its number and those classes.

    Of equals the first. For a projection, one filter each of q, k and v; a part in which no class has one is
    left out.
    """
    names, shared = filter_names(table.shape[1], heads), shared_filters(table, count, classes=1)
    found = {}
    for part in _parts(table.shape[1], heads):
        inside = [f for f in shared if f in part]
        if inside:
            best = max(inside, key=lambda f: (len(shared[f]), -f))
            found[names[best]] = (best, shared[best])
    return found


def heads_of(model: nn.Module, layer: str) -> int | None:
    """The number of heads of the attention whose ``qkv`` is ``layer``; ``None`` for a convolution."""
    if not layer.endswith("qkv"):
        return None
    return getattr(model.get_submodule(layer.rpartition(".")[0]), "num_heads", None)


def qkv_parts(table: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """The gates (K, 3 D) of a timm ``qkv`` projection as q, k and v, each (K, heads, D / heads)."""
    parts = table.reshape(len(table), 3, heads, -1)
    return {name: parts[:, i] for i, name in enumerate(QKV)}


def closed_by_head(table: np.ndarray, heads: int | None) -> dict[str, list[float]]:
    """The share of gates below 0.5 by part (q, k, v) and head; empty for a convolution.

    Args:
        table: Alpha (K, 3 D) of a ``qkv`` projection.
        heads: Its number of heads; ``None`` for a convolution (``heads_of``).
    """
    if heads is None:
        return {}
    return {part: (alpha < 0).mean((0, 2)).tolist() for part, alpha in qkv_parts(table, heads).items()}


def heads_sentence(closed: Mapping[str, Sequence[float]]) -> str:
    """Which part of an attention closes most, from ``closed_by_head``; for convolutions, that there is none.

    >>> heads_sentence({"q": [0.2, 0.4], "k": [0.2, 0.2], "v": [0.0, 0.0]})
    'Closed gates by part: q 30.0 %, k 20.0 %, v 0.0 %; the most in head 1 of q.'
    """
    if not closed:
        return "No projections here: parts and heads are for transformers."
    parts = ", ".join(f"{part} {100 * np.mean(shares):.1f} %" for part, shares in closed.items())
    top = max(closed, key=lambda part: max(closed[part]))
    if not max(closed[top]):
        return f"Closed gates by part: {parts}."
    return f"Closed gates by part: {parts}; the most in head {int(np.argmax(closed[top]))} of {top}."


def filter_names(channels: int, heads: int | None = None) -> list[str]:
    """Names of filters: the number; in a ``qkv`` projection the part, the head, and the number in the head.

    >>> filter_names(12, heads=2)[:5]
    ['q0.0', 'q0.1', 'q1.0', 'q1.1', 'k0.0']
    """
    if heads is None:
        return [str(i) for i in range(channels)]
    width = channels // 3 // heads
    return [f"{part}{head}.{i}" for part in QKV for head in range(heads) for i in range(width)]


def overlap_table(tables: Mapping[str, np.ndarray], model: nn.Module, count: int = 10) -> pd.DataFrame:
    """One line a layer: the number of ``filters``, those ``shared``, ``shared_by_chance``, and ``which``.

    By chance, each class draws as many filters of a convolution, or of q, k and v each, as it has among its
    lowest. ``closed_pct`` is the share of all gates below 0.5; ``lowest`` counts the ``count`` lowest gates
    of all classes, ``lowest_closed`` those of them below 0.5.
    """
    rows = []
    for layer, table in tables.items():
        channels, heads = table.shape[1], heads_of(model, layer)
        names = filter_names(channels, heads)
        shared, top = shared_filters(table, count), top_filters(table, count)
        by_chance = sum(
            expected_shared(((top >= part[0]) & (top <= part[-1])).sum(1), len(part))
            for part in _parts(channels, heads)
        )
        which = {names[f]: own for f, own in shared.items()}
        closed_pct = 100 * float((table < 0).mean())
        lowest_closed = sum(map(len, closed_filters(table, count).values()))
        rows.append((layer, channels, len(shared), by_chance, which, closed_pct, top.size, lowest_closed))
    columns = [
        "layer", "filters", "shared", "shared_by_chance", "which", "closed_pct", "lowest", "lowest_closed",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index("layer")


def _parts(channels: int, heads: int | None) -> list[range]:
    """The filters of a convolution; or those of q, of k and of v."""
    width = channels if heads is None else channels // 3
    return [range(start, start + width) for start in range(0, channels, width)]
