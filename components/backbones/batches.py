"""How many pictures a network sees at once where nothing is learned: what it holds of them is the peak of a fit.

On a CPU larger batches take longer as well (``loupe bench speed scaling``).
"""

import torch

MOST = 16  # pictures
IN_GRAPH = 4 * 256**2  # pixels of all pictures of a batch, in ONNX Runtime
IN_TORCH = 256**2
ON_GPU = 16 * 256**2


def at_once(size: int, pixels: int = IN_TORCH) -> int:
    """Pictures of *size* x *size* pixels in a batch of *pixels* on the CPU; on a GPU there may be more."""
    most = ON_GPU if torch.cuda.is_available() else pixels
    return max(1, min(MOST, most // size**2))
