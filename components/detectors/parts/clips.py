"""Pieces of detectors of clips: what a frame is told from, squares that move, contrast, and rows spread evenly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.contract import Chosen, Table, scratch
from components.detectors.parts.blocks import box_mean

FAINT = 1e-8  # squared error below which nothing is told apart: 80 dB


class Base(nn.Module):
    """What the predicted frame is told from, so that the network learns of what comes, goes and moves.

    ``background``: what the fit frames show on average, (1, 3, s, s), for a fixed camera. ``last``: the last frame
    before; the memories then hold how normal things move, and what they look like goes past them. ``none``: nothing.
    """

    mean: Tensor
    sums: Tensor
    count: Tensor

    def __init__(self, size: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "background":
            self.register_buffer("mean", torch.zeros(1, 3, size, size))
            scratch(self, "sums", torch.zeros(1, 3, size, size, dtype=torch.float64))
            scratch(self, "count", torch.zeros(1, dtype=torch.float64))

    def add(self, clips: Tensor) -> None:
        """The last frames of clips (B, T, 3, s, s)."""
        self.sums += clips[:, -1].double().sum(0, keepdim=True)
        self.count += len(clips)

    def finish(self) -> None:
        self.mean.copy_(self.sums / self.count)

    def away(self, clips: Tensor) -> Tensor:
        """Clips (B, T, 3, s, s) in [0, 1] as the network sees them, about -1 to 1."""
        return 2 * (clips - self.mean) if self.kind == "background" else 2 * clips - 1

    def back(self, found: Tensor, seen: Tensor) -> Tensor:
        """The frame behind *seen* (B, T, 3, h, w), as the network sees frames, of what it says of it, -1 to 1."""
        if self.kind == "none":
            return found
        return 2 * found + (0 if self.kind == "background" else seen[:, -1])


def moving(clips: Tensor, side: int, count: int) -> Tensor:
    """*count* squares of *side* pixels of each clip (B, T, 3, h, w), drawn where the last step changed much.

    Most of a frame never changes and teaches nothing that the first steps have not. The squares lie a quarter apart.
    """
    step = max(1, side // 4)
    change = F.avg_pool2d((clips[:, -1] - clips[:, -2]).abs().mean(1, keepdim=True), side, step)[:, 0]
    drawn = torch.multinomial(change.flatten(1) + FAINT, count, replacement=True)
    rows, columns = (step * torch.div(drawn, change.shape[2], rounding_mode="floor"), step * (drawn % change.shape[2]))
    return torch.stack(
        [
            clip[..., row : row + side, column : column + side]
            for clip, own_rows, own_columns in zip(clips, rows.tolist(), columns.tolist(), strict=True)
            for row, column in zip(own_rows, own_columns, strict=True)
        ]
    )


class Contrast(nn.Module):
    """Errors in boxes of *side* pixels over the contrast of the same boxes, the mean squared slope of the frame there.

    What is predicted a pixel beside its place errs by the slope: the ratio is how far off it is, whatever its tone and
    however many things move. The median of the fit frames is added below, where a frame shows nothing.
    """

    floor: Tensor
    sums: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("floor", torch.ones(()))
        scratch(self, "sums", torch.zeros(2, dtype=torch.float64))  # of medians, and how many there are

    def add(self, clips: Tensor) -> None:
        """The last frames of clips (B, T, 3, s, s)."""
        medians = self.of(clips[:, -1]).flatten(1).median(1).values
        self.sums += torch.stack([medians.double().sum(), torch.tensor(len(clips), device=medians.device).double()])

    def finish(self) -> None:
        self.floor.copy_((self.sums[0] / self.sums[1]).clamp_min(FAINT))

    def of(self, frames: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B, 1, h, w)."""
        grey = F.pad(frames.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
        down = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
        return box_mean(across.square() + down.square(), self.side, self.side // 2)

    def forward(self, errors: Tensor, frames: Tensor) -> Tensor:
        return errors / (self.of(frames) + self.floor)


def spread(table: Table, most: int) -> Table:
    """*most* rows of *table*, spread evenly; all of them where there are no more, or with 0."""
    count = len(table)
    return table if not most or count <= most else Chosen(table, [i * count // most for i in range(most)])
