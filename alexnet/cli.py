"""Train, measure and compare the nets of Krizhevsky, Sutskever & Hinton (NIPS 2012), claim by claim.

Exit status: 0 done, 1 a mistake of the user's (one line says what, why and what mends it), 2 an option or value that does
not exist, 3 a training diverged or ended with its loss at ln K, 130 stopped by a signal.
"""

import os
import subprocess
import sys
import typing
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import tyro
from tyro.conf import AvoidSubcommands, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg

from alexnet import config, experiments, files, machine
from alexnet.config import CifarNet, RunConfig, UserError, check_range

SCALE_HELP = (
    "toy: images made by formula. small: real photographs, nights on a laptop or minutes on a GPU. paper: ImageNet and a "
    "CUDA device. auto: paper if this machine is ready for it, else toy."
)
ScaleOption = Annotated[Literal["auto", "toy", "small", "paper"], arg(help=SCALE_HELP)]
DeviceOption = Annotated[str, arg(help="cpu, cuda, or cuda:1 and so on; auto: CUDA devices if there are any, else the CPU")]
WEIGHTS_HELP = "a file that `alexnet export` wrote, or a run's name; else the latest net here, one of photographs first"
WeightsOption = Annotated[str | None, arg(help=WEIGHTS_HELP)]
UNHEALTHY = 3  # exit status


def _chosen_scale(option: str, claim: str, to: TextIO | None = None) -> tuple[Any, list[str] | None]:
    """Return the scale and the claims (None: all) that a command is about, and print why that scale."""
    scale, why = experiments.readiness.choose(option)
    print(why, file=to or sys.stdout)
    return scale, None if claim == "all" else [claim]


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
    seeds: int | None = None  # repetitions that every arm has at least
    device: DeviceOption = "auto"  # the plan is for this one

    def __call__(self) -> None:
        check_range("seeds", self.seeds)
        asked = *_chosen_scale(self.scale, self.claim, sys.stderr if self.commands else None), self.seeds or 0
        print("\n".join(experiments.plan.commands(*asked)) if self.commands else experiments.plan.as_text(*asked))


@dataclass
class List:
    """Show the claims that have experiments, their arms, the state of every run at a scale, and the prepared sets.

    For example
      alexnet list
      alexnet list s3.3-lrn --scale toy
    """

    claim: Positional[str] = "all"  # one claim, or all
    scale: ScaleOption = "auto"

    def __call__(self) -> None:
        print(experiments.plan.arms_as_text(*_chosen_scale(self.scale, self.claim)))
        if self.claim == "all":
            print(f"\n{experiments.readiness.sets_as_text()}")


@dataclass
class Prepare:
    """Make a prepared set, which trainings read from: uint8 images, labels, mean image, checksums.

    Sets: cifar10, imagenet20 and imagenette (downloaded, or read from --source); ilsvrc2010, ilsvrc2012, fall2009, fall2011
    (your own copies, archives or folders, as published, or from Kaggle or Hugging Face); folders (any train/<class> and
    val/<class> or test/<class>, or <class> with --val-fraction); formula32 and formula256 (computed from a seed: the
    stand-ins for CIFAR-10 and ILSVRC). An interrupted call resumes where it stopped.

    For example
      alexnet prepare cifar10 --source ~/cifar10
      alexnet prepare ilsvrc2012 --source /data/ILSVRC2012
      alexnet prepare folders --source ~/pets --val-fraction 0.1 --name pets
    """

    kind: Positional[str]  # of set, see above
    source: Path | None = None  # the folder to read from, instead of a download
    name: str | None = None  # of a set of class folders, which trainings then know as --data NAME
    val_fraction: float | None = None  # of each class of such a set, drawn from a seed and put aside for validation
    force: bool = False  # make the set again although it is there; it is replaced when the new one is complete
    processes: int | None = None  # that decode photographs; the default is one on each core
    codec: Literal["raw", "jpeg"] | None = None  # raw: 197 kB a photograph; jpeg: a sixth, decoded at each use; else by size
    accept_bad: bool = False  # proceed although more than 0.1 % of the photographs are missing or unreadable
    verify: bool = False  # compare every byte of a large set with its checksums; small sets always are

    def __call__(self) -> None:
        from alexnet.preprocessing import prepare

        check_range("processes", self.processes)
        data = prepare(**vars(self) | {"verify": self.verify or None})
        counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
        kind = "a stand-in, not photographs" if data.stand_in else "photographs"
        print(f"{data.folder}: {counts} images in {len(data.classes)} classes ({kind}); fingerprint {data.fingerprint}.")


