"""A graph in which dask reads a block when it is needed, not all blocks of a scene before the first one is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dask._task_spec import DataNode, convert_legacy_graph
from dask.local import get_sync
from dask.optimization import cull

#: Tasks of stackstac that make the reader of a file; every block that is read of it depends on the same one.
_READERS: Final = "asset_table_to_reader_and_window"


def with_own_readers(graph: Mapping[Any, Any]) -> dict[Any, Any]:
    """Hand every block its reader as data, instead of one task that all blocks of a file wait for.

    Parameters
    ----------
    graph : mapping of key to task
        Optimised: what follows is not optimised again.

    Returns
    -------
    dict
        With the same keys and answers. dask orders tasks by what they share: where all blocks share a root, it reads
        them all first, and a scene lies in memory as a whole (benchmarks/README.md). The reader stays one object in a
        process, and opens its file with the first block.
    """
    tasks = dict(convert_legacy_graph(graph))
    readers = [key for key in tasks if _name(key) == _READERS]
    made = dict(zip(readers, get_sync(cull(tasks, readers)[0], readers), strict=True))
    for key, task in list(tasks.items()):
        shared = made.keys() & set(task.dependencies)
        if shared:
            own = {reader: (f"{_READERS}-own", key, reader) for reader in shared}
            tasks |= {new: DataNode(new, made[reader]) for reader, new in own.items()}
            tasks[key] = task.substitute(own)
    return {key: task for key, task in tasks.items() if key not in made}


def _name(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key).rsplit("-", 1)[0]
