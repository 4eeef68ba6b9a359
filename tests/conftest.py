"""Settings of every test, made before torch is imported."""

import os

import pytest

# OpenMP threads that spin while they wait starve small CPU machines; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from tests.browser import chromium, opened  # noqa: F401  fixtures

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="paste real output into the README")


@pytest.fixture
def overwrite(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be rewritten."""
    return bool(request.config.getoption("--overwrite"))
