"""The processes that train one net together: how they start, meet, agree, and stop (paper 3.2).

`alexnet train --devices 2 --replicas R` starts 2R ranks on this machine with torchrun (`launch`). On many machines start
torchrun yourself, once on each: `torchrun --nnodes ... --nproc-per-node ... -m alexnet train ...`, with the same options.
`model/column_parallel.py` has what columns on ranks of their own compute.

The learning rate does not depend on R. `Optimiser.batch_size` counts the images of a step over all replicas, and gradients
are of the mean over them, so R replicas take the very step that one would. Who trains with larger batches sets both: in the
2012 run notes 256 images at twice the rate match 128, and 1024 are "not good" (layer-params-170-256-double.cfg:202,
layer-params-137.cfg:203).
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from alexnet.config import Net, UserError
from alexnet.model import num_columns_of
from alexnet.model.column_parallel import ColumnExchange, Layout
from alexnet.preprocessing.loader import WHOLE, Part

PATIENCE = timedelta(minutes=10)  # a rank that has not answered for so long is lost; saving and evaluating take less
GRACE = 600  # seconds that torchrun gives ranks to finish their step and save when it is asked to stop
STOPPED = 130  # exit status after Ctrl-C
LOST = 69  # exit status of a rank that could not go on because another one is gone (EX_UNAVAILABLE)
SETTLED = 0.2  # seconds after which a group's threads have let go of the last tensors
BUCKET = 2**24  # values averaged at once over replicas: 64 MB of fp32
STOP_AT_EOF = "ALEXNET_STOP_AT_EOF"  # if set, whoever started this process stops it by closing its standard input
_GONE = re.compile(r"Connection (closed|reset) by peer|Connection refused|Broken pipe|[Tt]imed out|Application timeout")


class Group:
    """The process group that trains one net: this process alone, or one rank of several, seen from that rank.

    Ranks are a mesh (replica x column), in which rank = replica * columns + column. The loop asks its group for everything
    that depends on how many there are: which columns live here, which rows of a batch, what the others counted, and whether
    one of them was asked to stop.
    """

    def __init__(self, device: torch.device | None = None, layout: Layout | None = None, rank: int = 0) -> None:
        self.device, self.layout, self.rank = device or torch.device("cpu"), layout or Layout(), rank
        self.replica, self.column = divmod(rank, self.layout.columns)
        self.num_ranks = self.layout.ranks
        self.is_main = rank == 0  # whether this is the rank that prints and writes the run's files
        self.part: Part = (self.replica, self.layout.replicas) if self.layout.replicas > 1 else WHOLE  # rows of a batch
        self.mesh: DeviceMesh | None = None  # None: it is alone
        self._exchanges: list[ColumnExchange] = []
        self._parent = os.getppid()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # Why: Triton's kernels and new streams are of the current one.

    @property
    def column_group(self) -> ProcessGroup | None:
        """The ranks that have the columns of this replica, if there are several."""
        return self.mesh.get_group("column") if self.mesh and self.layout.columns > 1 else None

    @property
    def replica_group(self) -> ProcessGroup | None:
        """The ranks that have the same column in every replica, if there are several."""
        return self.mesh.get_group("replica") if self.mesh and self.layout.replicas > 1 else None

    @property
    def orphaned(self) -> bool:
        """Whether torchrun's agent has ended and left this rank behind, which is a request to stop.

        The agent starts ranks in sessions of their own, so that nothing else would end them.
        """
        return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != self._parent

    def shared_out(self, net: Net) -> dict[str, Any]:
        """Return the arguments of `model.build` that say which columns of `net` live here and how they reach the others.

        Raises UserError for a net whose columns cannot be shared out so.
        """
        names = columns_here(net, self.layout, self.column)
        if not names or not self.column_group:
            return {"names": names}
        self._exchanges.append(ColumnExchange(self.column_group))
        return {"names": names, "exchange": self._exchanges[-1]}

    def backward(self, loss: Tensor, share: float, net: nn.Module) -> None:
        """Leave in `net` the gradient of the mean loss over the whole batch.

        `loss` is the mean over the images here, which are the part `share` of the batch.
        """
        loss.backward()
        average_gradients(net, self.replica_group, share)

    def total(self, counts: Sequence[float]) -> list[float]:
        """Return each number, such as an error count or a loss, summed over replicas; counts stay exact up to 2^53."""
        if self.replica_group is None:
            return [float(count) for count in counts]
        sums = torch.tensor(counts, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums, group=self.replica_group)
        return sums.tolist()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether any rank has it set. All have to ask, so this also waits for all."""
        if self.mesh is None:
            return flags
        asked = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return tuple(map(bool, asked.tolist()))

    def meet(self) -> None:
        """Join the group of all ranks and those of the mesh."""
        where = self.device if self.device.type == "cuda" else None
        dist.init_process_group(backend(), timeout=PATIENCE, device_id=where)
        self.mesh = self.layout.mesh(self.device.type)

    def leave(self) -> None:
        """Take the groups down; the other ranks do so too."""
        # Why: gloo's threads end with the last reference to a group. If the interpreter ends first, while one of them still
        # holds a tensor, the process aborts (pytorch issue 179291).
        for exchange in self._exchanges:
            del exchange.group
        self.mesh = None
        dist.destroy_process_group()


