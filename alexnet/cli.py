"""Train, measure and compare the nets of Krizhevsky, Sutskever & Hinton (NIPS 2012), claim by claim.

Exit status: 0 done, 1 a mistake of the user's (one line says what, why and what mends it), 130 stopped by a signal.
"""

import os
import sys
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import AvoidSubcommands, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from alexnet.config import Augmentation, CifarNet, Net, Optimiser, Precision, RunConfig, Schedule, UserError, nearest

# Why so many imports inside functions: torch takes seconds, which `alexnet --help` can do without.

SCALE_HELP = (
    "toy: images made by formula. small: real photographs, nights on a laptop or minutes on a GPU. paper: ImageNet and a "
    "CUDA device. auto: paper if this machine is ready for it, else toy."
)
ScaleOption = Annotated[Literal["auto", "toy", "small", "paper"], arg(help=SCALE_HELP)]


@dataclass
class Plan:
    """Show which runs are done, half done or missing at a scale, how long the rest takes here, and the disk it needs.

    For example

      alexnet plan --scale small
      alexnet plan s3.3-lrn --scale small --commands | parallel -j 2
    """

    claim: Positional[str] = "all"  # a claim that has an experiment, or all
    scale: ScaleOption = "auto"
    commands: bool = False  # print one command for each run that can begin now, for GNU parallel, Slurm or any queue

    def run(self) -> None:
        """Print the plan, or the commands."""
        from alexnet.experiments import plan, readiness

        scale, why = readiness.choose(self.scale)
        claims = None if self.claim == "all" else [self.claim]
        if self.commands:
            print("\n".join(plan.commands(scale, claims)))
            return
        print(why)
        print(plan.as_text(scale, claims))


@dataclass
class List:
    """Show the claims that have experiments, their arms, and the state of every run at a scale."""

    claim: Positional[str] = "all"  # one claim, or all
    scale: ScaleOption = "auto"

    def run(self) -> None:
        """Print the list."""
        from alexnet.experiments import plan, readiness

        scale, why = readiness.choose(self.scale)
        print(why)
        print(plan.arms_as_text(scale, None if self.claim == "all" else [self.claim]))


@dataclass
class Prepare:
    """Make a prepared set, which trainings read from: uint8 images, labels, mean image, checksums.

    Sets: cifar10, imagenet20 and imagenette (downloaded, or read from --source); ilsvrc2010, ilsvrc2012, fall2009, fall2011
    (your own copies, archives or folders); folders (any train/<class> and val/<class> or test/<class>); formula32 and
    formula256 (computed from a seed: the stand-ins for CIFAR-10 and ILSVRC). An interrupted call resumes where it stopped.

    For example

      alexnet prepare cifar10 --source ~/cifar10
      alexnet prepare ilsvrc2012 --source /data/ILSVRC2012
    """

    name: Positional[str]  # of the set, see above
    source: Path | None = None  # the folder to read from, instead of a download
    force: bool = False  # start again even if the set is there
    processes: int | None = None  # that decode photographs; the default is one on each core
    codec: Literal["raw", "jpeg"] | None = (
        None  # raw: 197 kB a photograph; jpeg: a fifth, decoded at each use; default by size
    )
    accept_bad: bool = False  # proceed although more than 0.1 % of the photographs are missing or unreadable
    verify: bool = False  # compare every byte of a large set with its checksums; small sets always are

    def run(self) -> None:
        """Prepare the set and say what it holds."""
        from alexnet.preprocessing import prepare

        how = {"processes": self.processes, "codec": self.codec, "accept_bad": self.accept_bad}
        data = prepare(self.name, self.source, self.force, **how, verify=self.verify or None)
        counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
        kind = "a stand-in, not photographs" if data.stand_in else "photographs"
        print(f"{data.folder}: {counts} images in {len(data.classes)} classes ({kind}); fingerprint {data.fingerprint}.")


@dataclass
class Overrides:
    """The fields of a run's config that --arm sets and that you may change for a run of your own."""

    data: str = RunConfig.data
    net: OmitSubcommandPrefixes[AvoidSubcommands[Net]] = field(default_factory=CifarNet)
    optimiser: Optimiser = field(default_factory=Optimiser)
    epochs: int = RunConfig.epochs
    stop_at_train_error: float | None = None
    precision: Precision = "auto"
    schedule: AvoidSubcommands[Schedule | None] = None
    augmentation: AvoidSubcommands[Augmentation | None] = None


