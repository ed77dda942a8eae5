"""How claims are tested: experiments declared, the runs they need, what is measured of them, what follows.

    scales.py        toy, small and paper: which set stands for which, width, epochs, seeds
    declare.py       Experiment, arms and how a scale fills them in; answers.py: what is computed from arms
    sections.py      the declarations of the paper's claims; questions.py: of what the paper does not ask
    runs.py          the store of runs; recording.py: how one is trained into it; evaluation.py: its net's errors
    artefacts.py     what is measured of it once; baseline.py: the rival of Table 1
    plan.py          which runs are wanted, their states and costs; runner.py: the queue over devices and cores
    readiness.py     what this machine can run; rate_search.py: the fastest learning rate of Figure 1
    statistics.py    intervals and verdicts; results.py: from runs to answers

`EXPERIMENTS` has every declaration, those of most value first: a queue takes their runs in this order.
"""

import importlib
from typing import Any

__all__ = ["EXPERIMENTS"]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "EXPERIMENTS":
        return importlib.import_module(f"{__name__}.{name}")  # Why so late: `alexnet --help` needs not wait for torch
    from alexnet.experiments import questions, sections

    return (*sections.EXPERIMENTS, *questions.EXPERIMENTS, *sections.LATE, *questions.LATE)
