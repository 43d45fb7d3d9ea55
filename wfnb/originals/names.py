"""The names that users choose from, and the paper's names for them."""

__all__ = ["ARCHITECTURES", "PAPER_DATASETS", "TASKS", "TIMM", "paper_name"]

# data set: (classes, channels, image size)
TASKS = {"digits": (10, 1, 16), "mnist": (10, 1, 28), "cifar10": (10, 3, 32), "imagenet": (1000, 3, 224)}

# architecture: (the paper's name, timm's name at 224)
ARCHITECTURES = {
    "vgg16": ("VGG-16", "vgg16"),
    "resnet18": ("ResNet-18", "resnet18"),
    "vit_t": ("ViT-T", "vit_tiny_patch16_224"),
    "vit_s": ("ViT-S", "vit_small_patch16_224"),
    "resnet20": ("ResNet-20", None),
}

TIMM = "pretrained"  # in the place of a checkpoint's file: timm's own weights

PAPER_DATASETS = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet-1k"}


def paper_name(name: str) -> str:
    """The name that tables and figures show for an architecture or a data set: ``"resnet18"`` is ``"ResNet-18"``."""
    return ARCHITECTURES[name][0] if name in ARCHITECTURES else PAPER_DATASETS.get(name, name)
