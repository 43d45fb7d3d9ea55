"""The tables behind the explorer, computed once so that moving the slider only looks up.

- for each class and each share of gates re-opened, the logits of a few test images;
- for each class, the confusion matrix and the ZRF of the whole test set, as in ``metrics.json``;
- for each filter, the test images that activate it most.

The tables are cached in a file beside the run, with the SHA-256 of the alpha file they belong to.
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wfnb.layers import WFConv2d
from wfnb.metrics.retain_forget import class_counts, predict
from wfnb.metrics.scores import row_counts
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet
from wfnb.originals.data import ImageData
from wfnb.progress import Progress

__all__ = ["SHARES", "Lookups", "Outcome", "exciting_images", "logits_by_share", "reopened"]

SCHEMA = 1
SHARES = tuple(i / 10 for i in range(11))  # of gates re-opened
SHOWN = 40  # images in the grid
SEARCHED = 500  # test images searched for those that activate a filter most
LARGEST = 2**24  # entries of the table of all classes; above this, a class is computed when it is chosen

Bar = Callable[[Sequence, str], Iterable]  # iterates over items and shows progress under a title


@dataclass(frozen=True)
class Outcome:
    """The results with some classes forgotten at once; without classes, those of the original network.

    Attributes:
        classes: The forgotten classes, sorted.
        logits: (P, S, K), of the S shown images at each of the P shares of gates re-opened.
        counts: (K, K), the confusion matrix of the test set, no gate re-opened.
        zrf: ZRF of the test images of these classes; NaN without a class or a random network.
    """

    classes: tuple[int, ...]
    logits: Tensor
    counts: Tensor
    zrf: float

    @property
    def acc_r_pct(self) -> float:
        """Accuracy on the images of all other classes, in percent."""
        return _accuracy(self.counts, [c for c in range(len(self.counts)) if c not in self.classes])

    @property
    def acc_f_pct(self) -> float:
        """Accuracy on the images of the forgotten classes, in percent; NaN without a class."""
        return _accuracy(self.counts, self.classes)

    @property
    def per_class_pct(self) -> Tensor:
        """(K,), accuracy of each class in percent."""
        counts = self.counts.double()
        return 100 * counts.diagonal() / counts.sum(1)


def _accuracy(counts: Tensor, classes: Sequence[int]) -> float:
    own = counts[list(classes)].double()
    return 100 * float(own[range(len(classes)), list(classes)].sum() / own.sum())


@contextmanager
def reopened(wf: WFNet, share: float) -> Iterator[WFNet]:
    """Within the context, ``share`` of the gates of every row and layer are 1, the lowest alpha first."""
    saved = {name: table.detach().clone() for name, table in wf.alphas().items()}
    try:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                count = int(share * table.shape[1] + 0.5)  # rounded as in the insertion metric
                lowest = saved[name].argsort(dim=1, stable=True)[:, :count]
                table.scatter_(1, lowest, torch.inf)  # sigmoid(inf) is exactly 1
        yield wf
    finally:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                table.copy_(saved[name])


def combined(wf: WFNet, classes: Sequence[int]) -> WFNet:
    """A copy whose row ``classes[0]`` holds the lowest gates of ``classes``, as for ``forget={...}``."""
    wf = copy.deepcopy(wf)
    with torch.no_grad():
        for table in wf.alphas().values():
            table[classes[0]] = table[list(classes)].amin(0)
    return wf


@torch.inference_mode()
def logits_by_share(
    wf: WFNet, images: Tensor, rows: Sequence[int], bar: Bar | None = None, batch_size: int = 500
) -> Tensor:
    """Logits (len(rows), P, N, K) of ``images`` (N, C, H, W) for each row and each of ``SHARES``."""
    row = torch.tensor(rows, device=images.device).repeat_interleave(len(images))
    index = torch.arange(len(images), device=images.device).repeat(len(rows))
    batches = list(zip(index.split(batch_size), row.split(batch_size), strict=True))
    tables = []
    for share in SHARES if bar is None else bar(SHARES, "gates re-opened"):
        with reopened(wf, share):
            logits = torch.cat([wf(images[i], forget=r).float() for i, r in batches])
        tables.append(logits.view(len(rows), len(images), -1))
    return torch.stack(tables, 1).cpu()


@torch.inference_mode()
def exciting_images(wf: WFNet, images: Tensor, count: int = 6, batch_size: int = 100) -> dict[str, Tensor]:
    """Indices (C_out, count) by layer name of the ``images`` that activate each filter of the original most.

    The activation is the mean of the positive outputs over pixels or tokens.
    """
    means: dict[str, list[Tensor]] = {name: [] for name in wf.filters}

    def record(name: str, layer: nn.Module):
        places = (2, 3) if isinstance(layer, WFConv2d) else 1  # pixels of (B, C, H, W), tokens of (B, N, F)
        return layer.register_forward_hook(
            lambda module, args, out: means[name].append(out.relu().mean(places).float().cpu())
        )

    hooks = [record(name, layer) for name, layer in wf.filters.items()]
    try:
        for batch in images.split(batch_size):
            wf(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: torch.cat(parts).topk(min(count, len(images)), dim=0).indices.T.contiguous()
        for name, parts in means.items()
    }


class Lookups:
    """The tables of one network on one data set.

    Args:
        wf: The network with its rows.
        data: The data set; its test split is shown and scored.
        random_model: The architecture freshly initialised, the reference of ZRF; ZRF is NaN without it.
        path: The cache file of the tables; no cache by default.
        alpha_sha256: SHA-256 of the alpha file; a cache of another file is computed again.
        bar: Called as ``bar(items, title)``; iterates over the items and shows the progress.

    Attributes:
        index: (S,), indices of the shown test images, sorted by class.
        images, labels: The shown test images.
        exciting: Layer name to (C_out, 6), indices of the test images that activate each filter most.
    """

    def __init__(
        self,
        wf: WFNet,
        data: ImageData,
        random_model: nn.Module | None = None,
        *,
        path: Path | None = None,
        alpha_sha256: str = "",
        bar: Bar = Progress,
    ) -> None:
        self.wf, self.data, self.bar = wf, data, bar
        self._images, self._labels = data.test.all()
        self.index = _first_of_each_class(self._labels.cpu(), SHOWN)
        self.images, self.labels = self._images[self.index], self._labels[self.index].cpu()
        about = {
            "schema": SCHEMA,
            "alpha_sha256": alpha_sha256,
            "test_images": len(self._labels),
            "random": bool(random_model),
        }
        tables = _read(path, json.dumps(about)) if path is not None else None
        if tables is None:
            tables = self._compute(random_model)
            if path is not None:
                _write(path, tables, json.dumps(about))
        self._tables = tables
        self.exciting = {name: tables[f"exciting.{name}"] for name in wf.filters}
        self._outcomes: dict[tuple[int, ...], Outcome] = {}

    def outcome(self, classes: Iterable[int]) -> Outcome:
        """The results with ``classes`` forgotten: looked up for one class, else computed at the first call.

        Raises:
            ValueError: All classes are chosen.
            IndexError: There is no such class.
        """
        chosen = tuple(sorted(set(classes)))
        if chosen not in self._outcomes:
            self._outcomes[chosen] = self._outcome(chosen)
        return self._outcomes[chosen]

    def original(self, classes: Iterable[int] = ()) -> Outcome:
        """The results of the original network, scored as if ``classes`` were forgotten."""
        tables, labels, chosen = self._tables, self._labels.cpu(), tuple(sorted(set(classes)))
        logits, score = tables["original"], float("nan")
        if chosen and "random" in tables:
            own = torch.isin(labels, torch.tensor(chosen))
            score = zrf(logits[own], tables["random"][own])
        counts = class_counts(labels, logits.argmax(1), self.data.num_classes)
        return Outcome(chosen, logits[self.index].expand(len(SHARES), -1, -1), counts, score)

    def logits(self, images: Tensor, classes: Sequence[int], bar: Bar | None = None) -> Tensor:
        """Logits (P, N, K) of any images with ``classes`` forgotten, at each share of gates re-opened."""
        if not classes:
            return predict(self.wf, images).cpu().expand(len(SHARES), -1, -1)
        wf = self.wf if len(classes) == 1 else combined(self.wf, classes)
        return logits_by_share(wf, images, [classes[0]], bar)[0]

    def test_pixels(self, index: Tensor) -> np.ndarray:
        """The test images at ``index`` as pixels to show."""
        return self.data.pixels(self._images[index])

    def test_label(self, index: int) -> str:
        """The class name of a test image."""
        return self.data.class_names[int(self._labels[index])]

    def _outcome(self, chosen: tuple[int, ...]) -> Outcome:
        tables = self._tables
        if not chosen:
            return self.original()
        if len(chosen) > 1 or "shown" not in tables:
            counts, score = self._score(set(chosen), tables)
            return Outcome(chosen, self.logits(self.images, chosen, self.bar), counts, score)
        c, k = chosen[0], self.data.num_classes
        if not 0 <= c < k:
            raise IndexError(f"no class {c}: a class is a whole number from 0 to {k - 1}.")
        return Outcome(chosen, tables["shown"][c], tables["counts"][c], float(tables["zrf"][c]))

    def _compute(self, random_model: nn.Module | None) -> dict[str, Tensor]:
        wf, k = self.wf, self.data.num_classes
        tables = {"original": predict(wf, self._images).cpu()}
        if random_model is not None:
            tables["random"] = predict(random_model, self._images).cpu()
        for name, index in exciting_images(wf, self._images[:SEARCHED]).items():
            tables[f"exciting.{name}"] = index
        if k * k * len(SHARES) * len(self.index) <= LARGEST:
            tables["shown"] = logits_by_share(wf, self.images, range(k), self.bar)
            scores = [self._score(c, tables) for c in self.bar(range(k), "test set, class by class")]
            tables["counts"] = torch.stack([counts for counts, _ in scores])
            tables["zrf"] = torch.tensor([score for _, score in scores], dtype=torch.float64)
        return tables

    def _score(self, forget: int | set[int], tables: dict[str, Tensor]) -> tuple[Tensor, float]:
        random_logits = tables["random"].to(self._images.device) if "random" in tables else None
        counts, score = row_counts(self.wf, forget, random_logits, self._images, self._labels)
        return counts.cpu(), score


def _first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Indices of about ``count`` images, sorted by class: the first images of each class, equally many."""
    classes = labels.unique()
    each = max(count // len(classes), 1)
    return torch.cat([(labels == c).nonzero().flatten()[:each] for c in classes[:count]])


def _read(path: Path, about: str) -> dict[str, Tensor] | None:
    """The cached tables; ``None`` if the file is missing, damaged or of another network."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("wfnb_lookups") != about:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, FileNotFoundError):
        return None


def _write(path: Path, tables: dict[str, Tensor], about: str) -> None:
    """Write the tables beside ``path`` and rename the complete file, so that no reader sees half a file."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        contiguous = {name: table.contiguous() for name, table in tables.items()}
        save_file(contiguous, partial, {"wfnb_lookups": about})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
