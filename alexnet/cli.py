"""The `alexnet` command: parses, calls, prints.

Exit status: 0 done, 1 a mistake of the user's (one line says what, why and what mends it), 130 stopped by a signal.
"""

import os
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

from alexnet.claims import devices, doctor, plan, runs, scales
from alexnet.cli_train import ScaleOption, Train, train_defaults
from alexnet.config import CifarNet, ColumnNet, RunConfig, Scale, UserError, config_hash, from_dict, nearest
from alexnet.model import weights
from alexnet.model.nets import net_config
from alexnet.preprocessing import datasets
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.store import PreparedSet
from alexnet.training.evaluate import count_errors
from alexnet.training.learner import Learner
from alexnet.training.measure import EVALUATION_BATCH, batches_of, count_views, validation_split
from alexnet.training.process import use_processor


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

    Sets: cifar10 and imagenet20 (downloaded, or read from --source); ilsvrc2010, ilsvrc2012, fall2009, fall2011 (your own
    copies, archives or folders); folders (any train/<class> and val/<class> or test/<class>); formula32 and formula256
    (computed from a seed: the stand-ins for CIFAR-10 and ILSVRC). An interrupted call goes on where it stopped.

    For example

      alexnet prepare cifar10 --source ~/cifar10
      alexnet prepare ilsvrc2012 --source /data/ILSVRC2012
    """

    name: Positional[str]  # of the set, see above
    source: Path | None = None  # the folder to read from, instead of a download
    force: bool = False  # start again even if the set is there
    processes: int | None = None  # that decode photographs; the default is one on each core
    codec: Codec | None = None  # raw: 197 kB a photograph; jpeg: a fifth of it, decoded anew at each use; default by size
    accept_bad: bool = False  # go on although more than 0.1 % of the photographs are missing or unreadable
    verify: bool = False  # compare every byte of a large set with its checksums; small sets always are

    def run(self) -> None:
        """Prepare the set and say what it holds."""
        how = {"processes": self.processes, "codec": self.codec, "accept_bad": self.accept_bad}
        data = datasets.prepare(self.name, self.source, self.force, **how, verify=self.verify or None)
        counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
        kind = "a stand-in, not photographs" if data.stand_in else "photographs"
        print(f"{data.folder}: {counts} images in {len(data.classes)} classes ({kind}); fingerprint {data.fingerprint}.")


@dataclass
class Evaluate:
    """Count the errors of a trained net exactly, from the checkpoint of its run.

    For example

      alexnet evaluate fig1-relu --scale toy --variant 19pct-relu-rate-0.004 --seed 1
    """

    claim: Positional[str]
    variant: str  # which run
    scale: ScaleOption = "auto"
    seed: int = 0

    def run(self) -> None:
        """Print the errors in each split; of photographs, top-1 and top-5 in one view and in ten."""
        scale, _ = scales.choose(self.scale)
        learner, data, config = _trained(self.claim, scale, self.variant, self.seed)
        if isinstance(config.net, CifarNet):
            for split in data.splits:
                counted = count_errors(learner.net, batches_of(config, data, split).in_order(EVALUATION_BATCH))
                print(f"{split}: {counted.wrong:,} of {counted.total:,} images wrong, error {counted.rate:.2%}")
            return
        split = validation_split(data)
        batches = batches_of(config, data, split, learner.crew.device)
        for ten, views in ((False, "one view"), (True, "ten views")):
            found = count_views(learner, batches, ten)
            print(f"{split}, {views}: top-1 {found.top1.rate:.2%} ({found.top1.wrong:,} of {found.top1.total:,} wrong), "
                  f"top-5 {found.top5.rate:.2%} ({found.top5.wrong:,})")  # fmt: skip


@dataclass
class Export:
    """Write the weights of a trained two-column net to one file that says what they are: safetensors with a model card.

    `alexnet.load(FILE)` gives the net back, ready for use, after scoring the images that the file carries.

    For example

      alexnet export s3.5-architecture --scale cpu --variant source2012-half --to alexnet.safetensors
    """

    claim: Positional[str]
    variant: str  # which run
    to: Path  # the file to write
    scale: ScaleOption = "auto"
    seed: int = 0

    def run(self) -> None:
        """Write the file."""
        scale, _ = scales.choose(self.scale)
        learner, data, config = _trained(self.claim, scale, self.variant, self.seed)
        if not isinstance(config.net, ColumnNet):
            raise UserError("Only the two-column net is exported; the nets of Figure 1 stay in their checkpoints.")
        card = weights.ModelCard(config.net.preset, net_config(config.net), config_hash(config), data.classes)
        weights.save(self.to, learner.net, card, torch.from_numpy(data.mean))
        print(f"{self.to}: {config.name}, {len(data.classes)} classes.")


def _trained(claim: str, scale: Scale, variant: str, seed: int) -> tuple[Learner, PreparedSet, RunConfig]:
    """Return the learner of a run with its set and its config. Raises UserError, with the command that makes the run."""
    run = runs.read_named(claim, scale, variant, seed)
    if run is None:
        raise UserError(f"There is no such run. Make it with: alexnet train {claim} --scale {scale} "
                        f"--variant {variant} --seed {seed}")  # fmt: skip
    return *runs.load_learner(run), from_dict(RunConfig, run.manifest["config"])


@dataclass
class Compare:
    """Set what the paper says beside what the 2012 log says and what our runs measured, with interval and verdict.

    For example

      alexnet compare fig1-relu --scale cpu
    """

    claim: Positional[str] = "all"  # a claim's id, or all
    scale: ScaleOption = "auto"

    def run(self) -> None:
        """Print the table."""
        scale, _ = scales.choose(self.scale)
        from alexnet.claims import compare  # Why here: what draws and tabulates takes a second to load.

        print(compare.as_text(self.claim, scale))


@dataclass
class Doctor:
    """Say what this machine has (devices, threads, torch build, disk, prepared sets) and what each scale lacks.

    With --devices, check that its devices compute one and the same net, and time what they exchange: the first thing to
    run on a new machine with two GPUs. Without GPUs it checks processes on the processor.
    """

    devices: bool = False  # train a small net on one device and on several, and compare; ends with PASS or FAIL

    def run(self) -> None:
        """Print the report. The exit status is 1 when the devices do not agree."""
        if not self.devices:
            print(doctor.as_text())
            return
        report, passed = devices.as_text()
        print(report)
        if not passed:
            sys.exit(1)


Command = Plan | Prepare | Train | Evaluate | Export | Compare | Doctor
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
            command = tyro.cli(Train, args=words[1:], default=train_defaults(words[1:]), prog="alexnet train")
        else:
            command = tyro.cli(Command, args=words, prog="alexnet", description=__doc__.split("\n\n")[0])
        use_processor(getattr(command, "threads", None))
        command.run()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # whoever read our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