def columns_here(net: Net, layout: Layout, column: int = 0) -> tuple[str, ...]:
    """Return the `names` of the columns of `net` in place `column` of a layout; empty: all of them.

    Raises UserError when the layout has ranks for columns that the net lacks.
    """
    if layout.columns == 1:
        return ()
    if num_columns_of(net) == 1:
        raise UserError("This net has no columns to share out: leave out --devices (--replicas splits the batch).")
    return layout.names(net, column)


@torch.no_grad()
def average_gradients(net: nn.Module, group: ProcessGroup | None, weight: float) -> None:
    """Replace each gradient by the sum over the ranks of `group` of `weight` times it.

    With the mean loss over a replica's own images and the weight (own images) / (images of the batch) this is the gradient
    of the mean over the whole batch, also when the last batch does not divide evenly.
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
        flat = torch.cat([g.flatten() for g in bucket]).mul_(weight)
        sent.append((bucket, flat, dist.all_reduce(flat, group=group, async_op=True)))  # travels while the next is packed
    for bucket, flat, work in sent:
        work.wait()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view(gradient.shape))


def backend() -> str:
    """Return what carries tensors between ranks: nccl between CUDA devices, gloo between CPUs."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def device_of_rank(local_rank: int) -> torch.device:
    """Return the device of the rank that is `local_rank`-th on its machine. Raises UserError if there are not so many."""
    if backend() == "gloo":
        return torch.device("cpu")
    _need_devices(local_rank + 1, "This rank")
    return torch.device("cuda", local_rank)


def _need_devices(count: int, who: str) -> None:
    if (there := torch.cuda.device_count()) < count:
        raise UserError(
            f"{who} needs {count} CUDA devices, one for each rank, and this machine shows {there}. Ask for fewer with "
            "--devices and --replicas, or run on the CPU: CUDA_VISIBLE_DEVICES= alexnet ..."
        )


