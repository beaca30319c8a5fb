"""Resizes all pictures of a batch at once, where they lie in a row in a GPU's memory.

Picture by picture, `prepare` launches a dozen kernels for each, and as often hands over the
interpreter's lock, for which all decoding threads wait.
"""

from collections.abc import Sequence

import torch

from coyo_labeler.label.preprocess import AUTOML_CENTRE, Preset, central_square

#: Numbers of inputs that are computed at once: indices take eight bytes for each.
_AT_ONCE = 2**23


def prepare_in_a_row(
    pixels: torch.Tensor, offsets: Sequence[int], shapes: Sequence[tuple[int, int]], preset: Preset
) -> torch.Tensor:
    """The inputs of n pictures, on the device of their pixels: the values of `prepare`.

    pixels: uint8, holds each picture as (height, width, 3) from its offset on. shapes: (height,
    width) of each. preset: an `automl` one. Returns (n, 3, size, size) float32, channels last.

    The formula is that of `torch.nn.functional.interpolate`, bilinear at half-pixel centres.
    """
    size, device = preset.size, pixels.device
    squares = [central_square(*shape, preset.crop) for shape in shapes]
    starts = [
        offset + (top * width + left) * 3
        for offset, (_, width), (top, left, _, _) in zip(offsets, shapes, squares, strict=True)
    ]
    numbers = [starts, [shape[1] * 3 for shape in shapes], *list(zip(*squares, strict=True))[2:]]
    on_host = torch.tensor(numbers, dtype=torch.int64)
    if device.type == "cuda":
        on_host = on_host.pin_memory()
    start, stride, height, width = on_host.to(device, non_blocking=True)
    upper, lower, down = _between(height, size)
    left, right, across = _between(width, size)
    upper, lower = (start[:, None] + rows * stride[:, None] for rows in (upper, lower))
    channels = torch.arange(3, device=device)
    left, right = (columns[:, :, None] * 3 + channels for columns in (left, right))
    inputs = torch.empty(len(shapes), size, size, 3, device=device)
    step = max(1, _AT_ONCE // (size * size * 3))
    for first in range(0, len(shapes), step):
        part = slice(first, first + step)

        def row(rows: torch.Tensor, part: slice = part) -> torch.Tensor:
            near, far = (
                pixels[rows[part, :, None, None] + columns[part, None]].float()
                for columns in (left, right)
            )
            return near.lerp_(far, across[part, None, :, None])

        torch.lerp(row(upper), row(lower), down[part, :, None, None], out=inputs[part])
    return inputs.sub_(AUTOML_CENTRE).div_(AUTOML_CENTRE).permute(0, 3, 1, 2)


def _between(pixels: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n, size) each: the pixel before an output, the pixel after, and the latter's weight."""
    centres = torch.arange(size, dtype=torch.float32, device=pixels.device) + 0.5
    centres = (pixels.float() / size)[:, None] * centres - 0.5
    centres = centres.clamp_(min=0)
    before = centres.long()
    return before, torch.minimum(before + 1, pixels[:, None] - 1), centres - before
