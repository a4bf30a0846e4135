"""DSen2's published weights, read where they lie: Keras HDF5 files and TorchScript archives.

They are under the GPL and do not come with eosr. Nothing in a file is run: no pickle, no marshalled Lambda of Keras, no
method of a TorchScript module. The convolutions are taken in the order of the network and must have DSen2's shapes.
"""

from __future__ import annotations

import json
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from eosr.errors import MissingExtraError, WeightsError
from eosr.nn.dsen2 import Dsen2Config, Dsen2Generator

#: What the files that hold no scaling were trained with.
SCALING: Final = 0.1
#: (channels in, channels out) -> what they are.
_SHAPES: Final = {
    (10, 6): {"factor": 2, "targets": 6, "middle_guides": 0},
    (12, 2): {"factor": 6, "targets": 2, "middle_guides": 6},
}
#: SHA-256 of the published 60 m files -> the level they were trained on. On the other level they lose to interpolation;
#: the 20 m files are one network for both.
LEVELS_OF: Final = {
    "b13ad25e370bf86589281015206e3bc2e4c771b6ebe6eb531316e74d51a54f71": ("L1C",),
    "90ca191a8acc3c624522c70b25f3f2010c85348005e499494327ecc080f0eca9": ("L2A",),
    "21cd7ad53d07379412ef134909b59f489b1ac0a2932e3cebb54fb864dd52f37c": ("L1C",),
    "bea06224f2865897a8ac6fbae7763852342459043c572c018c876a65a7fe3c58": ("L2A",),
}
#: Largest code and largest archive of TorchScript, and most numbers of a kernel, that can be DSen2's.
_CODE: Final = 10_000_000
_ALL: Final = 1_000_000_000
_KERNEL: Final = 10_000_000
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"

#: Operations of TorchScript that are looked at.
_READ: Final = ("aten::conv2d", "aten::_convolution", "aten::_convolution_mode", "aten::mul", "aten::add")

#: Kernel (out, in, 3, 3) and bias (out,) of one convolution.
Layer = tuple[Tensor, Tensor]


def is_dsen2_file(path: Path) -> bool:
    """Whether a file can hold DSen2: by its content an HDF5 file, or an archive with TorchScript code."""
    try:
        start = _start(path)
    except OSError:
        return False
    return start == _HDF5 or (start.startswith(_ZIP) and bool(_code(path)))


def read_dsen2(path: Path) -> Dsen2Generator:
    """DSen2 or VDSen2 from a published file; the shapes in it tell whether it is the 20 m or the 60 m network.

    Parameters
    ----------
    path : Path
        Keras HDF5 (a whole model or its weights alone) or a TorchScript archive.

    Returns
    -------
    Dsen2Generator
        On the CPU, ready to run.

    Raises
    ------
    WeightsError
        If the file is damaged, or holds another network.
    MissingExtraError
        If it is HDF5 and h5py is not installed.
    """
    try:
        layers, scaling = _from_keras(path) if _start(path) == _HDF5 else _from_torchscript(path)
        return _generator(layers, scaling).eval().requires_grad_(False)
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        if isinstance(error, MissingExtraError):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is not DSen2 as published, or is damaged: {reason}. Download it again, or give other weights."
        ) from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HDF5))


def _generator(layers: list[Layer], scaling: float) -> Dsen2Generator:
    """Put convolutions into the network that has their shapes."""
    blocks = len(layers) // 2 - 1
    if len(layers) % 2 or blocks < 1:
        raise ValueError(f"it has {len(layers)} convolutions, not two and two per block")
    if not all(isinstance(tensor, Tensor) for layer in layers for tensor in layer):
        raise ValueError("it has convolutions without a kernel and a bias of their own")
    features, inputs = layers[0][0].shape[:2]
    ends = (inputs, layers[-1][0].shape[0])
    if ends not in _SHAPES:
        known = " or ".join(f"{i} to {o}" for i, o in _SHAPES)
        raise ValueError(f"it leads from {ends[0]} to {ends[1]} bands, not from {known}")
    with torch.device("meta"):  # 38 million random numbers of VDSen2 would be drawn in vain
        generator = Dsen2Generator(Dsen2Config(**_SHAPES[ends], features=features, blocks=blocks, scaling=scaling))
    state = generator.state_dict()
    for (name, expected), tensor in zip(state.items(), (t for layer in layers for t in layer), strict=True):
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            held = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"{name} is {held}, not {tuple(expected.shape)} of {expected.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are no numbers")
        state[name] = tensor.detach().contiguous()
    generator.load_state_dict(state, assign=True)
    return generator


