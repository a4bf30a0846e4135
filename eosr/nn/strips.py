"""A stage of the back-projection generator without gradients on the CPU, strip of rows by strip of rows.

All layers of a stage work on one strip before the next is begun. Every 3 x 3 convolution keeps the last two rows that
it was given, and the next strip goes on below them: nothing is computed twice, what is widest stays in the cache, and
of all features only those that the next stage needs are ever whole. The answer is the same as that of whole layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Trunk pixels in a strip: what the layers of a stage hold of it fits the cache that the cores share.
STRIP: Final = 16384


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a stage looks at, on three grids, and the estimate that it corrects in place."""

    #: What no stage changes: the guides and the blur, (B, C, h, w) on the grid of the trunk, channels last.
    fixed: Tensor
    #: (B, C, H, W) at 10 m.
    estimate: Tensor
    #: What the measurement says beyond the estimate, (B, C, h, w).
    seen: Tensor
    #: Trunk pixels on each side that the stage does not look at.
    skip: int

    @property
    def _fold(self) -> int:
        return self.estimate.shape[2] // self.fixed.shape[2]

    def fill(self, space: Tensor, top: int, bottom: int) -> None:
        """Put these rows into (B, bottom - top, w, channels)."""
        fold = self._fold
        rows = slice(top + self.skip, bottom + self.skip)
        columns = slice(self.skip, self.skip + space.shape[2])
        fine = slice(rows.start * fold, rows.stop * fold), slice(columns.start * fold, columns.stop * fold)
        estimate = functional.pixel_unshuffle(self.estimate[:, :, fine[0], fine[1]], fold)
        done = 0
        for part in (self.fixed[:, :, rows, columns], estimate, self.seen[:, :, rows, columns]):
            count = part.shape[1]
            space[..., done : done + count].copy_(part.permute(0, 2, 3, 1))
            done += count

    def add(self, correction: Tensor, top: int, left: int) -> None:
        """Add (B, rows, columns, channels), whose first pixel is there, to the estimate."""
        fold = self._fold
        change = functional.pixel_shuffle(correction.permute(0, 3, 1, 2), fold)
        y, x = (top + self.skip) * fold, (left + self.skip) * fold
        self.estimate[:, :, y : y + change.shape[2], x : x + change.shape[3]] += change


class _Window:
    """Rows (B, n, w, channels) on their way into a 3 x 3 convolution: new ones, below the last two of the old."""

    def __init__(self, like: Tensor, rows: int, width: int, channels: int, *, pad: bool) -> None:
        self._rows = like.new_empty((like.shape[0], rows + 3, width, channels))
        self._pad = pad
        self._count = 0
        if pad:
            self._add_zeros()

    def _add_zeros(self) -> None:
        self._rows[:, self._count] = 0
        self._count += 1

    def space(self, rows: int) -> Tensor:
        """Where so many new rows belong."""
        return self._rows[:, self._count : self._count + rows]

    def take(self, rows: int, *, last: bool) -> Tensor:
        """All rows that are there, once so many have been put into the space for them."""
        self._count += rows
        if last and self._pad:
            self._add_zeros()
        return self._rows[:, : self._count]

    def keep(self) -> None:
        """Keep the last two rows and forget the others, which are above all that is still to come."""
        if self._count > 2:
            self._rows[:, :2] = self._rows[:, self._count - 2 : self._count].clone()
            self._count = 2


def correct_by_strips(stage: Any, inputs: Inputs, features: Tensor, *, first: bool, last: bool, rim: int) -> None:
    """Run the layers of a stage over its inputs and correct the estimate.

    Parameters
    ----------
    stage : Stage
        Of a `BackProjectionGenerator`: layers ``enter``, ``blocks``, each with ``expand`` and ``reduce``, ``leave``.
    inputs : Inputs
        Their estimate is changed in place; the rows of it that are still to be looked at come after those.
    features : Tensor, shape (B, h, w, F)
        In: the features of the stage before, unless it is the ``first``. Out: those of this one, unless it is the
        ``last``, without the rim of ``rim * blocks`` pixels that the blocks leave out.
    rim : int
        1: every block leaves out the outermost pixel of what it is given. 0: zeros around it, as in training.
    """
    enter, blocks, leave = stage.enter, stage.blocks, stage.leave
    height, width = features.shape[1:3]
    margin = rim * len(blocks)
    rows = max(4, STRIP // width)
    entering = _Window(features, rows, width, enter.in_channels, pad=True)
    windows = [
        _Window(features, rows + 1 + i, width - 2 * rim * i, enter.out_channels, pad=not rim)
        for i in range(len(blocks))
    ]
    entered, left = 0, margin
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        end = bottom == height
        inputs.fill(entering.space(bottom - top), top, bottom)
        given = entering.take(bottom - top, last=end)
        count = max(0, given.shape[1] - 2)
        if count:
            before = None if first else features[:, entered : entered + count]
            _enter(enter, given, before, windows[0].space(count))
        entered += count
        entering.keep()
        for index, block in enumerate(blocks):
            given = windows[index].take(count, last=end)
            count = max(0, given.shape[1] - 2)
            if count:
                across = given.shape[2] - 2 * rim
                shape = (given.shape[0], count, across, enter.out_channels)
                into = windows[index + 1].space(count) if index + 1 < len(blocks) else features.new_empty(shape)
                torch.add(_change(block, given, pad=1 - rim), given[:, 1:-1, rim : rim + across], out=into)
            windows[index].keep()
        if not count:
            continue
        if not last:
            # Of the rows that this writes over, the first layer has had all.
            features[:, left : left + count, margin : width - margin] = into
        inputs.add(functional.linear(into, leave.weight[:, :, 0, 0], leave.bias), left, margin)
        left += count


def _enter(enter: nn.Conv2d, given: Tensor, before: Tensor | None, into: Tensor) -> None:
    # bfloat16 has 8 bits: digital numbers of 4000 would come in steps of 16. What enters stays float32.
    with torch.autocast("cpu", enabled=False):
        new = functional.conv2d(given.permute(0, 3, 1, 2), enter.weight, enter.bias, padding=(0, 1))
    if before is None:
        into.copy_(new.permute(0, 2, 3, 1))
    else:
        torch.add(new.permute(0, 2, 3, 1), before, out=into)


def _change(block: Any, given: Tensor, *, pad: int) -> Tensor:
    """The change that a block makes to the inner rows of what it is given."""
    expand, reduce = block.expand, block.reduce
    wide = functional.conv2d(given.permute(0, 3, 1, 2), expand.weight, expand.bias, padding=(0, pad)).relu_()
    # A 1 x 1 convolution is a product of matrices; torch has no fast convolution for it on the CPU.
    return functional.linear(wide.permute(0, 2, 3, 1), reduce.weight[:, :, 0, 0], reduce.bias)