@dataclass
class Overrides:
    """The fields of a run's config that --arm sets and that you may change for a run of your own."""

    data: str = RunConfig.data
    net: OmitSubcommandPrefixes[AvoidSubcommands[config.Net]] = field(default_factory=CifarNet)
    optimiser: config.Optimiser = field(default_factory=config.Optimiser)
    epochs: int = RunConfig.epochs
    stop_at_train_error: float | None = None
    precision: config.Precision = "auto"
    schedule: AvoidSubcommands[config.Schedule | None] = None
    augmentation: AvoidSubcommands[config.Augmentation | None] = None


@dataclass
class Chosen:
    """A run: by its name, or as an arm of a claim at a scale."""

    what: Positional[str] = ""  # a claim, or the name of a run as `alexnet plan` shows it
    arm: str | None = None  # one arm of the claim
    scale: ScaleOption = "auto"
    seed: int = 0  # which repetition of the arm
    device: DeviceOption = "auto"

    def chosen(self) -> RunConfig:
        """Return the run. Raises UserError where there is none, and for options that have no effect on a name."""
        if "/" not in self.what:
            return experiments.plan.config_of(self.what, self.arm, experiments.readiness.choose(self.scale)[0], self.seed)
        if self.arm or self.seed or self.scale != "auto":
            raise UserError("A name says all of a run: leave out --arm, --scale and --seed. (They go with a claim.)")
        return experiments.plan.find(self.what)


@dataclass
class Train(Chosen):
    """Train what is missing: all runs of a scale, those of a claim, or one run by its name or by its arm.

    A finished run is left alone, a half-finished one resumes bit for bit where it stopped (stop it with Ctrl-C at any
    moment), a missing one is trained. Results are in runs/<set>/<run>/seed-<n>/. With --arm, options change the run: it is
    then one of your own, with a folder of its own, which `alexnet compare` shows as yours.

    For example
      alexnet train fig1-relu --scale small
      alexnet train s3.3-lrn --arm without --scale toy
      alexnet train s3.3-lrn --arm without --scale toy --epochs 1 --name short
      alexnet train s3.3-lrn --scale toy --seeds 3
      alexnet train s3.3-lrn --arm with --scale toy --from alexnet.safetensors --data formula256

    Ranks on several machines are started by torchrun; see alexnet/training/distributed.py.
    """

    what: Positional[str] = "all"  # a claim, the name of a run as `alexnet plan` shows it, or all
    seeds: int | None = None  # repetitions that every arm of the claim has at least; the verdict uses them
    threads: int | None = None  # of a training that begins; the default divides the cores among what runs at a time
    devices: int = 1  # 2 puts each column of the net on a device of its own (or on a process, where there is no GPU)
    replicas: int = 1  # nets, on as many devices each, that share every batch; the rate stays, as the batch does
    name: str | None = None  # of a run of your own: it stands in its folder's name
    from_file: Annotated[Path | None, arg(name="from")] = None  # an exported net: all but the last layer begins with it
    changes: OmitArgPrefixes[Overrides] = field(default_factory=Overrides)

    def __call__(self) -> None:
        for name in ("threads", "devices", "replicas", "seeds"):
            check_range(name, getattr(self, name))
        is_changed = self.changes != Overrides() or self.name or self.from_file
        if "/" in self.what and is_changed:
            raise UserError("A name says all of a run. To change one, name its claim and --arm, then what to change.")
        if "/" in self.what or self.arm is not None:
            if self.seeds:
                raise UserError("--seeds is for all arms of a claim; of one run, --seed says which repetition.")
            self._train(*(self._own() if self.arm is not None else (self.chosen(), {})))
            return
        if is_changed or self.seed or (self.devices, self.replicas) != (1, 1):
            what = "--seed, --name, --from, --devices, --replicas and the options that change a run"
            raise UserError(f"{what} need --arm, which says of which run; --devices and --replicas go with a name too.")
        scale, claims = _chosen_scale(self.scale, self.what)
        print(experiments.plan.as_text(scale, claims, self.seeds or 0), flush=True)
        for each in experiments.plan.wanted(scale, claims, seeds=self.seeds or 0):
            experiments.plan.check_threads(each.config, self.threads)
        warned = experiments.runner.train_missing(scale, claims, self.seeds or 0, threads=self.threads)
        others = sum(each.state == "in work" for each in experiments.plan.wanted(scale, claims, seeds=self.seeds or 0))
        end = f"{others} are in work in other processes, every other run" if others else "Every run"
        print(f"{end} at scale {scale} is done. Results: {experiments.runs.runs_dir()}")
        _tell(warned)

    def _own(self) -> tuple[RunConfig, dict[str, Any]]:
        """Return the arm's run as the options change it; of one that is changed, also what its record says of that."""
        import torch

        from alexnet.model.net import blank
        from alexnet.preprocessing import prepare

        arm = self.chosen()
        own = replace(arm, **vars(self.changes), name=self.name)
        with torch.device("meta"):  # Why here: what cannot be built is told before a set is fetched and a folder is made
            blank(own.net)
        facts: dict[str, Any] = {"arm_of": [self.what, self.arm, experiments.readiness.choose(self.scale)[0]]}
        if self.from_file is not None:
            if not self.from_file.is_file():
                raise UserError(f"--from {self.from_file} is no file. Write one with: alexnet export")
            facts["start_file"] = str(self.from_file.absolute())
            own = replace(own, start_from=None, start_file=config.file_digest(self.from_file))
            experiments.recording.initial_of_file(own, self.from_file)
        if own.data != arm.data and own.net.num_classes == arm.net.num_classes:
            own = replace(own, net=replace(own.net, num_classes=len(prepare(own.data, verify=False).classes)))
        return own, facts if own != arm else {}

    def _train(self, wanted: RunConfig, facts: dict[str, Any]) -> None:
        from alexnet.model.column_parallel import Layout
        from alexnet.training.distributed import is_rank, joined

        layout, recording = Layout(self.devices, self.replicas), experiments.recording
        experiments.plan.check_threads(wanted, self.threads)
        if layout.ranks > 1 and not is_rank():
            recording.train_by_ranks(wanted, layout, self.threads, **facts)
        with joined(layout if is_rank() else Layout(), experiments.readiness.device()) as group:
            if facts and group.is_main:
                recording.begin(wanted, **facts)
            group.any(False)  # the others wait until it is begun
            measured = () if is_rank() else experiments.plan.artefacts_wanted(wanted)
            run = recording.train_run(wanted, threads=self.threads, measured=measured, group=group)
        if not is_rank():
            print(f"{run.folder}: {run.status} after epoch {run.manifest['epochs']}.")
            _tell([run.manifest["warning"]] if run.manifest["warning"] else [])


