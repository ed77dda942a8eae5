"""The `alexnet` command: parses, calls, prints.

Exit status: 0 done, 1 a mistake of the user's (one line says what, why and what mends it), 130 stopped by a signal.
"""

import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import AvoidSubcommands, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from alexnet.claims import campaign, compare, doctor, experiments, plan, runs, scales
from alexnet.claims.scales import ScaleChoice
from alexnet.config import CifarNet, Net, Optimiser, Precision, RunConfig, Schedule, UserError, Views, from_dict, nearest
from alexnet.model.columns import Layout
from alexnet.preprocessing import datasets
from alexnet.training.crew import Crew, RankCrew
from alexnet.training.evaluate import count_errors
from alexnet.training.launch import launch
from alexnet.training.measure import EVALUATION_BATCH, batches_of, count_views, validation_split
from alexnet.training.process import use_processor
from alexnet.training.ranks import is_rank, joined

SCALE_HELP = "toy: images made by formula. cpu: real CIFAR-10, hours. paper: two GPUs and ImageNet. auto: paper or toy."
ScaleOption = Annotated[ScaleChoice, arg(help=SCALE_HELP)]


@dataclass
class Plan:
    """Show which runs are done, half done or missing at a scale, how long the rest takes here, and the disk it needs."""

    scale: ScaleOption = "auto"

    def run(self) -> None:
        """Print the plan."""
        scale, why = scales.choose(self.scale)
        print(why)
        print(plan.as_text(scale))


@dataclass
class Prepare:
    """Make a prepared set, which trainings read from: uint8 images, labels, mean image, checksums.

    Sets: cifar10 (downloaded, or read from --source), formula32 and formula256 (computed from a seed: the stand-ins for
    CIFAR-10 and ILSVRC). An interrupted call goes on where it stopped.

    Example: alexnet prepare cifar10 --source ~/cifar10
    """

    name: Positional[str]  # cifar10, formula32 or formula256
    source: Path | None = None  # a folder with cifar-10-batches-py or {train,test}/<class>/*.png, instead of a download
    force: bool = False  # start again even if the set is there

    def run(self) -> None:
        """Prepare the set and say what it holds."""
        data = datasets.prepare(self.name, self.source, self.force)
        counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
        kind = "a stand-in, not photographs" if data.stand_in else "photographs"
        print(f"{data.folder}: {counts} images in {len(data.classes)} classes ({kind}).")
        print(f"Every file is verified; fingerprint {data.fingerprint}.")


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

    Examples:
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
            datasets.prepare(config.data)
            sys.exit(launch(sys.argv[1:], layout, self.max_restarts))
        with joined(layout) as rank:
            crew = RankCrew(rank) if layout.ranks > 1 else Crew(rank.device)
            shown = crew.writes and sys.stderr.isatty()
            run = runs.get(config, threads=self.threads, bar=shown, crew=crew)
        if crew.writes:
            print(f"{run.folder}: {run.status} after epoch {run.metrics[-1]['epoch']}, {errors_in_words(run.metrics[-1])}.")


@dataclass
class Evaluate:
    """Count the errors of a trained net exactly, from the checkpoint of its run.

    Example: alexnet evaluate fig1-relu --scale toy --variant 19pct-relu-rate-0.004 --seed 1
    """

    claim: Positional[str]
    variant: str  # which run
    scale: ScaleOption = "auto"
    seed: int = 0

    def run(self) -> None:
        """Print the errors in each split; of photographs, top-1 and top-5 in one view and in ten."""
        scale, _ = scales.choose(self.scale)
        run = runs.read(experiments.config_named(self.claim, scale, self.variant, self.seed))
        if run is None:
            raise UserError(f"There is no such run. Make it with: alexnet train {self.claim} --scale {scale} "
                            f"--variant {self.variant} --seed {self.seed}")  # fmt: skip
        learner, data = runs.load_learner(run)
        config = from_dict(RunConfig, run.manifest["config"])
        if isinstance(config.net, CifarNet):
            for split in data.splits:
                counted = count_errors(learner.net, batches_of(config, data, split).in_order(EVALUATION_BATCH))
                print(f"{split}: {counted.wrong:,} of {counted.total:,} images wrong, error {counted.rate:.2%}")
            return
        split = validation_split(data)
        batches = batches_of(config, data, split)
        for ten, views in ((False, "one view"), (True, "ten views")):
            found = count_views(learner, batches, ten)
            print(f"{split}, {views}: top-1 {found.top1.rate:.2%} ({found.top1.wrong:,} of {found.top1.total:,} wrong), "
                  f"top-5 {found.top5.rate:.2%} ({found.top5.wrong:,})")  # fmt: skip


def errors_in_words(line: dict[str, Any]) -> str:
    """Return the errors of a line of metrics in words: "test error 20.00%, val error top5 ten views 17.00%"."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in line.items()
                     if "error" in name and value is not None)  # fmt: skip


@dataclass
class Compare:
    """Set what the paper says beside what the 2012 log says and what our runs measured, with interval and verdict."""

    claim: Positional[str] = "all"  # a claim's id, or all
    scale: ScaleOption = "auto"

    def run(self) -> None:
        """Print the table."""
        scale, _ = scales.choose(self.scale)
        print(compare.as_text(self.claim, scale))


@dataclass
class Doctor:
    """Say what this machine has (devices, threads, torch build, disk, prepared sets) and what each scale lacks."""

    def run(self) -> None:
        """Print the report."""
        print(doctor.as_text())


Command = Plan | Prepare | Train | Evaluate | Compare | Doctor
COMMANDS = [command.__name__.lower() for command in typing.get_args(Command)]


@dataclass
class _Selection:
    claim: Positional[str] = "all"
    scale: ScaleChoice = "auto"
    variant: str | None = None
    seed: int = 0


def _train_defaults(words: list[str]) -> Train:
    """Return `train` with the config of the named variant as defaults, so that options change it and --help shows it."""
    options = [word for word in words if word not in ("--help", "-h")]
    chosen, _ = tyro.cli(_Selection, args=options, return_unknown_args=True)
    if chosen.variant is None:
        return Train()
    scale, _ = scales.choose(chosen.scale)
    config = experiments.config_named(chosen.claim, scale, chosen.variant, chosen.seed)
    changeable = {name: getattr(config, name) for name in vars(Overrides())}
    return Train(claim=chosen.claim, config=Overrides(**changeable))


def main(words: list[str] | None = None) -> None:
    """Run the command given by `words`, by default the process's arguments."""
    words = sys.argv[1:] if words is None else words
    try:
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            raise UserError(
                f"There is no command {words[0]!r}{nearest(words[0], COMMANDS)}. Commands: {', '.join(COMMANDS)}."
            )
        if words[:1] == ["train"]:
            command = tyro.cli(Train, args=words[1:], default=_train_defaults(words[1:]), prog="alexnet train")
        else:
            command = tyro.cli(Command, args=words, prog="alexnet", description=__doc__.split("\n\n")[0])
        use_processor(getattr(command, "threads", None))
        command.run()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
