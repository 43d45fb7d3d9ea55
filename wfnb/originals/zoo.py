"""The paper's networks at 32x32 and at 224, their thin forms, and any timm model by name.

At 32x32: VGG-16 with batch norm and one 512->K layer, ResNet-18 with a 3x3 stem, ViT-T and ViT-S with patch
4, depth 12 and an MLP as wide as the tokens (the first author's settings), and ResNet-20 (He et al., 2016).
At 224: timm's networks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfnb.checks import check_choice
from wfnb.originals.names import ARCHITECTURES, TASKS

__all__ = ["check_architecture", "create_model"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut with a 1x1 convolution where shapes differ.

    The shortcut is subsampled before its convolution, which gives the same numbers as a strided convolution.
    torch's CPU kernel for the gradient of a strided 1x1 convolution writes out of bounds at odd batch sizes
    on several threads (torch 2.14).
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.downsample = stride, None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x[:, :, :: self.stride, :: self.stride])
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet(nn.Module):
    """ResNet for 32x32 images: a 3x3 stem, stages of basic blocks, average pooling, one linear layer."""

    def __init__(
        self, channels: int, num_classes: int, widths: tuple[int, ...], blocks: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages, c_in = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            stage_blocks = [BasicBlock(c_in if i == 0 else width, width, s) for i, s in enumerate(strides)]
            stages.append(nn.Sequential(*stage_blocks))
            c_in = width
        self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))  # (B, C, h, w)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """VGG-16 for small images: 13 convolutions with bias and batch norm, five poolings, one linear layer.

    The poolings round sizes up, so images of 16x16 fit.
    """

    PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")

    def __init__(self, channels: int, num_classes: int, width: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = channels
        for item in self.PLAN:
            if isinstance(item, str):  # "M"
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            c_out = _thin(item, width)
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
            c_in = c_out
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def _thin(channels: int, width: float, multiple: int = 1) -> int:
    """``channels`` times ``width``, rounded to a multiple of ``multiple``, which is also the least.

    >>> _thin(64, 1 / 16), _thin(192, 1 / 8, multiple=3)
    (4, 24)
    """
    return max(round(channels * width / multiple), 1) * multiple


def _vit(
    dim: int, heads: int, channels: int, num_classes: int, size: int, width: float, depth: int | None
) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=size, patch_size=4, in_chans=channels, num_classes=num_classes,
        embed_dim=_thin(dim, width, heads), depth=depth or 12, num_heads=heads, mlp_ratio=1.0,
    )  # fmt: skip
    for block in vit.blocks:  # for so few tokens the fused kernel is a tenth slower on a CPU
        block.attn.fused_attn = torch.cuda.is_available()
    return vit


def check_architecture(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is one of ``ARCHITECTURES`` or of ``timm.list_models()``."""
    if name in ARCHITECTURES:
        return
    import timm

    if not (isinstance(name, str) and timm.is_model(name.removeprefix("timm:"))):
        check_choice("architecture", name, [*ARCHITECTURES, "any name of timm.list_models()"])


def create_model(
    name: str,
    dataset: str | None = None,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
    size: int | None = None,
    width: float = 1.0,
    depth: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build a network.

    Args:
        name: ``"vgg16"``, ``"resnet18"``, ``"resnet20"``, ``"vit_t"``, ``"vit_s"``, or any timm name
            (``"timm:resnet18"`` for timm's ResNet-18).
        dataset: Sets the number of classes, the channels and the image size.
        num_classes, channels, size: Instead of those of ``dataset``.
        width: Multiplies the channels (the token width of a ViT); 1 is the paper's network.
        depth: Number of blocks of ``"vit_t"`` and ``"vit_s"``, 12 by default; other networks take none.
        pretrained: Download and load timm's weights (at 224 only).

    Returns:
        The network, initialised from torch's random state, in training mode.

    Raises:
        ValueError: An unknown name or data set, or a width, depth or size that the network does not have.

    >>> create_model("resnet20", "digits", width=0.5).fc
    Linear(in_features=32, out_features=10, bias=True)
    """
    check_architecture(name)
    if dataset is not None:
        check_choice("data set", dataset, TASKS)
    task = (None, None, None) if dataset is None else TASKS[dataset]
    num_classes, channels, size = (
        given if given is not None else known
        for given, known in zip((num_classes, channels, size), task, strict=True)
    )
    if num_classes is None or channels is None or size is None:
        raise ValueError("create_model needs a dataset, or all of num_classes, channels and size.")
    if not width > 0:
        raise ValueError(f"width must be above 0, not {width!r}.")
    if depth is not None and (not name.startswith("vit_") or depth < 1):
        raise ValueError(f"depth {depth!r}: only 'vit_t' and 'vit_s' take a depth, of 1 or more.")
    if name not in ARCHITECTURES or size > 64:
        return _from_timm(name, num_classes, channels, size, width, depth, pretrained)
    if pretrained:
        raise ValueError(
            f"there are no pretrained weights for {name!r} at {size}x{size}: train it, or take size=224."
        )
    model = _for_32(name, num_classes, channels, size, width, depth)
    return model.to(memory_format=torch.channels_last)  # makes convolutions a third faster, on a CPU too


def _for_32(
    name: str, num_classes: int, channels: int, size: int, width: float, depth: int | None
) -> nn.Module:
    if name == "vgg16":
        return VGG(channels, num_classes, width)
    if name == "resnet18":
        widths = tuple(_thin(c, width) for c in (64, 128, 256, 512))
        return ResNet(channels, num_classes, widths, blocks=(2, 2, 2, 2))
    if name == "resnet20":
        widths = tuple(_thin(c, width) for c in (16, 32, 64))
        return ResNet(channels, num_classes, widths, blocks=(3, 3, 3))
    dim, heads = {"vit_t": (192, 3), "vit_s": (384, 6)}[name]
    return _vit(dim, heads, channels, num_classes, size, width, depth)


def _from_timm(
    name: str, num_classes: int, channels: int, size: int, width: float, depth: int | None, pretrained: bool
) -> nn.Module:
    import timm

    timm_name = ARCHITECTURES[name][1] if name in ARCHITECTURES else name.removeprefix("timm:")
    if timm_name is None:
        raise ValueError(f"{name!r} is a network for images of 32x32, not of {size}x{size}.")
    if width != 1.0 or depth is not None:
        raise ValueError(f"timm's {timm_name!r} has no thin form: width must be 1 and depth left out.")
    sized: dict[str, Any] = {"img_size": size} if "vit" in timm_name else {}
    model = timm.create_model(
        timm_name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **sized
    )
    return model.to(memory_format=torch.channels_last)