@dataclass
class Train:
    """Train what is missing: all runs of a scale, those of a claim, or one run by its name or by its arm.

    A finished run is left alone, a half-finished one resumes bit for bit where it stopped (stop it with Ctrl-C at any
    moment), a missing one is trained. Results are in runs/<set>/<run>/seed-<n>/. With --arm, options change the run: it is
    then another run, with a folder of its own.

    For example

      alexnet train fig1-relu --scale small
      alexnet train s3.3-lrn --arm without --scale toy
      alexnet train s3.3-lrn --arm without --scale toy --epochs 1

    Ranks on several machines are started by torchrun; see alexnet/training/distributed.py.
    """

    what: Positional[str] = "all"  # a claim, the name of a run as `alexnet plan` shows it, or all
    scale: ScaleOption = "auto"
    arm: str | None = None  # one arm of the claim; the options below then change its config
    seed: int = 0  # which repetition of the arm
    threads: int | None = None  # of a training that begins; the default divides the cores among what runs at a time
    devices: int = 1  # 2 puts each column of the net on a device of its own (or on a process, where there is no GPU)
    replicas: int = 1  # nets, on as many devices each, that share every batch; the rate stays, as the batch does
    config: OmitArgPrefixes[Overrides] = field(default_factory=Overrides)

    def run(self) -> None:
        """Train what is missing."""
        from alexnet.experiments import plan, readiness, runner, runs

        for name in ("threads", "devices", "replicas"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise UserError(f"--{name} must be 1 or more, not {number}.")
        config = self._one()
        if config is not None:
            self._train(config)
            return
        if (self.devices, self.replicas) != (1, 1):
            raise UserError("--devices and --replicas need --arm or the name of a run.")
        scale, why = readiness.choose(self.scale)
        claims = None if self.what == "all" else [self.what]
        print(why)
        print(plan.as_text(scale, claims), flush=True)
        runner.train_missing(scale, claims, self.threads)
        print(f"Every run at scale {scale} is done. Results: {runs.runs_dir()}")

    def _one(self) -> RunConfig | None:
        """Return the run that is asked for by name or by arm, or None for a whole claim or all."""
        from alexnet.experiments import plan

        changed = self.config != Overrides()
        if "/" in self.what:
            if changed or self.arm or self.seed:
                raise UserError("A name says all of a run. To change one, name its claim and --arm, then what to change.")
            return plan.find(self.what)
        if self.arm is None:
            if changed or self.seed:
                raise UserError("--seed and the options that change a run need --arm, which says of which run.")
            return None
        return replace(_run_named(self.what, self.arm, self.scale, self.seed), **vars(self.config))

    def _train(self, config: RunConfig) -> None:
        from alexnet.experiments import plan, readiness, recording, runs
        from alexnet.model.column_parallel import Layout
        from alexnet.training.distributed import columns_here, is_rank, joined, launch

        layout = Layout(self.devices, self.replicas)
        if layout.ranks > 1 and not is_rank():
            # Why first: what is wrong with the config should be said once, and not by every rank.
            columns_here(config.net, layout)
            recording.begin(config)
            words = [runs.name_of(config), "--devices", self.devices, "--replicas", self.replicas]
            words += ["--threads", self.threads] if self.threads else []
            status = launch(["train", *map(str, words)], layout)
            if status == 130:
                raise KeyboardInterrupt("The same command resumes it.")
            if status:
                sys.exit(status)
        else:
            with joined(layout, readiness.device()) as group:
                recording.train_run(config, threads=self.threads, group=group)
        if not is_rank():
            measured = plan.artefacts_wanted(config)
            run = recording.train_run(config, threads=self.threads, measured=measured)
            print(f"{run.folder}: {run.status} after epoch {run.manifest['epochs']}.")


@dataclass
class Evaluate:
    """Count the errors of a trained net exactly, of a run or of a file of weights.

    For example

      alexnet evaluate s3.3-lrn --arm with --scale toy
      alexnet evaluate --weights alexnet.safetensors --data ilsvrc2012
    """

    what: Positional[str] = ""  # a claim, or the name of a run
    arm: str | None = None  # of the claim
    scale: ScaleOption = "auto"
    seed: int = 0
    weights: Path | None = None  # a file that `alexnet export` wrote, instead of a run
    data: str | None = None  # the set to count on; the default is the run's own
    views: Literal["central", "ten"] | None = None  # the default is both

    def run(self) -> None:
        """Print top-1 and top-5 errors of each held-out split."""
        from alexnet.experiments import evaluation

        if (self.weights is None) == (not self.what):
            raise UserError(
                "Say which net: a run (alexnet evaluate CLAIM --arm ARM), or a file (--weights FILE --data SET)."
            )
        if self.weights is not None:
            lines = evaluation.of_file(self.weights, self.data, self.views)
        else:
            lines = evaluation.of_run(_run_named(self.what, self.arm, self.scale, self.seed), self.data, self.views)
        for line in lines:
            print(line, flush=True)


@dataclass
class Export:
    """Write the weights of a trained two-column net to one file that says what they are: safetensors with a model card.

    `alexnet.load(FILE)` gives the net back, ready for use, after scoring the images that the file carries.

    For example

      alexnet export s3.3-lrn --arm with --scale toy --to alexnet.safetensors
    """

    what: Positional[str]  # a claim, or the name of a run
    to: Path  # the file to write
    arm: str | None = None  # of the claim
    scale: ScaleOption = "auto"
    seed: int = 0

    def run(self) -> None:
        """Write the file."""
        from alexnet.experiments import evaluation

        print(evaluation.export(_run_named(self.what, self.arm, self.scale, self.seed), self.to))


def _run_named(what: str, arm: str | None, scale: str, seed: int) -> RunConfig:
    """Return the run of a claim's arm, or of this name."""
    from alexnet.experiments import plan, readiness

    if "/" in what:
        return plan.find(what)
    return plan.config_of(what, arm, readiness.choose(scale)[0], seed)


@dataclass
class Compare:
    """Set what the paper says beside what the 2012 run notes say and what our runs measured, with interval and verdict.

    For example

      alexnet compare fig1-relu --scale small
    """

    claim: Positional[str] = "all"  # a claim's id, or all
    scale: ScaleOption = "auto"  # auto: for each claim the largest at which it was measured

    def run(self) -> None:
        """Print the table."""
        from alexnet.report import scorecard

        print(scorecard.as_text(self.claim, None if self.scale == "auto" else self.scale))


@dataclass
class Doctor:
    """Say what this machine has (devices, threads, torch build, disk, prepared sets) and what each scale lacks.

    With --devices, check that its devices compute one and the same net, and time what they exchange: the first thing to
    run on a new machine with two GPUs. Without GPUs it checks processes on the CPU.
    """

    devices: bool = False  # train a small net on one device and on several, and compare; ends with PASS or FAIL

    def run(self) -> None:
        """Print the report. The exit status is 1 when the devices do not agree."""
        if not self.devices:
            from alexnet import machine
            from alexnet.experiments import readiness

            print(machine.report(readiness.details()))
            return
        from alexnet.bench import agreement

        report, passed = agreement.as_text()
        print(report)
        if not passed:
            sys.exit(1)


Command = Plan | List | Prepare | Train | Evaluate | Export | Compare | Doctor
COMMANDS = [command.__name__.lower() for command in typing.get_args(Command)]


def main(words: list[str] | None = None) -> None:
    """Run the command given by `words`, by default the process's arguments."""
    words = sys.argv[1:] if words is None else words
    try:
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            raise UserError(
                f"There is no command {words[0]!r}{nearest(words[0], COMMANDS)}. Commands: {', '.join(COMMANDS)}."
            )
        if words[:1] == ["train"]:
            command: Any = tyro.cli(Train, args=words[1:], default=_train_defaults(words[1:]), prog="alexnet train")
        else:
            command = tyro.cli(Command, args=words, prog="alexnet", description=(__doc__ or "").split("\n\n")[0])
        command.run()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # whoever read our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}", file=sys.stderr)
        sys.exit(130)


@dataclass
class _Selection:
    what: Positional[str] = "all"
    scale: Literal["auto", "toy", "small", "paper"] = "auto"
    arm: str | None = None
    seed: int = 0


def _train_defaults(words: list[str]) -> Train:
    """Return `train` with the config of the named arm as defaults, so that options change it and --help shows it."""
    options = [word for word in words if word not in ("--help", "-h")]
    chosen, _ = tyro.cli(_Selection, args=options, return_unknown_args=True)
    if chosen.arm is None:
        return Train()
    config = _run_named(chosen.what, chosen.arm, chosen.scale, chosen.seed)
    changeable = {name: getattr(config, name) for name in vars(Overrides())}
    return Train(what=chosen.what, config=Overrides(**changeable))


if __name__ == "__main__":
    main()
