"""`alexnet train`: its options are the fields of a run's config, with the values of the named run as defaults."""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from tyro.conf import AvoidSubcommands, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from alexnet.claims import campaign, experiments, plan, runs, scales
from alexnet.claims.scales import ScaleChoice
from alexnet.config import CifarNet, Net, Optimiser, Precision, RunConfig, Schedule, UserError, Views
from alexnet.model.columns import Layout
from alexnet.preprocessing import datasets
from alexnet.training.crew import Crew, RankCrew, columns_of
from alexnet.training.ranks import is_rank, joined

SCALE_HELP = "toy: images made by formula. cpu: real photographs, hours. paper: two GPUs and ImageNet. auto: paper or toy."
ScaleOption = Annotated[ScaleChoice, arg(help=SCALE_HELP)]


@dataclass
class Overrides:
    """The fields of a run's config that --variant sets and that you may change for a run of your own."""

    data: str = RunConfig.data
    net: OmitSubcommandPrefixes[AvoidSubcommands[Net]] = field(default_factory=CifarNet)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: int = RunConfig.epochs
    stop_at_train_error: float | None = None
    precision: Precision = "auto"
    schedule: AvoidSubcommands[Schedule | None] = None
    augmentation: Views | None = None


@dataclass
class Train:
    """Train the runs of a claim: all that are missing, or with --variant one of them.

    A finished run is left alone, a half-finished one goes on to the bit where it stopped (stop it with Ctrl-C at any
    moment), a missing one is trained. Results are in runs/<scale>/<claim>/<variant>/seed-<n>/.

    For example

      alexnet train fig1-relu --scale cpu
      alexnet train fig1-relu --scale cpu --variant 19pct-relu-rate-0.004 --seed 1
      alexnet train s3.5-architecture --scale cpu --variant source2012-half --devices 2

    On several machines, start the ranks with torchrun or srun; see the documentation of alexnet/training/ranks.py.
    """

    claim: Positional[str] = "all"  # a claim that has runs, for example fig1-relu, or all
    scale: ScaleOption = "auto"
    variant: str | None = None  # one run of the claim; the options below then change its config
    seed: int = 0  # which repetition of the variant
    threads: int | None = None  # of a training that begins; the default divides the cores among what runs at a time
    devices: int = 1  # 2 puts each column of the net on a device of its own (or on a process, where there is no GPU)
    replicas: int = 1  # nets, on as many devices each, that share every batch; the rate stays, as the batch does
    max_restarts: int = 0  # how often ranks start again from the last checkpoint after one of them was lost
    config: OmitArgPrefixes[Overrides] = field(default_factory=Overrides)

    def run(self) -> None:
        """Train what is missing."""
        scale, why = scales.choose(self.scale)
        if self.variant is None:
            if self.config != Overrides():
                raise UserError("Options that change a run's config need --variant, which names the run they change.")
            if (self.devices, self.replicas) != (1, 1):
                raise UserError("--devices and --replicas need --variant, which names the run that they share out.")
            claims = None if self.claim == "all" else [self.claim]
            print(why)
            print(plan.as_text(scale, claims))
            campaign.train_missing(scale, claims, self.threads)
            return
        config = RunConfig(claim=self.claim, variant=self.variant, scale=scale, seed=self.seed, **vars(self.config))
        layout = Layout(self.devices, self.replicas)
        if layout.ranks > 1 and not is_rank():
            from alexnet.training.launch import launch  # Why here: it takes a second that no other command needs.

            # Why first: what is wrong with the config should be said once, and not by ranks that start again.
            runs.read(config)
            columns_of(config.net, layout)
            datasets.prepare(config.data)
            sys.exit(launch(sys.argv[1:], layout, self.max_restarts))
        with joined(layout) as rank:
            crew = RankCrew(rank) if layout.ranks > 1 else Crew(rank.device)
            shown = crew.writes and sys.stderr.isatty()
            run = runs.get(config, threads=self.threads, bar=shown, crew=crew)
        if crew.writes:
            print(f"{run.folder}: {run.status} after epoch {run.metrics[-1]['epoch']}, {errors_in_words(run.metrics[-1])}.")


def errors_in_words(line: dict[str, Any]) -> str:
    """Return the errors of a line of metrics in words: "test error 20.00%, val error top5 ten views 17.00%"."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in line.items()
                     if "error" in name and value is not None)  # fmt: skip


@dataclass
class _Selection:
    claim: Positional[str] = "all"
    scale: ScaleChoice = "auto"
    variant: str | None = None
    seed: int = 0


def train_defaults(words: list[str]) -> Train:
    """Return `train` with the config of the named variant as defaults, so that options change it and --help shows it."""
    options = [word for word in words if word not in ("--help", "-h")]
    chosen, _ = tyro.cli(_Selection, args=options, return_unknown_args=True)
    if chosen.variant is None:
        return Train()
    scale, _ = scales.choose(chosen.scale)
    config = experiments.config_named(chosen.claim, scale, chosen.variant, chosen.seed)
    changeable = {name: getattr(config, name) for name in vars(Overrides())}
    return Train(claim=chosen.claim, config=Overrides(**changeable))
