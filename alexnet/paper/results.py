"""What the paper measured: headline numbers, tables 1 and 2, the gains of sections 3 to 7, figures 1, 3 and 4.

A gain carries the pair of 2012 runs behind it where the run notes hold one (`layers/layer-params-*.cfg`, `run_notes.py`):
their difference, with all its digits, is the value's `notes2012`. The paper does not say on which set a gain was measured;
the notes do. Where neither says, the set is ANY_ILSVRC, the split HELD_OUT and the views are the ten of section 4.1.
"""

from typing import Any

from alexnet.paper.claims import (
    ANY_ILSVRC,
    GAIN,
    HELD_OUT,
    QUOTED,
    RATE,
    RATIO,
    WHOLE_GAIN,
    WHOLE_RATE,
    Claim,
    Unit,
    Value,
    register,
)

TEN_2010: dict[str, Any] = {"dataset": "ilsvrc2010", "split": "test", "views": "ten"}
TEN_2012: dict[str, Any] = {"dataset": "ilsvrc2012", "split": "val", "views": "ten"}
TEN_UNSAID: dict[str, Any] = {"dataset": ANY_ILSVRC, "split": HELD_OUT, "views": "ten"}
CENTRAL_UNSAID = TEN_UNSAID | {"views": "central"}  # errors of training images too, where ten views cost much and say little
RUN_2010, RUN_2012 = "layer-params-145-2010.cfg:178", "layer-params-145.cfg:182"
RUN_2010_VIEWS = "layer-params-145-2010.cfg:178-180"
Pair = tuple[float, float]  # top-1 and top-5 error of one 2012 run, in percent
Row = tuple[Value, Value]


def _rates(
    subject: str, top1: float, top5: float, notes: Pair | None = None, source: str | None = None, **where: Any
) -> Row:
    """Return a row of a table: its top-1 and top-5 error in percent."""
    margin = QUOTED if where.get("quoted") else RATE
    both = notes or (None, None)
    first, fifth = (
        Value(f"top-{k} error", paper, "%", margin, subject=subject, notes2012=noted, notes_source=source, **where)
        for k, paper, noted in ((1, top1, both[0]), (5, top5, both[1]))
    )
    return first, fifth


def _gains(top1: float, top5: float, without: Pair | None, with_: Pair | None, source: str | None, **where: Any) -> Row:
    """Return the top-1 and top-5 gain in points, beside the difference of the two 2012 runs, `without` minus `with_`."""
    both = [round(a - b, 4) for a, b in zip(without, with_, strict=True)] if without and with_ else [None, None]
    first, fifth = (
        Value(f"top-{k} gain", paper, "points", GAIN, notes2012=noted, notes_source=source, **where)
        for k, paper, noted in ((1, top1, both[0]), (5, top5, both[1]))
    )
    return first, fifth


def _seen(name: str, unit: Unit = "points", **where: Any) -> Value:
    """Return an effect of which the paper gives the direction and no number."""
    return Value(name, {"points": 0.0, "ratio": 1.0}[unit], unit, bound="at least", **where)


# fmt: off
# Why: a claim's id, section and kind are its head and stay on one line.

# Section 1
register(
    Claim("s1-training-time", "1, 5", "result",
        "Training takes five to six days on two GTX 580 with 3 GB each, some 90 passes through 1.2 million images.",
        (
            Value("training time", 5.5, "days", 0.5, dataset=ANY_ILSVRC, split="train"),
            Value("passes", 90, "epochs", 10, dataset=ANY_ILSVRC, split="train", notes2012=93,
                  notes_source="layer-params-145-2010.cfg"),
        ),
        note="The time is the hardware's. By the notes the 2010 net stopped after 93 epochs and the 2012 net after 91.",
    ),
    Claim("s1-depth", "1", "result",
        "Without any one of its convolutional layers the net does worse.",
        (_seen("top-1 gain", **TEN_UNSAID),),
        "More errors after the removal of each convolutional layer in turn.",
        note="No 2012 run removes a layer. Without conv1 conv2 would see the image itself; we leave that one in.",
    ),
    Claim("s1-mnist", "1", "result",
        "The best error rate on MNIST, below 0.3 %, is close to what people reach: small sets of simple images are solved.",
        (Value("error", 0.3, "%", QUOTED, bound="at most", dataset="mnist", split="test", quoted=True),),
    ),
)

