"""The processes that train one net together: how they start, meet, agree, and stop (paper 3.2).

`alexnet train --devices 2 --replicas R` starts 2R ranks on this machine with torchrun (`launch`). On many machines start
torchrun yourself, once on each: `torchrun --nnodes ... --nproc-per-node ... -m alexnet train ...`, with the same options.
R replicas take the very step that one would, at the same rate: `Optimiser.batch_size` counts the images of all.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh

from alexnet.config import Net, UserError
from alexnet.machine import available_cores
from alexnet.model import num_columns_of
from alexnet.model.column_parallel import Exchange, Layout
from alexnet.model.presets import COLUMN_NAMES
from alexnet.preprocessing.loader import Part

PATIENCE = timedelta(minutes=10)  # a rank that has not answered for so long is lost; saving and evaluating take less
GRACE = 600  # seconds that torchrun gives ranks to finish their step and save when it is asked to stop
STOPPED = 130  # exit status after Ctrl-C
LOST = 69  # exit status of a rank that could not go on because another one is gone (EX_UNAVAILABLE)
STOP_AT_EOF = "ALEXNET_STOP_AT_EOF"  # if set, whoever started this process stops it by closing its standard input
PARENT = os.getppid()  # of a rank, torchrun's agent


class Group:
    """The process group that trains one net, seen from one of its ranks, or this process alone."""

    def __init__(self, device: torch.device | None = None, layout: Layout | None = None, rank: int = 0) -> None:
        self.device, self.layout, self.rank = device or torch.device("cpu"), layout or Layout(), rank
        self.replica, self.column = divmod(rank, self.layout.columns)
        self.num_ranks = self.layout.ranks
        self.is_main = rank == 0  # whether this is the rank that prints and writes the run's files
        self.part: Part = self.replica, self.layout.replicas  # rows of a batch
        self.column_group: ProcessGroup | None = None  # the ranks with the columns of this replica, if there are several
        self.replica_group: ProcessGroup | None = None  # those with the same column in every replica, if there are several
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # Why: Triton's kernels and new streams are of the current one.

    def shared_out(self, net: Net) -> dict[str, Any]:
        """Return the arguments of `model.build` that say which columns of `net` live here and how they reach the others."""
        names = columns_here(net, self.layout, self.column)
        return {"names": names, "exchange": Exchange(lambda: self.column_group) if names else None}

    @torch.no_grad()
    def average(self, net: nn.Module, share: float) -> None:
        """Replace the gradients of replicas' mean losses by that of the whole batch's, of which this one has `share`."""
        if self.replica_group is None:
            return
        gradients = [parameter.grad for parameter in net.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).mul_(share)
        dist.all_reduce(flat, group=self.replica_group)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def total(self, counts: Sequence[float]) -> list[float]:
        """Return each number, such as an error count or a loss, summed over replicas; counts stay exact up to 2^53."""
        if self.replica_group is None:
            return [float(count) for count in counts]
        sums = torch.tensor(counts, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums, group=self.replica_group)
        return sums.tolist()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether any rank has it set. All have to ask, so this also waits for all."""
        if self.num_ranks == 1:
            return flags
        asked = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return tuple(map(bool, asked.tolist()))

    def meet(self) -> None:
        """Join the groups, as the other ranks do."""
        how = {"backend": "nccl", "device_id": self.device} if self.device.type == "cuda" else {"backend": "gloo"}
        dist.init_process_group(**how, timeout=PATIENCE)
        sizes = {"replica": self.layout.replicas, "column": self.layout.columns}
        mesh = init_device_mesh(self.device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        self.replica_group, self.column_group = (mesh.get_group(n) if size > 1 else None for n, size in sizes.items())

    def leave(self) -> None:
        """Take the groups down, as the other ranks do."""
        # Why: gloo's threads end with the last reference to a group. If the interpreter ends first, while one of them still
        # holds a tensor, the process aborts (pytorch issue 179291).
        self.replica_group = self.column_group = None
        dist.destroy_process_group()


def columns_here(net: Net, layout: Layout, column: int = 0) -> tuple[str, ...]:
    """Return the names of the columns of `net` in place `column` of a layout, or none for all; UserError if it fits not."""
    if layout.columns == 1:
        return ()
    if layout.columns != (has := num_columns_of(net)):
        mend = f"use --devices {has}, and --replicas {layout.columns} to split the batch."
        raise UserError(f"--devices {layout.columns} puts one column on each device, and this net has {has}: {mend}")
    return (COLUMN_NAMES[column],)


def device_of_rank(local_rank: int) -> torch.device:
    """Return the device of the rank that is `local_rank`-th on its machine. Raises UserError if there are not so many."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if (there := torch.cuda.device_count()) <= local_rank:
        need = f"{local_rank + 1} ranks need a CUDA device each, and this machine shows {there}."
        raise UserError(f"{need} Ask for fewer, or run on the CPU: CUDA_VISIBLE_DEVICES= alexnet ...")
    return torch.device("cuda", local_rank)


def is_rank() -> bool:
    """Return whether this process was started as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(layout: Layout, device: torch.device | None = None) -> Iterator[Group]:
    """Meet the other ranks of `layout`, each on a device of its machine, and be one of the group until the block's end.

    Raises UserError for another number of ranks than the layout's. Where one is lost, the others exit with status `LOST`.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world != layout.ranks:
        asked = f"--devices {layout.columns} --replicas {layout.replicas} needs {layout.ranks} ranks, not {world}."
        raise UserError(f"{asked} Start as many (torchrun --nproc-per-node {layout.ranks}), or change the options.")
    if world == 1:
        yield Group(device)
        return
    group = Group(device_of_rank(int(os.environ.get("LOCAL_RANK", rank))), layout, rank)
    try:
        group.meet()
        yield group
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        print(f"error: rank {rank} of {world} stops, another one is gone ({str(error).splitlines()[0]}).", file=sys.stderr)
        time.sleep(0.2)  # Why: as in `leave`, which would wait for the rank that is gone; threads let go meanwhile
        raise SystemExit(LOST) from error
    except (UserError, KeyboardInterrupt, SystemExit) as error:
        group.leave()
        # Why: any other status is a failure for torchrun, which reports those at length; `launch` knows that it asked.
        if isinstance(error, KeyboardInterrupt) and STOP_AT_EOF in os.environ:
            raise SystemExit(0) from error
        raise
    group.leave()


def launch(arguments: Sequence[str], layout: Layout, program: Sequence[str] = ("-m", "alexnet"), stop: Any = None) -> int:
    """Run `python -m alexnet <arguments>` as every rank of `layout` on this machine with torchrun; return the exit status.

    A request to stop, or the end of this process by whatever means, reaches the ranks through their standard input; the
    status is then 130. If a rank fails it is 1. Raises UserError when there are not enough devices.
    """
    device_of_rank(layout.ranks - 1)
    how = ["--standalone", "--nproc-per-node", str(layout.ranks), "--shutdown-timeout", str(GRACE)]
    command = [sys.executable, "-m", "torch.distributed.run", *how, *program, *arguments]
    threads = {"OMP_NUM_THREADS": str(max(1, available_cores() // layout.ranks))}  # unless the user says how many
    env = threads | os.environ | {STOP_AT_EOF: "1"}
    # Why a session of its own: Ctrl-C goes to all processes of a terminal, and torchrun would answer it with a traceback.
    pipe = {"stdin": subprocess.PIPE, "start_new_session": True}
    with stop or StopRequests() as stop, subprocess.Popen(command, env=env, **pipe) as agent:
        try:
            while agent.poll() is None:
                time.sleep(0.2)
                if stop.requested:
                    agent.stdin.close()
        except BaseException:
            agent.kill()  # Why: a second Ctrl-C waits for nobody; the ranks see that they are orphaned and stop.
            raise
    if agent.returncode == 0:
        return STOPPED if stop.requested else 0
    print("error: a rank failed, see above. The same command resumes from the last checkpoint.", file=sys.stderr)
    return 1


class StopRequests(ExitStack):
    """Turn the first SIGINT, SIGTERM or SIGHUP into `requested`, so that a step is finished and saved.

    A second one acts as it always does; the caller may `request` too, from any thread. No rank outlives those who want its
    result: requests are also the end of standard input where $ALEXNET_STOP_AT_EOF is set, and that of torchrun's agent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        is_orphaned = "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != PARENT
        has_ended = STOP_AT_EOF in os.environ and bool(select.select([0], [], [], 0)[0])  # nothing else comes there
        return self._asked or is_orphaned or has_ended

    def request(self) -> None:
        """Ask to stop."""
        self._asked = True

    def __enter__(self) -> "StopRequests":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if (before := signal.getsignal(number)) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, partial(self._signalled, before))
                self.callback(signal.signal, number, before)
        return self

    def _signalled(self, before: Any, number: int, frame: Any) -> None:
        self._asked = True
        signal.signal(number, before)
