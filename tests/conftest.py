"""Tiny networks with known answers, random rows, and a runs folder that is thrown away."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wfnb

torch.set_num_threads(1)
K = 5


class Plain(nn.Module):
    """A convolution with bias, one without, batch norm, dropout, a linear layer with bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, K)

    def forward(self, x):
        x = F.relu(self.bn(self.conv2(F.relu(self.conv1(x)))))
        return self.fc(self.drop(x.mean((2, 3))))


class Grouped(nn.Module):
    """Groups, depthwise with and without a channel multiplier, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.multiplied = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(16, 6, 1)
        self.fc = nn.Linear(6, K)

    def forward(self, x):
        x = F.relu(self.depthwise(F.relu(self.grouped(self.stem(x)))))
        return self.fc(F.relu(self.pointwise(self.multiplied(x))).mean((2, 3)))


class Odd(nn.Module):
    """Strides, dilation, and every way to pad."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 6, 3, stride=(2, 1), padding=(1, 2))
        self.dilated = nn.Conv2d(6, 6, 3, dilation=2, padding="same")
        self.reflected = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.circular = nn.Conv2d(6, 7, (1, 3), padding=(0, 1), padding_mode="circular", bias=False)
        self.fc = nn.Linear(7, K)

    def forward(self, x):
        x = F.gelu(self.reflected(F.gelu(self.dilated(self.strided(x)))))
        return self.fc(self.circular(x).mean((2, 3)))


class Twice(nn.Module):
    """One convolution called twice, and held under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = self.first
        self.fc = nn.Linear(6, K)

    def forward(self, x):
        return self.fc(F.relu(self.second(F.relu(self.first(self.stem(x))))).mean((2, 3)))


class Normed(nn.Module):
    """Batch norms that alone take a convolution's output (two), and others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.depthwise, self.depthwise_norm = (
            nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
            nn.BatchNorm2d(6, eps=0.1, affine=False),
        )
        self.beside, self.beside_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.left, self.right, self.shared_norm = (
            nn.Conv2d(6, 6, 1),
            nn.Conv2d(6, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )
        self.fc = nn.Linear(6, K)

    def forward(self, x):
        x = F.relu(self.conv_norm(self.conv(x)), inplace=True)
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        x = self.beside(x)
        x = F.relu(self.beside_norm(x) + x)
        return self.fc((self.shared_norm(self.left(x)) + self.shared_norm(self.right(x))).mean((2, 3)))


class InPlace(nn.Module):
    """Gated outputs that are changed in place: without a batch norm, behind one, and as the start of a sum;
    and one that is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bare, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.normed, self.norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.summed, self.summed_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.kept = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6, K)

    def forward(self, x):
        x = self.relu(self.bare(x))
        shortcut, x = x, self.relu(self.norm(self.normed(x)))
        x = self.summed_norm(self.summed(x))
        x += shortcut
        return self.fc(F.relu(self.kept(x)).mean((2, 3)))


def _vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=8, patch_size=4, num_classes=K, embed_dim=16, depth=2, num_heads=2, mlp_ratio=1.0
    )


def _resnet() -> nn.Module:
    """A residual network whose batch norms are called in another order than they are held."""
    return wfnb.create_model("resnet20", num_classes=K, channels=3, size=8, width=0.25)


_NETWORKS = {
    "plain": Plain,
    "grouped": Grouped,
    "odd": Odd,
    "twice": Twice,
    "normed": Normed,
    "in_place": InPlace,
    "vit": _vit,
    "resnet": _resnet,
}


def _network(name: str) -> nn.Module:
    """A network of random weights and random batch-norm statistics, in float64 and eval mode; images are (B,
    3, 8, 8), K = 5.
    """
    net = _NETWORKS[name]().double().eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(
                    torch.rand_like(value) + 0.5
                    if value.ndim == 1
                    else torch.randn_like(value) / value[0].numel() ** 0.5
                )
    return net


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def runs_folder(tmp_path, monkeypatch) -> Path:
    """The runs folder of one test; the kernels that it starts import the library under test."""
    _isolate(monkeypatch, tmp_path / "runs")
    return tmp_path / "runs"


def _isolate(monkeypatch, runs: Path) -> None:
    library = str(Path(wfnb.__file__).resolve().parent.parent)
    monkeypatch.setenv("WFNB_RUNS", str(runs))
    monkeypatch.setenv("WFNB_PUBLISHED", str(runs / "published"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    )


@pytest.fixture(scope="session")
def isolate():
    """Send results to a folder, for a patch of wider scope than one test."""
    return _isolate


@pytest.fixture(scope="session")
def network():
    """Make one of the tiny networks by name."""
    return _network


@pytest.fixture
def net():
    """The plain tiny network in float64."""
    return _network("plain")


@pytest.fixture
def randomised():
    """Give a WFNet random rows, its gates spread over (0, 1)."""

    def fill(wf, scale: float = 2.0):
        with torch.no_grad():
            for table in wf.alphas().values():
                table.copy_(torch.randn_like(table) * scale)
        return wf

    return fill


@pytest.fixture
def images():
    """Seven images for the tiny networks, in float64."""
    return torch.randn(7, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def digits():
    """The digits data set; nothing changes it."""
    return wfnb.load_dataset("digits")


@pytest.fixture(scope="session")
def trained(digits):
    """A thin ResNet-20 trained on digits in seconds."""
    torch.manual_seed(0)
    model = wfnb.create_model("resnet20", "digits", width=0.5)
    wfnb.train(
        model, digits.train, recipe=wfnb.Training(epochs=4, batch_size=64, lr=0.1, crop=1), progress=False
    )
    return model