# Tables 1 and 2, and what section 6 says around them
register(
    Claim("table1", "abstract, 6, table 1", "result",
        "On the test set of ILSVRC-2010 one net makes far fewer errors than the competition's best entry (six averaged "
        "models on sparse codes) and than the best result published since (two classifiers on Fisher vectors).",
        (
            *_rates("Sparse coding", 47.1, 28.2, dataset="ilsvrc2010", split="test", quoted=True),
            *_rates("SIFT + FVs", 45.7, 25.7, dataset="ilsvrc2010", split="test", quoted=True),
            *_rates("CNN", 37.5, 17.0, (37.4727, 16.9987), RUN_2010, **TEN_2010),
        ),
    ),
    Claim("table2", "abstract, 6, table 2", "result",
        "On ILSVRC-2012, averaging nets and pre-training on the whole of ImageNet's fall 2011 release (the rows with a "
        "star, which have a sixth convolutional layer) each lower the error; seven nets together won the competition.",
        (
            Value("top-5 error", 26.2, "%", QUOTED, subject="SIFT + FVs", dataset="ilsvrc2012", split="test", quoted=True),
            *_rates("1 CNN", 40.7, 18.2, (40.664, 18.210), RUN_2012, **TEN_2012),
            *_rates("5 CNNs", 38.1, 16.4, **TEN_2012),
            Value("top-5 error", 16.4, "%", RATE, subject="5 CNNs", **TEN_2012 | {"split": "test"}),
            *_rates("1 CNN*", 39.0, 16.6, (38.990, 16.622), "layer-params-146-2012-2011.cfg:195", **TEN_2012),
            *_rates("7 CNNs*", 36.7, 15.4, **TEN_2012),
            Value("top-5 error", 15.3, "%", RATE, subject="7 CNNs*", **TEN_2012 | {"split": "test"}),
        ),
        note="The headline 15.3 % is the seven nets' (two pre-trained and the five); one net compares with 18.2 %.",
    ),
    Claim("s6-ensemble", "6, table 2", "gain",
        "Averaging the predictions of five similar nets instead of trusting one lowers the error.",
        _gains(2.6, 1.8, None, None, None, **TEN_2012),
        note="The gains are differences of rows of Table 2. The 2012 scripts could weight nets by validation error.",
    ),
    Claim("s6-pretraining", "6, table 2", "gain",
        "Pre-training on 15 million images of 22,000 categories, with a sixth convolutional layer, lowers one net's error.",
        _gains(1.7, 1.6, (40.664, 18.210), (38.990, 16.622), f"{RUN_2012}, layer-params-146-2012-2011.cfg:195", **TEN_2012),
        note="The gains are differences of rows of Table 2; the added layer and the added data are not told apart.",
    ),
    Claim("s6-val-test", "6", "result",
        "Validation and test error are used for one another: in the authors' experience they differ by at most 0.1 points.",
        # Why 0.25 and 0.2: what sampling alone moves a rate of 40 or 18 % between 50,000 and 150,000 images, as one sd.
        tuple(
            Value("difference of validation and test error", 0.1, "points", margin, bound="at most", subject=top,
                  notes2012=noted, notes_source="layer-params-137.cfg:181-183", **TEN_UNSAID)
            for top, margin, noted in (("top-1", 0.25, 0.1793), ("top-5", 0.2, -0.0227))
        ),
        note="The paper does not say of which error. The one net with both in the 2012 notes (137, on ILSVRC-2010) has "
        "37.796 and 37.617 top-1.",
    ),
    Claim("s6-ten-crop", "4.1, 6", "gain",
        "Averaging the predictions on ten views (corners, centre, reflections) makes fewer errors than the central view.",
        (
            *_rates("centre", 39.0, 18.3, (39.0247, 18.2953), RUN_2010_VIEWS, **TEN_2010 | {"views": "central"}),
            *_gains(1.5, 1.3, (39.0247, 18.2953), (37.4727, 16.9987), RUN_2010_VIEWS, **TEN_2010),
        ),
        note="The gains are differences of the rates that the paper prints.",
    ),
    Claim("s6-fall2009", "6", "result",
        "On ImageNet's fall 2009 release (10,184 categories, 8.9 million images, half of them for testing) the net, with a "
        "sixth convolutional layer, makes far fewer errors than the best published result.",
        (
            *_rates("CNN", 67.4, 40.9, dataset="fall2009", split="test", views="ten"),
            *_rates("best published", 78.1, 60.9, dataset="fall2009", split="test", quoted=True),
            Value("categories", 10_184, "count", dataset="fall2009"),
            Value("images", 8.9e6, "count", 0.05e6, dataset="fall2009"),
            Value("test share", 0.5, "constant", dataset="fall2009"),
        ),
        note="No 2012 note has these rates; the two of fall 2009 are of older nets (69.38 / 43.65 and 69.42 / 43.73).",
    ),
)