def _tell(warned: list[str]) -> None:
    """End with a status of its own where trainings went wrong."""
    if warned:
        print("\n".join(["error: no result of this training:", *warned]), file=sys.stderr)
        sys.exit(UNHEALTHY)


@dataclass
class Evaluate(Chosen):
    """Count the errors of a trained net exactly, of a run or of a file of weights, on any prepared set of its classes.

    For example
      alexnet evaluate s3.3-lrn --arm with --scale toy
      alexnet evaluate --weights alexnet.safetensors --data formula256
    """

    weights: Path | None = None  # a file that `alexnet export` wrote, instead of a run
    data: str | None = None  # the set to count on; the default is the run's own
    views: Literal["central", "ten"] | None = None  # the default is both

    def __call__(self) -> None:
        if (self.weights is None) == (not (self.what or self.arm or self.seed or self.scale != "auto")):
            raise UserError("Say which net: a run (CLAIM --arm ARM, or its name), or a file (--weights FILE --data SET).")
        net = experiments.evaluation.shown(self.weights or self.chosen(), self.data)
        for line in experiments.evaluation.errors(net, self.views):
            print(line, flush=True)


@dataclass
class Export(Chosen):
    """Write the weights of a trained net to one file that says what they are: safetensors with a model card.

    `alexnet.load(FILE)` gives the net back, ready for use, after scoring the images that the file carries.

    For example
      alexnet export s3.3-lrn --arm with --scale toy --to alexnet.safetensors
    """

    to: Path = field(kw_only=True)  # the file to write

    def __call__(self) -> None:
        print(experiments.evaluation.export(self.chosen(), self.to))


@dataclass
class Predict:
    """Say what a trained net sees in photographs: the most probable classes, from ten views of each.

    For example
      alexnet predict photo.jpg
      alexnet predict photo.jpg other.png --weights alexnet.safetensors --plot seen.svg
    """

    photos: Positional[tuple[Path, ...]]  # files, or folders with files
    weights: WeightsOption = None
    top: int = 5  # how many classes are shown
    plot: Path | None = None  # draw the pictures with bars into this file: .svg, .png, .pdf
    device: DeviceOption = "auto"

    def __call__(self) -> None:
        from alexnet import pictures

        check_range("top", self.top)
        if not self.photos:
            raise UserError("Say which photographs: alexnet predict photo.jpg")
        photos = [file for photo in self.photos for file in (pictures.files_in(photo) if photo.is_dir() else [photo])]
        found = pictures.predict(experiments.evaluation.net_of(self.weights), photos, self.top)
        for photo, rows in zip(photos, found, strict=True):
            print("\n".join([files.shown(photo), *(f"  {probability:6.1%}  {word}" for word, probability in rows)]))
        if self.plot is not None:
            pictures.draw(photos, found, self.plot)
            print(f"{self.plot}: the pictures with bars")


