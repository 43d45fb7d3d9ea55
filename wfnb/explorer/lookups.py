"""What the explorer looks up: everything that a network with gates says about a few shown images, computed once.

For each class c and each share of gates re-opened, the logits of the shown images under row c; for each class the confusion matrix and the
ZRF of the whole test set, by the functions that fill ``metrics.json``; for each filter the test images that excite it most. A file of these
tables lies beside the run; it names the SHA-256 of the alpha file that it was computed from.
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wfnb.layers import WFConv2d
from wfnb.metrics.retain_forget import class_counts, predict
from wfnb.metrics.scores import row_counts
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet
from wfnb.originals.data import ImageData
from wfnb.progress import Progress

__all__ = ["SHARES", "Choice", "Lookups", "exciting_images", "logits_by_share", "reopened"]

SCHEMA = 1
SHARES = tuple(i / 10 for i in range(11))  # of gates re-opened
SHOWN = 40  # images in the grid
EXCITED = 500  # test images among which those that excite a filter are sought
LARGEST = 2**24  # entries of a table of all rows; beyond it, a class is computed when it is chosen

Bar = Callable[[Sequence, str], Iterable]


@dataclass(frozen=True)
class Choice:
    """What is shown for some classes forgotten at once (none of them: the original network).

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
        """The accuracy on all images of other classes, in percent."""
        return _accuracy(self.counts, [c for c in range(len(self.counts)) if c not in self.classes])

    @property
    def acc_f_pct(self) -> float:
        """The accuracy on the images of these classes, in percent; NaN without a class."""
        return _accuracy(self.counts, self.classes)

    @property
    def per_class_pct(self) -> Tensor:
        """(K,), the accuracy of each class in percent."""
        counts = self.counts.double()
        return 100 * counts.diagonal() / counts.sum(1)


def _accuracy(counts: Tensor, classes: Sequence[int]) -> float:
    own = counts[list(classes)].double()
    return 100 * float(own[range(len(classes)), list(classes)].sum() / own.sum())


@contextmanager
def reopened(wf: WFNet, share: float) -> Iterator[WFNet]:
    """Within the context, ``share`` of the gates of every row and layer are open, the most responsible (lowest alpha) first."""
    kept = {name: table.detach().clone() for name, table in wf.alphas().items()}
    try:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                count = int(share * table.shape[1] + 0.5)  # as in the insertion metric
                lowest = kept[name].argsort(dim=1, stable=True)[:, :count]
                table.scatter_(1, lowest, torch.inf)  # a gate of exactly 1
        yield wf
    finally:
        with torch.no_grad():
            for name, table in wf.alphas().items():
                table.copy_(kept[name])


def combined(wf: WFNet, classes: Sequence[int]) -> WFNet:
    """A copy in which the row of the first of ``classes`` holds the gates of all of them, as ``forget={...}`` combines them."""
    wf = copy.deepcopy(wf)
    with torch.no_grad():
        for table in wf.alphas().values():
            table[classes[0]] = table[list(classes)].amin(0)
    return wf


@torch.inference_mode()
def logits_by_share(
    wf: WFNet, images: Tensor, rows: Sequence[int], bar: Bar | None = None, batch_size: int = 500
) -> Tensor:
    """Logits (len(rows), P, N, K) of ``images`` (N, C, H, W) under each of ``rows`` at each of ``SHARES``, in mixed batches of all rows."""
    row = torch.tensor(rows, device=images.device).repeat_interleave(len(images))
    at = torch.arange(len(images), device=images.device).repeat(len(rows))
    tables = []
    for share in SHARES if bar is None else bar(SHARES, "gates re-opened"):
        with reopened(wf, share):
            parts = [
                wf(images[i], forget=r).float()
                for i, r in zip(at.split(batch_size), row.split(batch_size), strict=True)
            ]
        tables.append(torch.cat(parts).view(len(rows), len(images), -1))
    return torch.stack(tables, 1).cpu()


@torch.inference_mode()
def exciting_images(wf: WFNet, images: Tensor, count: int = 6, batch_size: int = 100) -> dict[str, Tensor]:
    """By layer name, (C_out, count): which of ``images`` excite each filter of the original most, by the mean of its positive outputs."""
    means: dict[str, list[Tensor]] = {name: [] for name in wf.filters}

    def watch(name: str, layer):
        places = (2, 3) if isinstance(layer, WFConv2d) else 1  # pixels of (B, C, H, W), tokens of (B, N, F)
        return layer.register_forward_hook(
            lambda module, args, out: means[name].append(out.relu().mean(places).float().cpu())
        )

    handles = [watch(name, layer) for name, layer in wf.filters.items()]
    try:
        for batch in images.split(batch_size):
            wf(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: torch.cat(parts).topk(min(count, len(images)), dim=0).indices.T.contiguous()
        for name, parts in means.items()
    }


