"""Checks of what a caller gives."""

import os
import subprocess
import sys

import pytest
import torch

from wfnb.checks import check_choice, check_type
from wfnb.device import as_device


def test_choice():
    check_choice("fruit", "apple", ["apple", "pear"])
    with pytest.raises(
        ValueError, match=r"^unknown fruit 'aple': allowed are 'apple', 'pear'\. Did you mean 'apple'\?$"
    ):
        check_choice("fruit", "aple", ["apple", "pear"])
    with pytest.raises(ValueError, match=r"^unknown fruit 3: allowed are 'apple', 'pear'\.$"):
        check_choice("fruit", 3, iter(["apple", "pear"]))


@pytest.mark.parametrize(
    ("value", "example"), [(1, 2), ("a", ""), (1.5, 0.0), (True, False), ({}, {"a": 1}), (None, None)]
)
def test_type(value, example):
    assert check_type("it", value, example) is value


def test_whole_numbers_pass_for_floats():
    assert type(check_type("it", 3, 0.5)) is float


@pytest.mark.parametrize(
    ("value", "example"), [(True, 1), (1, True), ("1", 1), (1.0, 1), (True, 1.0), (None, 1), ([], {})]
)
def test_wrong_type(value, example):
    with pytest.raises(
        TypeError, match=f"it must be of type {type(example).__name__}.*not {type(value).__name__}"
    ):
        check_type("it", value, example)


def test_devices():
    assert as_device("cpu") == torch.device("cpu")
    assert as_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", "", "meta:x"):
        with pytest.raises(ValueError, match=f"device '{name}'.*'auto', 'cpu'"):
            as_device(name)


def test_a_processor_is_named_with_the_vector_instructions_in_use():
    """In a process that torch is told to use none of, this machine's name ends otherwise."""
    command = [
        sys.executable,
        "-c",
        "import torch; from wfnb.device import device_name; print(device_name(torch.device('cpu')))",
    ]
    plain, here = (
        subprocess.run(
            command, env=os.environ | wish, capture_output=True, text=True, check=True
        ).stdout.strip()
        for wish in ({"ATEN_CPU_CAPABILITY": "default"}, {})
    )
    assert plain.endswith(", DEFAULT")
    assert here.rpartition(", ")[0] == plain.rpartition(", ")[0] != ""
