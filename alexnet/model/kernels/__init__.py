"""The only hand-written fast code: response normalisation in C and Triton, and dropout's draws on a CUDA device.

build.py          compiles `normalise.c` on first use, and says whether the kernels are on: they are off until `use(True)`
normalisation.py  which tensors the kernels can take, and the kernels as differentiable functions
cuda.py           those in Triton
"""

from alexnet.model.kernels.build import is_on, library, use, why_not
from alexnet.model.kernels.normalisation import applies, draws_at_least, draws_on, normalise_across, normalise_within

__all__ = [
    "applies", "draws_at_least", "draws_on", "is_on", "library", "normalise_across", "normalise_within", "use", "why_not",
]  # fmt: skip
