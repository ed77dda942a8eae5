"""Training on several devices: how ranks start, meet, agree, and end (paper 3.2; `model/columns.py` has what they compute).

`alexnet train --devices 2 --replicas R` starts 2R ranks on this machine by torchrun's agent (`launch.py`). On many machines
start them yourself, with `torchrun ... -m alexnet train ...` or `srun alexnet train ...`, the same options on each. (For
torchrun's restarts on several machines, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1: see `_meet`.)

The rate does not depend on R. `Optimiser.batch_size` counts the images of a step over all replicas, and gradients are of
the mean over them, so R replicas take the very step that one would. Who trains with larger batches sets both: in the 2012
log 256 images at twice the rate match 128, and 1024 are "not good" (layer-params-170-256-double.cfg:202,
layer-params-137.cfg:203).
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from alexnet.config import UserError
from alexnet.model.columns import ColumnExchange, Layout
from alexnet.model.presets import NetConfig

PATIENCE = timedelta(minutes=10)  # a rank that has not answered for so long is lost; saving and evaluating take less
CONNECTED = timedelta(seconds=30)  # after which a rank has reached the store of torchrun's agent
LOST = 69  # exit status of a rank that could not go on because another one is gone (EX_UNAVAILABLE)
SETTLED = 0.2  # seconds after which a group's threads have let go of the last tensors
BUCKET = 2**24  # values averaged at once over replicas: 64 MB of fp32
_GONE = re.compile(r"Connection (closed|reset) by peer|Connection refused|Broken pipe|[Tt]imed out|Application timeout")


@dataclass
class Rank:
    """Where this process stands in a layout."""

    layout: Layout
    index: int
    device: torch.device
    mesh: DeviceMesh | None = None  # None: it is alone
    exchanges: list[ColumnExchange] = field(default_factory=list)  # that were made for its nets
    parent: int = field(default_factory=os.getppid)  # the process that started it

    @property
    def replica(self) -> int:
        """Which part of every batch this rank sees."""
        return self.index // self.layout.columns

    @property
    def column(self) -> int:
        """Which column it has, if a rank has one."""
        return self.index % self.layout.columns

    @property
    def speaks(self) -> bool:
        """Whether it is the one that prints and writes files."""
        return self.index == 0

    @property
    def orphaned(self) -> bool:
        """Whether torchrun's agent has ended and left this rank behind, which is a request to stop.

        The agent starts ranks in sessions of their own, so that nothing else would end them.
        """
        return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != self.parent

    @property
    def column_group(self) -> ProcessGroup | None:
        """The ranks that have the columns of this replica, if there are several."""
        return self.mesh.get_group("column") if self.mesh and self.layout.columns > 1 else None

    @property
    def replica_group(self) -> ProcessGroup | None:
        """The ranks that have the same column in every replica, if there are several."""
        return self.mesh.get_group("replica") if self.mesh and self.layout.replicas > 1 else None

    def names(self, config: NetConfig) -> tuple[str, ...]:
        """Return the `names` of the columns that `AlexNet` has here. Raises UserError if they cannot be shared out."""
        return self.layout.names(config, self.column)

    def exchange(self, config: NetConfig) -> ColumnExchange | None:
        """Return the exchange with the other columns' ranks; None when all columns are here."""
        if self.column_group is None:
            return None
        self.exchanges.append(ColumnExchange(config, self.column_group))
        return self.exchanges[-1]

    def leave(self) -> None:
        """Take the groups down; the other ranks do so too."""
        # Why: gloo's threads end with the last reference to a group. If the interpreter ends first, while one of them still
        # holds a tensor, the process aborts (pytorch issue 179291).
        for exchange in self.exchanges:
            del exchange.group
        self.mesh = None
        dist.destroy_process_group()

    def rows(self, batch_size: int) -> slice:
        """Return which images of a batch this rank sees."""
        return self.layout.rows(self.replica, batch_size)


