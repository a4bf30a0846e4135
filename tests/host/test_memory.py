"""What a process keeps of the memory that it has freed: in processes of their own, as it is for a whole process."""

import os
import subprocess
import sys

import pytest

from eosr.batch import BatchConfig
from eosr.batch.scene import SceneTask, _limits

PROGRAM = """
import threading
import numpy as np
from eosr.host.memory import give_back, keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

def work():
    # A small piece that stays between large ones: the heap cannot shrink from its end.
    large = np.ones(25_000_000)
    kept.append(np.ones(10_000))
    del large

kept, keeps = [], {keep}
if keeps:
    assert keep_freed_memory()
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
freed = resident() - before
give_back({spare})
print(freed, resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
@pytest.mark.parametrize(
    ("keep", "spare", "is_kept"),
    [(True, "0", False), (True, "100_000_000", False), (True, "", True), (False, "", False)],
)
def test_what_is_freed_is_kept_until_it_is_given_back(keep, spare, is_kept):
    program = PROGRAM.replace("{keep}", str(keep)).replace("{spare}", spare)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    freed, after = map(float, done.stdout.split())
    assert (freed > 190) == keep, "200 MB were freed"
    assert (after > 190) == is_kept, "200 MB may be spared, and more than 100 MB may not"
    assert is_kept or after < 20


@pytest.mark.parametrize(("threads", "each"), [(1, 1), (2, 1), (4, 1), (8, 2)])
def test_a_scene_has_its_threads_whatever_a_nanny_of_dask_has_set(threads, each):
    task = SceneTask(name="s", items=(), bands=("B05",), folder="out", config=BatchConfig(), threads=threads)
    nanny = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env=os.environ | nanny | _limits(task), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == each
