"""How claims are tested: experiments declared, the runs they need, what is measured of them, what follows.

    scales.py        toy, small and paper: which set stands for which, width, epochs, seeds
    declare.py       Experiment, arms and how a scale fills them in; answers.py: what is computed from arms
    section3.py ...  the declarations, in the order of the paper; questions.py: those that the paper does not ask
    runs.py          the store of runs; artefacts.py: what is measured once of a finished run
    plan.py          which runs are wanted, their states and costs; runner.py: the queue over devices and cores
    rate_search.py   the fastest learning rate of Figure 1
    statistics.py    intervals and verdicts; results.py: from runs to answers

`EXPERIMENTS` has every declaration, those of most value first: a queue takes their runs in this order.
"""

from typing import Any

__all__ = ["EXPERIMENTS"]


def __getattr__(name: str) -> Any:
    if name != "EXPERIMENTS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alexnet.experiments import questions, section3, section4, section5, section6, section7

    first = (section6.TABLE1,)  # the unmodified net, which a dozen others share
    late = (section3.FIGURE1, section3.NORMALISATION_CIFAR, section6.TABLE2, section6.PRETRAINING, *questions.IDEAS)
    rest = [e for part in (section3, section4, section5, section6, section7, questions) for e in part.EXPERIMENTS]
    return (*first, *(e for e in rest if e not in (*first, *late)), *late)