def backend() -> str:
    """Return what carries tensors between ranks: nccl between CUDA devices, gloo between processors."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def device_of_rank(local_rank: int) -> torch.device:
    """Return the device of the rank that is `local_rank`-th on its machine. Raises UserError if there are not so many."""
    if backend() == "gloo":
        return torch.device("cpu")
    if local_rank >= (count := torch.cuda.device_count()):
        raise UserError(
            f"Each rank needs a CUDA device of its own; this machine shows {count}, and there are at least {local_rank + 1} "
            "ranks. Ask for fewer with --devices and --replicas, or run on the processor: CUDA_VISIBLE_DEVICES= alexnet ..."
        )
    return torch.device("cuda", local_rank)


def is_rank() -> bool:
    """Say whether this process was started as one of several ranks, by torchrun or srun."""
    return _place()[1] > 1


@contextmanager
def joined(layout: Layout) -> Iterator[Rank]:
    """Meet the other ranks of `layout` and be this one until the end of the block.

    Raises UserError when the ranks that were started are not as many as the layout has. If another rank is lost, this one
    says so and exits with status `LOST`. A single rank needs no other.
    """
    index, world, local_rank = _place()
    if world != layout.ranks:
        raise UserError(
            f"{layout.options} needs {layout.ranks} ranks, and {world} {'was' if world == 1 else 'were'} started. Start as "
            f"many (torchrun --nproc-per-node {layout.ranks}, or srun --ntasks {layout.ranks}), or change the options."
        )
    rank = Rank(layout, index, device_of_rank(local_rank))
    if world == 1:
        yield rank
        return
    try:
        _meet(rank)
        yield rank
    except RuntimeError as error:
        gone = _GONE.search(str(error))
        if not gone and not isinstance(error, dist.DistError):
            raise
        why = gone.group() if gone else str(error).splitlines()[0]
        print(f"error: rank {index} of {world} stops, another one is gone ({why}).", file=sys.stderr)
        time.sleep(SETTLED)  # Why: as in `leave`, which would wait for the rank that is gone
        raise SystemExit(LOST) from error
    except (UserError, KeyboardInterrupt, SystemExit):
        rank.leave()
        raise
    rank.leave()


def any_rank(flag: bool, rank: Rank) -> bool:
    """Return whether `flag` is true on any rank; all have to ask.

    With `stop.requested or rank.orphaned` after each step, all obey a request to stop after the same one.
    """
    if rank.mesh is None:
        return flag
    asked = torch.tensor([flag], dtype=torch.int32, device=rank.device)
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return bool(asked.item())


def sum_over_replicas(values: Sequence[float], rank: Rank) -> list[float]:
    """Return the sums over replicas of a few numbers, such as errors and losses; counts stay exact up to 2^53."""
    if rank.replica_group is None:
        return [float(value) for value in values]
    sums = torch.tensor(values, dtype=torch.float64, device=rank.device)
    dist.all_reduce(sums, group=rank.replica_group)
    return sums.tolist()


@torch.no_grad()
def average_gradients(net: nn.Module, group: ProcessGroup | None, weight: float) -> None:
    """Replace each gradient by the sum over the ranks of `group` of `weight` times it.

    With the mean loss over a replica's own images and the weight (own images) / (images of the batch) this is the gradient
    of the mean over the whole batch, also when the last batch does not divide evenly. Weight 0 stands for no images.
    """
    if group is None:
        return
    buckets: list[list[Tensor]] = [[]]
    for gradient in (p.grad for p in net.parameters() if p.grad is not None):
        if buckets[-1] and sum(g.numel() for g in buckets[-1]) + gradient.numel() > BUCKET:
            buckets.append([])
        buckets[-1].append(gradient)
    sent = []
    for bucket in buckets:
        # Why: zeros in place of a product with 0: the mean over no images is not a number.
        flat = torch.cat([g.flatten() for g in bucket]).mul_(weight) if weight else _zeros(bucket)
        sent.append((bucket, flat, dist.all_reduce(flat, group=group, async_op=True)))  # travels while the next is packed
    for bucket, flat, work in sent:
        work.wait()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view(gradient.shape))


def _zeros(bucket: list[Tensor]) -> Tensor:
    return bucket[0].new_zeros(sum(g.numel() for g in bucket))


def _place() -> tuple[int, int, int]:
    """Return rank, number of ranks, and rank on this machine, from what torchrun or srun left in the environment."""
    env = os.environ
    if "RANK" in env:
        missing = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in env]
        if missing:
            raise UserError(f"RANK is set but {', '.join(missing)} not: start with torchrun, or unset RANK.")
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", env["RANK"]))
    # Why: a batch script has SLURM_PROCID and SLURM_NTASKS too, though it is no task; only srun sets the step's.
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        nodes = re.match(r"([^\[,]+)(?:\[(\d+))?", env["SLURM_STEP_NODELIST"])  # node[03-05,7] begins with node03
        assert nodes, env["SLURM_STEP_NODELIST"]
        env.setdefault("MASTER_ADDR", "".join(part for part in nodes.groups() if part))
        env.setdefault("MASTER_PORT", str(20000 + int(env["SLURM_JOB_ID"]) % 20000))
        return int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_LOCALID"])
    return 0, 1, 0


def _meet(rank: Rank) -> None:
    """Join the group of all ranks and those of the mesh."""
    index, world, on_cuda = rank.index, rank.layout.ranks, rank.device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(rank.device)
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    # Why: an agent's store is there before any rank; one that is not is that of an agent that was killed meanwhile.
    store, _, _ = next(rendezvous("env://", index, world, timeout=CONNECTED if has_agent else PATIENCE))
    store.set_timeout(PATIENCE)
    if has_agent and os.environ["LOCAL_WORLD_SIZE"] == str(world):
        # Why: torch 2.14's agent keeps its store when it starts ranks again, with the addresses of those that are gone.
        store = dist.PrefixStore(f"start-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    where = rank.device if on_cuda else None
    dist.init_process_group(backend(), store=store, rank=index, world_size=world, timeout=PATIENCE, device_id=where)
    rank.mesh = rank.layout.mesh(rank.device.type)
