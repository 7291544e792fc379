"""One seed for all, no window for pictures, and the option that names the benchmark sets."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

NEEDS_DATA = "test_data_benchmarks.py"

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data-root",
        type=Path,
        help="folder with the benchmark sets in torch_geometric's layout; without it "
        f"{NEEDS_DATA} is not collected",
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")
    # States are small here, and the processes share the cores: threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    root = config.getoption("--data-root")
    if root is not None and not root.is_dir():
        raise pytest.UsageError(
            f"--data-root {root} is no folder; it holds Planetoid/, WebKB/, ... as "
            "torch_geometric lays them out"
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    needs_data = collection_path.name == NEEDS_DATA
    return True if needs_data and config.getoption("--data-root") is None else None


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest) -> Path:
    """The folder given by --data-root, which tests only read."""
    root: Path | None = request.config.getoption("--data-root")
    if root is None:
        raise pytest.UsageError("name the benchmark sets: python -m pytest --data-root=FOLDER")
    return root.resolve()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20260101)
