"""The processes that train one net together, seen from the loop: one alone, or the ranks of `ranks.py`.

The loop asks its crew for everything that depends on how many there are: which columns live here, which rows of a batch,
what the others counted, and whether one of them was asked to stop.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.config import ColumnNet, Net, UserError
from alexnet.model.alexnet import AlexNet, plain_state
from alexnet.model.columns import Layout, gathered_plain_state
from alexnet.model.nets import net_config
from alexnet.model.presets import NetConfig
from alexnet.preprocessing.batches import WHOLE, Part
from alexnet.training.ranks import Rank, any_rank, average_gradients, sum_over_replicas


class Crew:
    """One process that has every column and every row of a batch."""

    part: Part = WHOLE  # this replica's rows of a batch
    writes = True  # whether this process writes the run's files and speaks
    orphaned = False  # whether the process that started this one is gone, so that nobody could stop it any more
    num_ranks = 1

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # Why: Triton's loops and new streams are of the current one.

    def layout(self, net: Net) -> dict[str, Any]:
        """Return the arguments of `build_net` that say which columns live here and how they reach the others."""
        return {}

    def backward(self, loss: Tensor, share: float, net: nn.Module) -> None:
        """Leave in `net` the gradient of the mean loss over the whole batch.

        `loss` is the mean over the images here, which are the part `share` of the batch.
        """
        loss.backward()

    def total(self, counts: Sequence[float]) -> list[float]:
        """Return each count summed over replicas."""
        return list(counts)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether any process of the crew has it set; so it also waits for all."""
        return flags

    def plain_state(self, net: AlexNet, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        """Return what `of` gives for each parameter, of all columns, under single-stream names."""
        return plain_state(net, of)


class RankCrew(Crew):
    """One rank of several: a column, or a replica's part of each batch, or both."""

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank.device)
        self.rank = rank
        self.part = (rank.replica, rank.layout.replicas)
        self.writes = rank.speaks
        self.num_ranks = rank.layout.ranks

    @property
    def orphaned(self) -> bool:
        """As in `Crew`."""
        return self.rank.orphaned

    def layout(self, net: Net) -> dict[str, Any]:
        """As in `Crew`. Raises UserError for a net that has no columns to share out."""
        config = columns_of(net, self.rank.layout)
        return {"names": self.rank.names(config), "exchange": self.rank.exchange(config)} if config else {}

    def backward(self, loss: Tensor, share: float, net: nn.Module) -> None:
        """As in `Crew`."""
        loss.backward()
        average_gradients(net, self.rank.replica_group, share)

    def total(self, counts: Sequence[float]) -> list[float]:
        """As in `Crew`."""
        return sum_over_replicas(counts, self.rank)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """As in `Crew`."""
        return tuple(any_rank(flag, self.rank) for flag in flags)

    def plain_state(self, net: AlexNet, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        """As in `Crew`."""
        values = {name: of(parameter) for name, parameter in net.named_parameters()}
        return gathered_plain_state(net, self.rank.column_group, values)


def columns_of(net: Net, layout: Layout) -> NetConfig | None:
    """Return the two-column net that a layout shares out, or None for a net without columns.

    Raises UserError when the layout has ranks for columns that the net lacks.
    """
    if isinstance(net, ColumnNet):
        config = net_config(net)
        layout.names(config, 0)
        return config
    if layout.columns > 1:
        raise UserError("The nets of Figure 1 have no columns: leave out --devices (--replicas splits the batch).")
    return None