class Lookups:
    """The tables of one network on one data set. ``choice`` answers at once for a class, and computes a set of classes when first asked.

    Args:
        wf: The network with its rows.
        data: Its test split is shown and scored.
        random_model: The architecture freshly initialised, ZRF's reference; no ZRF without it.
        path: Where the tables are kept; nowhere if left out.
        alpha_sha256: Of the alpha file: tables kept from another one are computed again.
        bar: Called as ``bar(items, title)``, iterates and shows how far it is.

    Attributes:
        index: (S,), which test images are shown, by class.
        images, labels: The shown ones.
        exciting: By layer, (C_out, 6), the test images that excite each filter most.
    """

    def __init__(
        self,
        wf: WFNet,
        data: ImageData,
        random_model: torch.nn.Module | None = None,
        *,
        path: Path | None = None,
        alpha_sha256: str = "",
        bar: Bar = Progress,
    ) -> None:
        self.wf, self.data, self.bar = wf, data, bar
        self._images, self._labels = data.test.all()
        self.index = _by_class(self._labels.cpu(), SHOWN)
        self.images, self.labels = self._images[self.index], self._labels[self.index].cpu()
        self._about = json.dumps(
            {
                "schema": SCHEMA,
                "alpha_sha256": alpha_sha256,
                "test_images": len(self._labels),
                "random": bool(random_model),
            }
        )
        tables = self._kept(path)
        if tables is None:
            tables = self._compute(random_model)
            if path is not None:
                _keep(path, tables, self._about)
        self._tables = tables
        self.exciting = {name: tables[f"exciting.{name}"] for name in wf.filters}
        self._choices: dict[tuple[int, ...], Choice] = {}

    @property
    def ready(self) -> bool:
        """Whether all single classes are looked up; else each is computed when it is chosen."""
        return "shown" in self._tables

    def _compute(self, random_model) -> dict[str, Tensor]:
        wf, k = self.wf, self.data.num_classes
        tables = {"original": predict(wf, self._images).cpu()}
        if random_model is not None:
            tables["random"] = predict(random_model, self._images).cpu()
        tables |= {
            f"exciting.{name}": index for name, index in exciting_images(wf, self._images[:EXCITED]).items()
        }
        if k * k * len(SHARES) * len(self.index) <= LARGEST:
            tables["shown"] = logits_by_share(wf, self.images, range(k), self.bar)
            rows = [self._score(c, tables) for c in self.bar(range(k), "test set, class by class")]
            tables["counts"] = torch.stack([counts for counts, _ in rows])
            tables["zrf"] = torch.tensor([score for _, score in rows], dtype=torch.float64)
        return tables

    def _score(self, forget: int | set[int], tables: dict[str, Tensor]) -> tuple[Tensor, float]:
        random_logits = tables["random"].to(self._images.device) if "random" in tables else None
        counts, score = row_counts(self.wf, forget, random_logits, self._images, self._labels)
        return counts.cpu(), score

    def _kept(self, path: Path | None) -> dict[str, Tensor] | None:
        from safetensors import SafetensorError, safe_open

        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("wfnb_lookups") != self._about:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        except SafetensorError:
            return None

    def choice(self, classes: Iterable[int]) -> Choice:
        """What is shown with ``classes`` forgotten; computed where it is not looked up, with a bar.

        Raises:
            ValueError: All classes are chosen.
            IndexError: There is no such class.
        """
        chosen = tuple(sorted(set(classes)))
        if chosen not in self._choices:
            self._choices[chosen] = self._look_up(chosen)
        return self._choices[chosen]

    def original(self, classes: Iterable[int] = ()) -> Choice:
        """The original network, scored as if ``classes`` had been forgotten."""
        t, labels, chosen = self._tables, self._labels.cpu(), tuple(sorted(set(classes)))
        own = torch.isin(labels, torch.tensor(chosen, dtype=torch.int64))
        score = zrf(t["original"][own], t["random"][own]) if chosen and "random" in t else float("nan")
        counts = class_counts(labels, t["original"].argmax(1), self.data.num_classes)
        return Choice(chosen, t["original"][self.index].expand(len(SHARES), -1, -1), counts, score)

    def _look_up(self, chosen: tuple[int, ...]) -> Choice:
        if not chosen:
            return self.original()
        if len(chosen) == 1 and self.ready:
            c, t = chosen[0], self._tables
            if not 0 <= c < self.data.num_classes:
                raise IndexError(
                    f"no class {c}: a class is a whole number from 0 to {self.data.num_classes - 1}."
                )
            return Choice(chosen, t["shown"][c], t["counts"][c], float(t["zrf"][c]))
        counts, score = self._score(set(chosen), self._tables)
        return Choice(chosen, self.logits(self.images, chosen, self.bar), counts, score)

    def logits(self, images: Tensor, classes: Sequence[int], bar: Bar | None = None) -> Tensor:
        """Logits (P, N, K) of any images with ``classes`` forgotten, at each share of gates re-opened."""
        if not classes:
            return predict(self.wf, images).cpu().expand(len(SHARES), -1, -1)
        wf = self.wf if len(classes) == 1 else combined(self.wf, classes)
        return logits_by_share(wf, images, [classes[0]], bar)[0]

    def test_pixels(self, index: Tensor):
        """The test images at ``index`` as pixels to show."""
        return self.data.pixels(self._images[index])

    def test_label(self, index: int) -> str:
        """The class name of a test image."""
        return self.data.class_names[int(self._labels[index])]


def _by_class(labels: Tensor, count: int) -> Tensor:
    """Indices of about ``count`` images, the same number of each class (the first ones), ordered by class."""
    classes = labels.unique()
    each = max(count // len(classes), 1)
    return torch.cat([(labels == c).nonzero().flatten()[:each] for c in classes[:count]])


def _keep(path: Path, tables: dict[str, Tensor], about: str) -> None:
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            {name: table.contiguous() for name, table in tables.items()}, partial, {"wfnb_lookups": about}
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
