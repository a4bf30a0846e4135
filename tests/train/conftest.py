"""Training flushes denormals in the thread it runs in; the tests after it must not inherit that."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _denormals_as_before():
    yield
    torch.set_flush_denormal(False)