# Gains of sections 3 to 5, and section 7
register(
    Claim("s3.2-two-gpus", "3.2", "gain",
        "The net spread over two GPUs makes fewer errors than one with half the kernels per convolutional layer on one.",
        _gains(1.7, 1.2, (39.1680, 18.2287), (37.4727, 16.9987), f"layer-params-145-half.cfg:100, {RUN_2010}", **TEN_2010),
        note="The smaller net keeps the last convolutional layer and the fully-connected ones whole, which favours it.",
    ),
    Claim("s3.2-speed", "3.2", "result",
        "The net on two GPUs trains in slightly less time than the net on one.",
        (_seen("time on one GPU over time on two", "ratio", dataset=ANY_ILSVRC, split="train"),),
        direction="Less wall-clock time for one pass with two devices than with one and the smaller net.",
    ),
    Claim("s3.3-lrn", "3.3", "gain",
        "Dividing each activity by its neighbours' energy across kernel maps (response normalisation) lowers the error.",
        _gains(1.4, 1.2, (42.034, 19.362), (40.664, 18.210), f"layer-params-148.cfg:148, {RUN_2012}", **TEN_2012),
        note="Run 148 drops all three normalisation layers of a column, of which the paper describes two.",
    ),
    Claim("s3.3-lrn-cifar", "3.3", "gain",
        "On CIFAR-10 a four-layer net has 13 % test error without response normalisation and 11 % with it.",
        tuple(
            Value(name, paper, unit, margin, subject=subject, dataset="cifar10", split="test", views="grid")
            for name, paper, unit, margin, subject in (
                ("error", 13.0, "%", WHOLE_RATE, "without"),
                ("error", 11.0, "%", WHOLE_RATE, "with"),
                ("gain", 2.0, "points", WHOLE_GAIN, ""),
            )
        ),
        note="In the released files the 11 % net also has a larger layer, another decay and 3.3 times the training.",
    ),
    Claim("s3.4-overlap", "3.4", "gain",
        "Pooling over overlapping windows (side 3, stride 2) makes fewer errors than over adjoining ones (side 2, stride "
        "2) with an output of the same size.",
        _gains(0.4, 0.3, (41.058, 18.510), (40.664, 18.210), f"layer-params-147.cfg:174, {RUN_2012}", **TEN_2012),
        note="The sizes agree only with other paddings: run 147 has 1 instead of 2 in conv2 and 0 instead of 1 in conv5.",
    ),
    Claim("s3.4-overfit", "3.4", "result",
        "Nets with overlapping pooling are observed to overfit slightly less easily.",
        (_seen("gap closed", **CENTRAL_UNSAID),),
        direction="A smaller gap between test and training error with overlapping windows than with adjoining ones.",
    ),
    Claim("s4.1-crops", "4.1", "result",
        "Without random patches and reflections the net overfits substantially, which would force much smaller nets.",
        (_seen("top-1 gain", **TEN_UNSAID), _seen("gap closed", **CENTRAL_UNSAID)),
        direction="Without them a higher test error and a wider gap between test and training error.",
    ),
    Claim("s4.1-pca", "4.1", "gain",
        "Shifting the colours of each image along the principal components of RGB lowers top-1 error by over a point.",
        (Value("top-1 gain", 1.0, "points", GAIN, bound="at least", **TEN_UNSAID),),
        note="No 2012 run measures it, and the paper does not say on which year or split.",
    ),
    Claim("s4.2-dropout", "4.2", "result",
        "Without dropout in the first two fully-connected layers the net overfits substantially.",
        (_seen("top-1 gain", **TEN_UNSAID), _seen("gap closed", **CENTRAL_UNSAID)),
        direction="Without dropout a wider gap between test and training error, and a higher test error.",
    ),
    Claim("s4.2-dropout-cost", "4.2", "result",
        "Dropout about doubles the iterations that training needs to converge, and so its cost.",
        (Value("iterations to converge", 2.0, "ratio", 2 * RATIO, dataset=ANY_ILSVRC, split="train"),),
    ),
    Claim("s5-decay", "5", "result",
        "A little weight decay matters for learning itself: it lowers the training error, and not only as a regulariser.",
        (_seen("top-1 training gain", **CENTRAL_UNSAID | {"split": "train"}),),
        direction="A lower training error with a decay of 0.0005 than with none.",
    ),
    Claim("s7-depth", "7", "gain",
        "Removing any one of the middle layers costs about two points of top-1 error.",
        (Value("top-1 gain", 2.0, "points", WHOLE_GAIN, **TEN_UNSAID),),
        "A loss for each of the middle layers removed in turn.",
        note="No 2012 run removes a layer, and the paper says neither which layers are meant nor on which year or split.",
    ),
)

