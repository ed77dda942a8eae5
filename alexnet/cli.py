"""The `alexnet` command: parses, calls, prints.

Exit status: 0 done, 1 a mistake of the user's (one line says what, why and what mends it), 130 stopped by a signal.
"""

import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from alexnet.claims import campaign, compare, doctor, experiments, plan, runs, scales
from alexnet.claims.scales import ScaleChoice
from alexnet.config import CifarNet, Optimiser, Precision, RunConfig, UserError, nearest
from alexnet.preprocessing import datasets
from alexnet.preprocessing.batches import Batches
from alexnet.training import evaluate
from alexnet.training.loop import EVALUATION_BATCH
from alexnet.training.process import use_processor

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
    net: CifarNet = field(default_factory=CifarNet)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: int = RunConfig.epochs
    stop_at_train_error: float | None = None
    precision: Precision = "auto"


@dataclass
class Train:
    """Train the runs of a claim: all that are missing, or with --variant one of them.

    A finished run is left alone, a half-finished one goes on to the bit where it stopped (stop it with Ctrl-C at any
    moment), a missing one is trained. Results are in runs/<scale>/<claim>/<variant>/seed-<n>/.

    Examples:
      alexnet train fig1-relu --scale cpu
      alexnet train fig1-relu --scale cpu --variant 19pct-relu-rate-0.004 --seed 1
    """

    claim: Positional[str] = "all"  # a claim that has runs, for example fig1-relu, or all
    scale: ScaleOption = "auto"
    variant: str | None = None  # one run of the claim; the options below then change its config
    seed: int = 0  # which repetition of the variant
    threads: int | None = None  # of a training that begins; the default divides the cores among what runs at a time
    config: OmitArgPrefixes[Overrides] = field(default_factory=Overrides)

    def run(self) -> None:
        """Train what is missing."""
        scale, why = scales.choose(self.scale)
        if self.variant is None:
            if self.config != Overrides():
                raise UserError("Options that change a run's config need --variant, which names the run they change.")
            print(why)
            print(plan.as_text(scale))
            campaign.train_missing(scale, None if self.claim == "all" else [self.claim], self.threads)
            return
        config = RunConfig(claim=self.claim, variant=self.variant, scale=scale, seed=self.seed, **vars(self.config))
        run = runs.get(config, threads=self.threads, bar=sys.stderr.isatty())
        last = run.metrics[-1]
        print(f"{run.folder}: {run.status} after epoch {last['epoch']}, training error {last['train_error']:.2%}, "
              f"test error {last['test_error']:.2%}.")  # fmt: skip


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
        """Print the errors in each split."""
        scale, _ = scales.choose(self.scale)
        run = runs.read(experiments.config_named(self.claim, scale, self.variant, self.seed))
        if run is None:
            raise UserError(f"There is no such run. Make it with: alexnet train {self.claim} --scale {scale} "
                            f"--variant {self.variant} --seed {self.seed}")  # fmt: skip
        net, data = runs.load_net(run)
        for split in data.splits:
            counted = evaluate.count_errors(net, Batches(data, split).in_order(EVALUATION_BATCH))
            print(f"{split}: {counted.wrong:,} of {counted.total:,} images wrong, error {counted.rate:.2%}")


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