def is_rank() -> bool:
    """Return whether this process was started as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(layout: Layout, device: torch.device | None = None) -> Iterator[Group]:
    """Meet the other ranks of `layout` and be one of the group until the end of the block.

    A single process, on `device`, needs no other; ranks have the devices of their machine in turn. Raises UserError when the
    ranks that were started are not as many as the layout has. If another rank is lost, this one says so and exits with
    status `LOST`; a rank that `launch` started and stopped exits with 0.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world != layout.ranks:
        raise UserError(
            f"{layout.options} needs {layout.ranks} ranks, and {world} {'was' if world == 1 else 'were'} started. Start as "
            f"many (torchrun --nproc-per-node {layout.ranks}), or change the options."
        )
    if world == 1:
        yield Group(device)
        return
    group = Group(device_of_rank(int(os.environ.get("LOCAL_RANK", rank))), layout, rank)
    try:
        group.meet()
        yield group
    except RuntimeError as error:
        gone = _GONE.search(str(error))
        if not gone and not isinstance(error, dist.DistError):
            raise
        why = gone.group() if gone else str(error).splitlines()[0]
        print(f"error: rank {rank} of {world} stops, another one is gone ({why}).", file=sys.stderr)
        time.sleep(SETTLED)  # Why: as in `leave`, which would wait for the rank that is gone
        raise SystemExit(LOST) from error
    except (UserError, KeyboardInterrupt, SystemExit) as error:
        group.leave()
        # Why: any other status is a failure for torchrun, which reports those at length; `launch` knows that it asked.
        if isinstance(error, KeyboardInterrupt) and STOP_AT_EOF in os.environ:
            raise SystemExit(0) from error
        raise
    group.leave()


def launch(arguments: Sequence[str], layout: Layout, program: Sequence[str] = ("-m", "alexnet")) -> int:
    """Run `python -m alexnet <arguments>` as every rank of `layout` on this machine with torchrun; return the exit status.

    A request to stop (`StopRequests`) reaches the ranks through their standard input, and the status is 130 when they have
    ended; so does the end of this process, by whatever means. If a rank fails, torchrun stops the others and the status is
    1. Raises UserError when there are not enough devices.
    """
    from alexnet.machine import available_cores

    if backend() == "nccl":
        _need_devices(layout.ranks, layout.options)
    how = ["--standalone", "--nproc-per-node", str(layout.ranks), "--shutdown-timeout", str(GRACE)]
    threads = {"OMP_NUM_THREADS": str(max(1, available_cores() // layout.ranks))}  # unless the user says how many
    # Why a session of its own: Ctrl-C goes to all processes of a terminal, and torchrun would answer it with a traceback.
    with (
        StopRequests() as stop,
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *how, *program, *arguments],
            env=threads | os.environ | {STOP_AT_EOF: "1"},
            stdin=subprocess.PIPE,
            start_new_session=True,
        ) as agent,
    ):
        status = _await(agent, stop)
    if status == 0:
        return STOPPED if stop.requested else 0
    print(
        f"error: one of {layout.ranks} ranks failed and the others were stopped, see above. The last checkpoint is whole: "
        "the same command resumes from there.",
        file=sys.stderr,
    )
    return 1


def _await(agent: subprocess.Popen, stop: "StopRequests") -> int:
    assert agent.stdin is not None
    try:
        while True:
            if stop.requested:
                agent.stdin.close()
            try:
                return agent.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        agent.kill()  # Why: a second Ctrl-C waits for nobody; the ranks see that they are orphaned and stop by themselves.
        raise


class StopRequests:
    """Turn the first SIGINT, SIGTERM or SIGHUP into `requested`, so that a step is finished and saved.

    A second one acts as it always does. Outside the main thread signals are left alone. The caller may also `request` a
    stop, from any thread, before or during the block; and where $ALEXNET_STOP_AT_EOF is set, the end of standard input is a
    request, so that no process outlives the one that wants its result.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self._asked or (STOP_AT_EOF in os.environ and not _input_watch().is_alive())

    def request(self) -> None:
        """Ask to stop."""
        self._asked = True

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    self._before[number] = signal.signal(number, self._signalled)
        return self

    def _signalled(self, number: int, frame: Any) -> None:
        self._asked = True
        signal.signal(number, self._before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@cache
def _input_watch() -> threading.Thread:
    """Return the thread of this process that lives until standard input ends."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass

    thread = threading.Thread(target=wait, name="standard input", daemon=True)
    thread.start()
    return thread