@dataclass
class Features:
    """Write what a layer of a trained net makes of every picture in a folder, as arrays `features` and `files` of an .npz.

    For example
      alexnet features photographs --layer fc7 --to features.npz
    """

    folder: Positional[Path]  # with pictures in it, or in folders in it
    layer: str = "fc7"  # conv1 ... conv5, fc6 or fc7, each with all that follows it
    to: Path = Path("features.npz")
    weights: WeightsOption = None
    device: DeviceOption = "auto"

    def __call__(self) -> None:
        from alexnet import pictures

        found = pictures.files_in(self.folder)
        features = pictures.features(experiments.evaluation.net_of(self.weights), found, self.layer)
        files.write_arrays(self.to, features=features, files=[str(file.relative_to(self.folder)) for file in found])
        print(f"{self.to}: {self.layer} of {len(found):,} pictures, {features.shape[1]:,} numbers each.")


@dataclass
class Figure:
    """Draw the figures of a claim's chapter as SVG from the recorded runs, without building the book. Needs the checkout.

    For example
      alexnet figure fig1-relu --scale toy --to figures
    """

    claim: Positional[str]
    to: Path = Path()  # the folder to write them to
    scale: ScaleOption = "auto"  # auto: the largest at which the claim was measured

    def __call__(self) -> None:
        (experiment, *_) = experiments.plan.experiments_of([self.claim])
        scale = experiments.results.recorded_scale(experiment) or "toy" if self.scale == "auto" else self.scale
        program = config.PROJECT_DIR / "book" / "make.py"
        if not program.is_file():
            raise UserError("Figures are drawn by the book's notebooks, which only a checkout of the repository has.")
        words = [sys.executable, program, "--scale", scale, "--figures", self.claim, "--to", self.to]
        sys.exit(subprocess.run(words).returncode)


@dataclass
class Compare:
    """Set what the paper says beside what the 2012 run notes say and what our runs measured, with interval and verdict.

    For example
      alexnet compare fig1-relu --scale small
    """

    claim: Positional[str] = "all"  # a claim's id, or all
    scale: ScaleOption = "auto"  # auto: for each claim the largest at which it was measured

    def __call__(self) -> None:
        from alexnet.report import scorecard

        print(scorecard.as_text(self.claim, None if self.scale == "auto" else self.scale))
        print(f"Scale: {'for each claim the largest at which it was measured' if self.scale == 'auto' else self.scale}.")


@dataclass
class Doctor:
    """Say what this machine has (devices, threads, torch build, disk, prepared sets) and what each scale lacks.

    With --devices, check that its devices compute one and the same net, and time what they exchange: the first thing to
    run on a new machine with two GPUs. Without GPUs it checks processes on the CPU.
    """

    devices: bool = False  # train a small net on one device and on several, and compare; ends with PASS or FAIL
    device: DeviceOption = "auto"  # what is measured; with --devices, cpu: processes even where there are GPUs

    def __call__(self) -> None:
        if not self.devices:
            lines = machine.details() + experiments.readiness.details()
            return print("\n".join(f"{title:12} {text}" for title, text in lines))
        from alexnet.bench import agreement

        report, passed = agreement.as_text()
        print(report)
        sys.exit(not passed)


Command = Plan | List | Prepare | Train | Evaluate | Predict | Features | Export | Compare | Figure | Doctor
COMMANDS = [command.__name__.lower() for command in typing.get_args(Command)]


def main(words: list[str] | None = None) -> None:
    """Run the command given by `words`, by default the process's arguments."""
    if os.name == "nt":
        sys.exit("error: Windows itself is not supported. Inside WSL (install it with: wsl --install) it works as on Linux.")
    words = sys.argv[1:] if words is None else words
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without a line of code
    try:
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            known = f"{config.nearest(words[0], COMMANDS)}. Commands: {', '.join(COMMANDS)}."
            raise UserError(f"There is no command {words[0]!r}{known}")
        if words[:1] == ["train"]:
            command: Any = tyro.cli(Train, args=words[1:], default=_train_defaults(words[1:]), prog="alexnet train")
        else:
            command = tyro.cli(Command, args=words, prog="alexnet", description=(__doc__ or "").split("\n\n")[0])
            machine.use_device(getattr(command, "device", "auto"))
        with files.disk_errors_named():
            command()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # whoever read our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}", file=sys.stderr)
        sys.exit(130)


def _train_defaults(words: list[str]) -> Train:
    """Return `train` with the config of the named arm as defaults, so that options change it and --help shows it."""
    chosen, _ = tyro.cli(Chosen, args=[word for word in words if word not in ("--help", "-h")], return_unknown_args=True)
    machine.use_device(chosen.device)
    if chosen.arm is None or "/" in chosen.what:
        return Train()
    if chosen.what not in (*words, ""):  # Why: behind an option that it does not know, tyro does not find the claim
        raise UserError("Name the claim before the options: alexnet train CLAIM --arm ARM ...")
    arm = chosen.chosen()
    return Train(what=chosen.what, changes=Overrides(**{name: getattr(arm, name) for name in vars(Overrides())}))
