"""Shared by all tests: torchvision loads beside any build of torch; each test starts from the same seed.

And what several workers need to be quick: a fair number of threads for each, and the longest tests first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests import torchvision_stub  # noqa: F401
from tests.warm_kernels import nursery

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
LONGEST_FIRST = ("notebooks", "browser", "kernel", "packaging", "conformance", "unit")


def pytest_configure() -> None:
    # Threads of several processes that wait for the same cores take twice the time of one thread each.
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        threads = max(1, torch.get_num_threads() // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the kernels that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what is short come last, where it fills what the longer ones leave to one of the workers."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(HERE).parts[0], len(order)))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def warm_kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Jupyter starts kernels that have imported already what takes long."""
    with nursery(tmp_path_factory.mktemp("kernels")) as environment:
        yield environment
