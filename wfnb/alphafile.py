"""The file that keeps the rows of a WFNet: safetensors, with what is needed to recognise the network."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

__all__ = ["check_architecture", "digest", "read", "shapes", "write"]

SCHEMA = 2


def shapes(model: nn.Module) -> dict[str, list[int]]:
    """The shape of each parameter and buffer by name."""
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def digest(model: nn.Module) -> str:
    """SHA-256 over names and values of parameters and buffers, for any device, memory format and dtype."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(name.encode())
        sha.update(value.detach().cpu().double().contiguous().numpy().tobytes())
    return sha.hexdigest()


def write(
    path: str | os.PathLike,
    tables: Mapping[str, Tensor],
    original: nn.Module,
    *,
    layers: Sequence[str],
    class_names: Sequence[str],
    separate_bias: bool | None,
) -> Path:
    """Write the tables and a description of their network, atomically.

    Args:
        original: The network without gates.
        layers, class_names, separate_bias: As ``WFNet`` takes them.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to save {path.name} in.")
    description = {
        "schema": SCHEMA,
        "network": shapes(original),
        "layers": list(layers),
        "weights_sha256": digest(original),
        "class_names": list(class_names),
        "separate_bias": separate_bias,
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        values = {name: table.detach().cpu().contiguous() for name, table in tables.items()}
        save_file(values, partial, {"wfnb": json.dumps(description)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The description of an alpha file, and its tables.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no safetensors file, or none that ``write`` wrote.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no alpha file {path}: WFNet.save writes one.")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("wfnb", "null")
            tables = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}).") from error
    try:
        about = json.loads(text)
    except ValueError:
        about = None
    schema = about.get("schema") if isinstance(about, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path} is no alpha file of schema {SCHEMA} (it says {schema}): make it again with WFNet.save."
        )
    return about, tables


def check_architecture(path: Path, about: Mapping[str, dict[str, list[int]]], model: nn.Module) -> None:
    """Raise ``ValueError`` unless ``model`` has the parameters and buffers of the file's network."""
    there, here = about["network"], shapes(model)
    odd = next((name for name in {**there, **here} if there.get(name) != here.get(name)), None)
    if odd is not None:
        raise ValueError(
            f"{path} was made for another architecture or other classes: {odd!r} is of shape "
            f"{there.get(odd, 'none')} there and "
            f"{here.get(odd, 'none')} in this {type(model).__name__}."
        )
