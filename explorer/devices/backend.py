"""Questions to the module that torch keeps for a kind of device; None where it has no answer.

The modules of different kinds have some functions in common and lack others, so a function is
looked up by its name and its absence is an answer.
"""

from collections.abc import Callable
from typing import Any

import torch


def is_accelerator(device: torch.device) -> bool:
    """Whether the device is anything but the CPU."""
    return device.type != "cpu"


def function(device: torch.device, name: str) -> Callable[..., Any] | None:
    """A function of the module for this kind of device; None if it has none of that name."""
    if not is_accelerator(device):
        return None
    found: Callable[..., Any] | None = getattr(torch.get_device_module(device.type), name, None)
    return found


def ask(device: torch.device, question: str) -> Any:
    """What the function of that name answers for this device; None if it cannot."""
    asked = function(device, question)
    try:
        return None if asked is None else asked(device)
    # Each vendor's module has errors of its own: a library that is missing, a card that is lost.
    except Exception:
        return None


def properties(device: torch.device) -> Any:
    """What torch knows of an accelerator, as attributes; None if it says nothing."""
    return ask(device, "get_device_properties")