# Figures 1, 3 and 4
register(
    Claim("fig1-relu", "3.1, figure 1", "figure",
        "A four-layer net with ReLUs reaches 25 % training error on CIFAR-10 six times sooner than with tanh, each at the "
        "rate that makes it fastest and without regularisation.",
        (
            Value("tanh epochs over ReLU epochs", 6.0, "ratio", 6 * RATIO, dataset="cifar10", split="train", views="whole"),
            Value("training error of the comparison", 0.25, "constant", dataset="cifar10", split="train", views="whole"),
        ),
        looser="ReLU nets learn consistently several times faster; how much depends on the architecture.",
        note="The curves cross the line near epochs 6 and 36, as others read the figure. No released file names the net.",
    ),
    Claim("fig3-kernels", "6.1, figure 3", "figure",
        "The first layer learns kernels for frequency and orientation and blobs of colour, divided between the GPUs.",
        (
            Value("kernels", 96, "count"),
            Value("kernels", 48, "count", subject="one GPU"),
            Value("side of a kernel", 11, "px"),
            Value("colours of a kernel", 3, "count"),
            Value("runs with a grey and a coloured column", 100, "% of runs", dataset=ANY_ILSVRC, split="train"),
        ),
        "In every run, whatever the initial weights: one column's kernels largely without colour, the other's largely of "
        "colour (which of the two is a matter of numbering).",
    ),
    Claim("fig4-labels", "6.1, figure 4", "figure",
        "The five most probable labels of eight ILSVRC-2010 test images are mostly plausible, even off centre.",
        (
            Value("images", 8, "count", dataset="ilsvrc2010", split="test"),
            Value("labels of an image", 5, "count"),
        ),
        "Alternatives of the kind of the true label (for a leopard, other cats); ambiguous images mistaken.",
    ),
    Claim("fig4-neighbours", "6.1, figure 4", "figure",
        "Training images whose vectors in the last hidden layer are nearest to a test image's show the same in other poses.",
        (
            Value("test images", 5, "count", dataset="ilsvrc2010", split="test"),
            Value("neighbours of an image", 6, "count", dataset="ilsvrc2010", split="train"),
            Value("length of a vector", 4096, "count"),
            _seen("neighbours of the true class, in fc7 over in pixels", "ratio", dataset="ilsvrc2010", split="test"),
        ),
        "Neighbours of the same class more often than neighbours in pixels, and not close in pixels themselves.",
        note="Distances are Euclidean. An auto-encoder to short binary codes would speed the search, says the paper.",
    ),
)
