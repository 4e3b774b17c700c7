"""Shared by all tests: torchvision loads beside any build of torch; each test starts from the same seed."""

from __future__ import annotations

import pytest
import torch

from tests import torchvision_stub  # noqa: F401


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
