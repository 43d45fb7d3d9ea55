"""What removing closed channels saves: ``wfnb.prune`` on the finished untraining runs."""

import functools
import statistics
from typing import Any

import torch
from torch import nn

from wfnb.bench.goals import Scale, result_row
from wfnb.bench.timing import paired
from wfnb.evaluation.pruning import prune
from wfnb.metrics.relearn import relearn_time
from wfnb.metrics.retain_forget import predict
from wfnb.net import WFNet
from wfnb.originals.data import ImageData, sample
from wfnb.progress import Progress
from wfnb.reproduction import runs
from wfnb.reproduction.cells import Cell

__all__ = ["IMAGES", "RELEARN_CAP", "pruned_rows"]

IMAGES = 1000  # whose predictions are compared
RELEARN_CAP = 10  # epochs


def pruned_rows(scale: Scale, device: torch.device) -> list[dict[str, Any]]:
    """Prune the finished runs of ``scale.pruned`` (seed 0, gated convolutions) whose weights are present.

    Returns:
        One row per run. The figure is time of the pruned network / time of the original, one pair per class.
        ``removed_pct`` (of the weights) and ``same_predictions_pct`` (of test images, pruned against merged)
        are averaged over classes; ``relearn_epochs`` are those of the first and the middle class.
    """
    cells = [cell for cell in runs.found("untrain") if cell.preset in scale.pruned and cell.seed == 0]
    rows = []
    bar = Progress(cells, "pruning")
    for cell in bar:
        bar.note(run=str(cell.path))
        try:
            weights = runs.finished(cell, "alpha.safetensors").file("alpha.safetensors")
            run = runs.Run(cell, device)
            original, data = run.original(), run.data
        except OSError:  # a checkout has the metrics of large runs, not their weights
            continue
        wf = WFNet.load(weights, original, class_names=data.class_names)
        if not wf.attention:
            original.requires_grad_(False)
            rows.append(_pruned_row(cell, wf, original, data, scale, device))
    return rows


def _pruned_row(
    cell: Cell, wf: WFNet, original: nn.Module, data: ImageData, scale: Scale, device: torch.device
) -> dict[str, Any]:
    (validation, _), (images, labels) = (sample(split, IMAGES).all() for split in (data.val, data.test))
    batch = images[: scale.images]
    size = _weights(original)
    ratios, removed, same = [], [], []
    epochs: dict[str, list[int]] = {"merged": [], "pruned": []}
    for c in range(wf.num_classes):
        networks = {"merged": wf.merge(c), "pruned": prune(wf, c, validation)}
        merged, pruned = (predict(network, images).argmax(1) for network in networks.values())
        removed.append(100 * (1 - _weights(networks["pruned"]) / size))
        same.append(100 * float((merged == pruned).float().mean()))
        with torch.no_grad():
            run_pruned, run_original = (functools.partial(n, batch) for n in (networks["pruned"], original))
            ratios += paired(run_pruned, run_original, 1, scale.least, device)
        if c in (0, wf.num_classes // 2):
            held_out = images[labels == c]
            target = float((predict(original, held_out).argmax(1) == c).float().mean())
            for name, network in networks.items():
                relearned = relearn_time(network, data.train, held_out, c, target, cap=RELEARN_CAP)
                epochs[name].append(relearned.epochs)
    return result_row(
        "pruned",
        str(cell.path),
        ratios,
        removed_pct=statistics.fmean(removed),
        same_predictions_pct=statistics.fmean(same),
        relearn_epochs=epochs,
    )


def _weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
