"""Names of data sets and architectures, and what tables and figures call them."""

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

TIMM = "pretrained"  # as a checkpoint: timm's own weights

PAPER_DATASETS = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet-1k"}


def paper_name(name: str) -> str:
    """The name of an architecture or a data set in tables and figures; an unknown name stays.

    >>> paper_name("resnet18"), paper_name("cifar10"), paper_name("my_net")
    ('ResNet-18', 'CIFAR-10', 'my_net')
    """
    return ARCHITECTURES[name][0] if name in ARCHITECTURES else PAPER_DATASETS.get(name, name)
