"""``torch.compile``, and where it cannot work.

Runs on: ranks.
Takes:   what a replica runs.
Gives:   ``compiled_module``.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from pipelines.errors import ResourceError


def compiled_module(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, compiled when it is first run.

    Raises:
        ResourceError: torch cannot link what it compiles for the CPU: it does not quote its own path.
    """
    if device.type == "cpu" and " " in torch.__file__:
        raise ResourceError("layout.compile", f"torch cannot compile from a path with a space in it ({torch.__file__})",
                             "install the environment in a path without spaces, or set layout.compile: false")
    return cast(nn.Module, torch.compile(module))
