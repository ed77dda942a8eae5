"""Memory that is used again: only when nobody has it any more."""

import numpy as np
import pytest
import torch

from alexnet.preprocessing import cutting, views
from alexnet.preprocessing.memory import ALIGNMENT, Reused


def test_memory_comes_back_when_the_last_view_of_it_is_gone():
    memory = Reused()
    tensor = memory.empty((4, 3), torch.float32)
    address = tensor.data_ptr()
    view = tensor.t()[1:]
    del tensor
    other = memory.empty((4, 3), torch.float32)
    assert other.data_ptr() != address
    del view
    assert memory.empty((2, 6), torch.float32).data_ptr() == address  # as many bytes in another shape


def test_a_tensor_that_is_kept_keeps_its_values():
    memory = Reused()
    kept = [memory.empty((5,), torch.int64).fill_(i) for i in range(8)]
    del kept[::2]
    for _ in range(4):
        memory.empty((5,), torch.int64).fill_(-1)
    assert [tensor.tolist() for tensor in kept] == [[i] * 5 for i in (1, 3, 5, 7)]


@pytest.mark.parametrize("shape", [(0, 3), (1,), (7, 5, 3)])
def test_tensors_are_contiguous_and_aligned(shape):
    tensor = Reused().empty(shape, torch.float32)
    assert (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) == (shape, torch.float32, True)
    assert tensor.data_ptr() % ALIGNMENT == 0


def test_a_batch_is_not_written_over_by_those_that_follow():
    images = np.random.default_rng(0).integers(0, 256, (6, 256, 256, 3), np.uint8)
    mean, axes, memory = images.mean(0, dtype=np.float64).astype(np.float32), np.eye(3), Reused()

    def batch(epoch, memory):
        return cutting.augment(images, np.arange(4), mean, axes, views.PAPER, 0, epoch, np.arange(4), memory=memory)

    reused = [batch(epoch, memory) for epoch in range(4)]
    assert all(torch.equal(own, batch(epoch, None)) for epoch, own in enumerate(reused))
