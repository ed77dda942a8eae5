"""The two columns in two processes that exchange (section 3.2), against both in one process with as many threads.

python -m alexnet.bench.ranks KIND COMPILED      starts two ranks, and prints the images/s of their steps
"""

import os
import subprocess
import sys
from typing import cast

import torch

from alexnet.bench.rows import Kind, Row, seconds_of
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model.columns import Layout
from alexnet.model.layers import Moment
from alexnet.training.compiling import compile_loops
from alexnet.training.crew import Crew, RankCrew
from alexnet.training.learner import Learner
from alexnet.training.ranks import is_rank, joined

BATCH, STEPS = 128, 5
CONFIG = RunConfig(net=ColumnNet("source2012", 0.5, 20), optimiser=Optimiser(batch_size=BATCH), augmentation="source2012")
PAIR = Layout(columns=2)


def row(kind: Kind, compiled: bool) -> Row:
    """Compare training at half width on two ranks with training in this process; neither sees a loader."""
    words = [sys.executable, "-m", "alexnet.bench.ranks", kind, str(int(compiled))]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # both on the processor, also where there are devices
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    pair, alone = float(done.stdout.split()[-1]), images_per_second(kind, Crew())
    what = f"two ranks with {max(1, torch.get_num_threads() // 2)} thread each, half width"
    against = f"one process with {torch.get_num_threads()} threads"
    return Row(what, against, pair / alone, f"{pair:.0f} against {alone:.0f} images/s")


def images_per_second(kind: Kind, crew: Crew) -> float:
    """Return the speed of the fastest of some steps on one batch of noise."""
    learner = Learner(CONFIG, kind, crew)
    images = (torch.randn(BATCH, 3, 224, 224) * 50).to(memory_format=torch.channels_last)
    labels, steps = torch.arange(BATCH) % 20, iter(range(STEPS))
    return BATCH / min(seconds_of(lambda: learner.step(images, labels, Moment(0, 0, next(steps)))) for _ in range(STEPS))


def main() -> None:
    """Be one of two ranks, or start them; the one that speaks prints the speed."""
    kind, compiled = cast(Kind, sys.argv[1]), sys.argv[2] == "1"
    if not is_rank():
        from alexnet.training.launch import launch

        sys.exit(launch(sys.argv[1:], PAIR, program=("-m", "alexnet.bench.ranks")))
    with joined(PAIR) as rank:
        crew = RankCrew(rank)
        compile_loops(CONFIG.net, compiled, crew)
        speed = images_per_second(kind, crew)
        if crew.writes:
            print(speed)


if __name__ == "__main__":
    main()
