"""Changed settings: as text of the command line, for the cells they count for, and in a folder's name."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wfnb.originals.names import TIMM
from wfnb.reproduction.steps import upstream

__all__ = ["parse_settings", "settings_for", "tag"]

LONGEST_TAG = 120  # characters of a folder's name that settings may take


def parse_settings(text: str) -> dict[str, Any]:
    """Settings of ``graph`` from ``STEP.SETTING=VALUE`` with blanks between; values are JSON, or else text.

    Raises:
        ValueError: An item has another form.
    """
    settings: dict[str, Any] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not (equals and "." in name):
            raise ValueError(
                f"setting {item!r}: write STEP.SETTING=VALUE or STEP/ARCH.SETTING=VALUE, "
                "such as untrain/resnet18.lambda1=1.0."
            )
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def settings_for(step: str, arch: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a graph's settings that count for a step of one architecture, as in ``Cell.settings``."""
    found = {}
    for key, value in sorted(settings.items(), key=lambda item: "/" in item[0]):  # those of one network last
        where, _, name = key.rpartition(".")
        changed, _, only = where.partition("/")
        if changed in upstream(step) and only in ("", arch):
            found[name if changed == step else f"{changed}.{name}"] = value
    return found


def tag(changes: Mapping[str, Any]) -> str:
    """The part of a folder's name that says what differs: ``",lambda1=1.0,steps=50"``; empty for nothing."""
    texts = []
    for name, value in changes.items():
        if isinstance(value, dict):  # such as the values of a sweep, by setting
            texts.append(tag(value))
            continue
        text = _text(value)
        if name == "checkpoint" and text != TIMM:  # two files of one name in different folders differ
            text = f"{Path(text).stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        texts.append(f",{name}={text}")
    whole = re.sub(r"[^\w.,=+-]+", "-", "".join(texts))
    if len(whole) <= LONGEST_TAG:
        return whole
    return f"{whole[:LONGEST_TAG]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "_".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)
