"""One numpy tile in, one sharpened numpy tile out; the model is loaded once per process and checked by checksum."""

from __future__ import annotations

import copy
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from eosr.errors import WeightsError
from eosr.nn.weights import Weights, shared_weights

Floats = npt.NDArray[np.float32]

#: Largest change of a pixel that bfloat16 convolutions may cause before they are not used [DN].
BFLOAT16_LIMIT = 2.0

#: An answer may leave the range of its inputs by so many times that range. In 57 windows of 41 real scenes, around
#: their brightest clouds, roofs and glint, the shipped weights left it by 1.3 times at most; with all their tensors
#: times 1.5 by 20 times.
BEYOND = 8
#: The range of a smooth scene counts as this, at least [DN].
LEAST_RANGE = 2000.0

_loading = threading.Lock()
# One forward at a time in a process: torch itself uses all the threads it may, and two tiles need twice the memory.
# A process of `eosr.batch.scene` is told to run several with a share of the threads each: two with one thread take a
# fifth less time than one with two, and a gigabyte more at chunks of 1536 (benchmarks/README.md).
_on_card = threading.Lock()
# Tiles that lie on a card besides the one in its network: they come and go while it works.
_BESIDE = 3
_on_cpu = threading.Semaphore(int(os.environ.get("EOSR_NETWORKS", "1")))


@lru_cache(maxsize=8)
def _load(path: str, checksum: str, device: str) -> Weights:
    if not Path(path).is_file():
        raise WeightsError(f"the weights {path} are not visible from this worker. Put them on a shared filesystem.")
    weights = shared_weights(path)
    if weights.checksum != checksum:
        raise WeightsError(
            f"the weights {path} have changed since the graph was built (checksum {weights.checksum[:12]} instead of "
            f"{checksum[:12]}). Build the result again."
        )
    # TensorFloat-32 has 10 bits of fraction; "float32" shall mean it, whichever worker makes the pixel.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device != "cpu":
        weights = replace(weights, generator=copy.deepcopy(weights.generator).to(device))
    # channels_last: the layout in which the CPU convolves without copying every tensor into its own and back, and in
    # which cards are fast in bfloat16. In float32 a card takes a fifth less time and memory without.
    if torch.device(device).type == "cpu" or uses_bfloat16(weights, device):
        weights.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
    return weights


def has_card() -> bool:
    """Whether CUDA finds a card, without taking memory of it, as a context of this process would."""
    return torch.cuda.is_available()


def cards() -> int:
    """Number of cards that this process sees."""
    return torch.cuda.device_count()


def resolve_device(device: str) -> str:
    """Turn ``"auto"`` into the device of this process: CUDA where it has one, else the CPU.

    Raises
    ------
    WeightsError
        If a device is asked for that torch does not find here.
    """
    if device == "auto":
        return "cuda" if has_card() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # torch asserts that it was built with CUDA
        raise WeightsError(f"device {device!r} is not available here. Use device='auto' or device='cpu'.") from None
    return device


def uses_bfloat16(weights: Weights, device: str) -> bool:
    """Whether convolutions may run in bfloat16: on CUDA, where it moved no pixel by more than `BFLOAT16_LIMIT`."""
    return device.startswith("cuda") and weights.provenance.bfloat16_error <= BFLOAT16_LIMIT


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormals to zero: in activations they slow a forward by an order of magnitude.

    The setting belongs to a thread, so every worker thread needs it, and numpy's arithmetic in it must not keep it.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def sharpen(
    path: str,
    checksum: str,
    fine: Floats,
    middle: Floats | None,
    coarse: Floats,
    sigma: Any,
    *,
    device: str = "auto",
    trim: int = 0,
) -> Floats:
    """Run a generator on one tile.

    Parameters
    ----------
    path, checksum : str
        Weights file and its SHA-256.
    fine, middle, coarse : ndarray, shapes (4, H, W), (6, H / 2, W / 2) or None, (C, H / factor, W / factor)
        Digital numbers with the offset applied, no gaps.
    sigma : sequence of C floats
        Blur between the answer and ``coarse`` [fine pixels].
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` ...
    trim : int
        Fine pixels on each side of the answer that the caller cuts off; a generator may leave them unfinished.

    Returns
    -------
    ndarray, shape (C, H, W), float32
        Digital numbers with the offset applied. Valid from `Weights.generator.reach` pixels inwards.

    Raises
    ------
    WeightsError
        If the answer is no number, or leaves the range of the tile and its guides by more than `BEYOND` times that.
    """
    device = resolve_device(device)
    with _loading:
        weights = _load(path, checksum, device)
    with torch.inference_mode():
        if torch.device(device).type == "cpu":
            with _on_cpu, _denormals_flushed():
                answer = _run(weights, fine, middle, coarse, sigma, device, trim).numpy()
        else:
            answer = _run_on_card(weights, fine, middle, coarse, sigma, device, trim)
    inner = answer[:, trim : answer.shape[1] - trim, trim : answer.shape[2] - trim]
    _check_answer(weights, path, inner, [one for one in (fine, middle, coarse) if one is not None])
    return answer