def _from_keras(path: Path) -> tuple[list[Layer], float]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is a Keras file, which needs h5py ({error}). Run: pip install 'eosr[dsen2]'"
        ) from error
    with h5py.File(path, "r") as file:
        # A whole model keeps its weights in a group, beside those of the optimiser.
        group = file.get("model_weights", file)
        layers = [_convolution(group[name], name) for name in _layer_names(group) if len(group[name])]
        record = file.attrs.get("model_config")
    return layers, SCALING if record is None else _keras_scaling(json.loads(record), len(layers) // 2 - 1)


def _layer_names(group: Any) -> list[str]:
    """Layers in the order of the network; their own order in the file is that of the alphabet."""
    # Keras cuts lists of more than 64 kB into layer_names0, layer_names1 ...
    keys = ["layer_names"] if "layer_names" in group.attrs else []
    keys = keys or sorted((key for key in group.attrs if key.startswith("layer_names")), key=lambda key: int(key[11:]))
    if not keys:
        raise ValueError("it is an HDF5 file without the list of layers that Keras writes")
    return [name.decode() if isinstance(name, bytes) else str(name) for key in keys for name in group.attrs[key]]


def _convolution(group: Any, name: str) -> Layer:
    arrays: list[Any] = []
    group.visititems(lambda _, held: arrays.append(held) if hasattr(held, "shape") else None)
    arrays.sort(key=lambda array: -array.ndim)
    if [array.ndim for array in arrays] != [4, 1]:
        raise ValueError(f"layer {name} is no convolution with a bias")
    if max(array.size for array in arrays) > _KERNEL:
        raise ValueError(f"layer {name} has {max(array.size for array in arrays)} numbers, which DSen2 does not have")
    kernel, bias = (torch.from_numpy(np.asarray(array)) for array in arrays)
    # Keras keeps (rows, columns, in, out), whatever order the channels of the images have.
    return kernel.permute(3, 2, 0, 1), bias


def _keras_scaling(record: Any, blocks: int) -> float:
    """Read the scaling of residuals: the constant of the Lambda layers, whose code is left alone."""
    layers = record["config"]["layers"]
    kinds = Counter(layer["class_name"] for layer in layers)
    if (kinds["Lambda"], kinds["Add"]) != (blocks, blocks + 1):
        raise ValueError(f"its layers {dict(kinds)} are not those of {blocks} residual blocks")
    scales: set[Any] = set()
    for layer in layers:
        if layer["class_name"] == "Lambda":
            _, *constants = layer["config"]["function"]
            scales.update(value for held in constants for value in held or ())
            scales.update(layer["config"].get("arguments", {}).values())
    return _only(scales)


def _only(scales: set[Any]) -> float:
    if len(scales) != 1 or not all(isinstance(scale, float) for scale in scales):
        raise ValueError(f"it scales its residuals by {sorted(map(str, scales)) or 'nothing'}, not by one number")
    return scales.pop()


def _code(path: Path) -> list[str]:
    """Names of the TorchScript sources in an archive; none in a damaged one, nor in a pickle of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _from_torchscript(path: Path) -> tuple[list[Layer], float]:
    code = _code(path)
    with zipfile.ZipFile(path) as archive:
        sizes = {one.filename: one.file_size for one in archive.infolist()}
        if sum(sizes[name] for name in code) > _CODE or sum(sizes.values()) > _ALL:
            raise ValueError(f"it unpacks to {sum(sizes.values()) / 1e6:.0f} MB, which DSen2 does not have")
        spoilt = archive.testzip()  # torch does not look at the checksums of tensors
        if spoilt:
            raise ValueError(f"{spoilt} in it has another checksum")
        # The one thing that torch runs on loading.
        if any(b"__setstate__" in archive.read(name) for name in code):
            raise ValueError("its code would run on loading")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript as a whole
        module = torch.jit.load(str(path), map_location="cpu")
    layers: list[Layer] = []
    scales: set[Any] = set()
    additions = 0
    for node in _nodes(module.inlined_graph):
        kind = node.kind().removesuffix("_")
        if kind not in _READ or not isinstance(node.output().type(), torch.TensorType):
            continue
        held = [_value(module, value) for value in node.inputs()]
        if kind == "aten::mul":
            # Rounded: 0.1 may have become the float32 next to it.
            scales.update(round(float(value), 6) for value in held if value is not None)
        elif kind == "aten::add":
            additions += 1
        else:
            layers.append((held[1], held[2]))
    if additions != len(layers) // 2:
        raise ValueError(f"it adds {additions} times for {len(layers)} convolutions, so it is another network")
    return layers, _only(scales)


def _nodes(block: Any) -> Iterator[Any]:
    """Every operation in the order of the code."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _value(module: Any, value: Any) -> Any:
    """Constant or parameter behind an argument of an operation; None where it is computed."""
    node, names = value.node(), []
    if node.kind() == "prim::Constant":
        return value.toIValue()
    while node.kind() == "prim::GetAttr":
        names.append(node.s("name"))
        node = node.input().node()
    return reduce(getattr, reversed(names), module) if names and node.kind() == "prim::Param" else None
