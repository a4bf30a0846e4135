"""The order of the tests, and the scene that several test files need."""

import pytest
from support.range_server import serve
from support.scenes import WrittenScene, write_scene

#: Files whose tests take minutes: they begin first, so that no worker has them alone at the end.
LONG_FILES = (
    "test_many_ranks.py", "test_train_on_slurm.py", "test_batch.py", "test_batch_on_slurm.py", "test_loop.py",
    "test_supreme.py", "test_evaluate_blocks.py", "test_communicator.py", "test_cli_batch.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> WrittenScene:
    """One scene of 360 x 360 pixels of 10 m, L2A."""
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def range_server(written):
    """An HTTP server of the folder of ``written``."""
    with serve(written.folder) as server:
        yield server