def _check_answer(weights: Weights, path: str, answer: Floats, given: Sequence[Floats]) -> None:
    """Refuse an answer that is no number, or far outside of everything given."""
    if not answer.size:
        return
    low, high = min(float(one.min()) for one in given), max(float(one.max()) for one in given)
    beyond = BEYOND * max(high - low, LEAST_RANGE)
    least, most = float(answer.min()), float(answer.max())
    if low - beyond <= least <= most <= high + beyond:
        return
    said = f"values from {least:.6g} to {most:.6g} DN" if np.isfinite(most - least) else "values that are no numbers"
    raise WeightsError(
        f"{weights.name} ({path}) answers with {said} where all its inputs lie between {low:.6g} and {high:.6g} DN. "
        "The file is damaged, or was trained on other numbers than digital ones. Use other weights, e.g. "
        "weights='s2sr-20m'."
    )


def _run(
    weights: Weights, fine: Any, middle: Any, coarse: Any, sigma: Any, device: str, trim: int
) -> torch.Tensor:  # fmt: skip
    """Digital numbers in and out; all on one device, where tensors are there already."""
    scale = weights.normalization.scale

    def normal(bands: Any) -> torch.Tensor:
        return _tensor(bands, device)[None] / scale

    sigmas = torch.tensor(np.asarray(sigma, np.float32), device=device)[None]
    inputs = None if middle is None else normal(middle)
    estimate = weights.generator(normal(fine), normal(coarse), sigmas, inputs, trim=trim)
    answer: torch.Tensor = estimate[0].float().mul_(scale)
    return answer


def _tensor(bands: Any, device: str) -> torch.Tensor:
    return bands if torch.is_tensor(bands) else torch.from_numpy(np.asarray(bands, np.float32)).to(device)


@lru_cache(maxsize=8)
def _ways(device: str) -> queue.SimpleQueue[torch.cuda.Stream]:
    """Streams of copies, each with one tile at a time."""
    ways: queue.SimpleQueue[torch.cuda.Stream] = queue.SimpleQueue()
    for _ in range(_BESIDE):
        ways.put(torch.cuda.Stream(device))
    return ways


def _run_on_card(
    weights: Weights, fine: Floats, middle: Floats | None, coarse: Floats, sigma: Any, device: str, trim: int
) -> Floats:  # fmt: skip
    """The same on a card: one tile is in the network while others are on their way there or back.

    Whoever uses a tensor of another stream waits for that stream first, so that none is freed too early.
    """
    reduced = torch.autocast("cuda", torch.bfloat16, enabled=uses_bfloat16(weights, device))
    with _loading:
        ways = _ways(device)
    way = ways.get()
    try:
        with torch.cuda.stream(way):
            near, between, far = (None if one is None else _tensor(one, device) for one in (fine, middle, coarse))
            way.synchronize()
        with _on_card, reduced:
            answer = _run(weights, near, between, far, sigma, device, trim)
            torch.cuda.current_stream(device).synchronize()
        with torch.cuda.stream(way):
            return answer.cpu().numpy()
    except torch.OutOfMemoryError:
        rows, columns = fine.shape[1:]
        raise WeightsError(
            f"{device} has too little memory for a tile of {rows} x {columns} pixels. Open the scene in smaller "
            "chunks, e.g. chunks=768 (--chunks 768), or give device='cpu'."
        ) from None
    finally:
        ways.put(way)
