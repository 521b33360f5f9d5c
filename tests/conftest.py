import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny networks gain nothing from a second thread, and a busy machine loses by it."""
    torch.set_num_threads(1)
