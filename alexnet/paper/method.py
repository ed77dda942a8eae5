"""What the paper built and did: data, architecture (section 3, figure 2), training and testing (sections 2, 4 and 5).

What was built or set is a definition, which our net holds by construction; what follows from it is arithmetic, true or
false. `notes2012` is what the released 2012 source has. Where it differs from the paper's value, the ledger owes a row.
Source files: `layers/layers-145.cfg` is the net of the tables; `convdata_jpeg.py`, `layer.py` and `src/` read, shape and
train it.
"""

from alexnet.paper.claims import ANY_ILSVRC, Claim, Value, register

# Kernels of a layer, side of a kernel, maps each one sees, stride. Paper 3.5; no stride is printed for conv2 to conv5.
CONV: dict[str, tuple[int, int, int, int | None]] = {
    "conv1": (96, 11, 3, 4),
    "conv2": (256, 5, 48, None),
    "conv3": (384, 3, 256, None),
    "conv4": (384, 3, 192, None),
    "conv5": (256, 3, 192, None),
}
# Neurons, as the caption of Figure 2 has them. conv1's is a slip: 55 x 48 x 96, one GPU's 48 kernels in place of a side.
NEURONS = {
    "conv1": 253_440, "conv2": 186_624, "conv3": 64_896, "conv4": 64_896, "conv5": 43_264, "fc6": 4096, "fc7": 4096,
    "fc8": 1000,
}  # fmt: skip
# Weights and biases that follow from the sizes above and a 6 x 6 output of conv5; the paper prints their sum, rounded.
PARAMETERS = {
    "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624, "fc6": 37_752_832,
    "fc7": 16_781_312, "fc8": 4_097_000, "all": 60_965_224, "all, one-GPU net": 59_798_312,
}  # fmt: skip
LAYERS_CFG = {"conv3": "layers-145.cfg:135", "conv4": "layers-145.cfg:163", "conv5": "layers-145.cfg:192"}


def _conv_values(layer: str) -> tuple[Value, ...]:
    kernels, side, maps, stride = CONV[layer]
    values = (
        Value("kernels", kernels, "count", subject=layer),
        Value("side of a kernel", side, "px", subject=layer),
        Value("maps of a kernel", maps, "count", subject=layer),
    )
    return values if stride is None else (*values, Value("stride", stride, "px", subject=layer))


# fmt: off
# Why: a claim's id, section and kind are its head and stay on one line.

# Data
register(
    Claim("s2-imagenet", "1, 2", "data",
        "ImageNet holds more than 15 million labelled images in about 22,000 categories.",
        (Value("images", 15e6, "count", bound="at least"), Value("categories", 22_000, "count", 1_000)),
    ),
    Claim("s2-ilsvrc", "2", "data",
        "The competition's subset has about 1000 images in each of 1000 categories: about 1.2 million to train on, 50,000 "
        "to validate and 150,000 to test.",
        (
            Value("categories", 1000, "count", dataset=ANY_ILSVRC),
            Value("images", 1.2e6, "count", 0.1e6, dataset=ANY_ILSVRC, split="train"),
            Value("images", 50_000, "count", dataset=ANY_ILSVRC, split="val"),
            Value("images", 150_000, "count", dataset=ANY_ILSVRC, split="test"),
        ),
    ),
    Claim("s2-ilsvrc2010", "2", "data",
        "Most experiments are on ILSVRC-2010, the only year whose test labels are public.",
        direction="Public test labels for 2010 alone.",
        note="By the 2012 notes the gains of 3.3 and 3.4 were measured on the validation set of ILSVRC-2012.",
    ),
    Claim("s2-preprocessing", "2", "definition",
        "Images are scaled until the shorter side is 256, cropped to the central square, and lose the training set's mean "
        "at each pixel; the net sees raw centred RGB otherwise.",
        (Value("side of an image", 256, "px"),),
    ),
    Claim("s4-ten-bits", "4", "arithmetic",
        "With 1000 classes a label constrains the mapping from image to label by ten bits, few for 60 million parameters.",
        (Value("bits of a label", 10, "bits", 0.5),),
    ),
)

# Architecture (section 3 and figure 2)
register(
    Claim("abstract-size", "abstract, 4", "arithmetic",
        "The net has 60 million parameters and 650,000 neurons.",
        (Value("parameters", 60e6, "count", 5e6), Value("neurons", 650_000, "count", 5_000)),
        note="60,965,224 parameters, which rounds to 60 million. 659,272 neurons, which rounds to 660,000: 650,000 is no "
        "rounding of it, nor of 622,312, the sum with the caption's number for conv1.",
    ),
    Claim("s1-shares", "1", "arithmetic",
        "No convolutional layer holds more than 1 % of the parameters.",
        (Value("largest share of a convolutional layer", 1.0, "% of parameters", bound="at most"),),
        note="conv3 holds 1.45 % and conv4 1.09 %.",
    ),
    Claim("s3.5-layers", "3, 3.5", "definition",
        "Eight layers learn: five convolutional and three fully connected, the last a softmax over 1000 classes.",
        (
            Value("learned layers", 8, "count"),
            Value("convolutional layers", 5, "count"),
            Value("fully-connected layers", 3, "count"),
            Value("classes", 1000, "count"),
        ),
    ),
    Claim("s3.5-architecture", "3.5, figure 2", "definition",
        "Kernels and units of each layer. Every layer but the last ends in ReLUs; conv2, conv4 and conv5 see their own "
        "GPU's maps, conv3 and the fully-connected layers see all.",
        (
            Value("side of the input", 224, "px"),
            *(value for layer in CONV for value in _conv_values(layer)),
            *(Value("units", NEURONS[layer], "count", subject=layer) for layer in ("fc6", "fc7", "fc8")),
        ),
        note="The paper prints no padding. 224 pixels and a stride of 4 give 55 only rounded up (2012 layer.py:1004).",
    ),
    Claim("s3.5-parameters", "3.5, 3.2", "arithmetic",
        "The sizes of the layers decide the number of weights and biases; most are in the first fully-connected layer.",
        tuple(Value("parameters", count, "count", subject=layer) for layer, count in PARAMETERS.items()),
        note="The paper prints only their sum, rounded (abstract-size); these follow from the printed sizes by arithmetic.",
    ),
    Claim("s3.5-objective", "3.5", "definition",
        "Training maximises the mean log-probability of the correct label (multinomial logistic regression).",
        direction="The loss is the mean cross-entropy over the batch.",
    ),
    Claim("fig2-neurons", "figure 2", "arithmetic",
        "The input has 150,528 dimensions, and the layers have the numbers of neurons given in the caption.",
        (
            Value("dimensions", 150_528, "count", subject="input"),
            *(
                Value("neurons", count, "count", subject=layer, notes2012=290_400 if layer == "conv1" else count,
                      notes_source="layers-145.cfg")
                for layer, count in NEURONS.items()
            ),
        ),
        note="conv1 has 55 x 55 x 96 = 290,400 neurons; the caption's number is 55 x 48 x 96.",
    ),
    Claim("s3.2-one-gpu-net", "3.2 footnote", "definition",
        "The net for one GPU has half the kernels, except in the last convolutional layer; fully-connected layers stay.",
        tuple(
            Value("kernels", count, "count", subject=layer, notes2012=count, notes_source="layers-145-half.cfg")
            for layer, count in {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192, "conv5": 256}.items()
        ),
        note="It was meant to have about as many parameters as the other (98 %), so the comparison favours it.",
    ),
    Claim("s3.3-lrn-constants", "3.3", "definition",
        "Response normalisation divides by (k + alpha times the sum of squares over n adjacent maps) to the power beta, "
        "after the ReLU of the first and the second layer; the constants were chosen on a validation set.",
        (
            Value("k", 2.0, "constant", notes2012=2.0, notes_source="layer-params-145.cfg:137-155"),
            Value("n", 5, "count", notes2012=5, notes_source="layers-145.cfg:35"),
            Value("alpha", 1e-4, "constant", notes2012=2e-5, notes_source="layer.py:1183"),
            Value("beta", 0.75, "constant", notes2012=0.75, notes_source="layer-params-145.cfg:137-155"),
        ),
        note="The 2012 source divides alpha by n, normalises layer 1 before its ReLU, and has a third, unpublished "
        "normalisation within each map after the second (layers-145.cfg:107).",
    ),
    Claim("s3.4-pooling", "3.4, 3.5", "definition",
        "Max-pooling windows overlap; they follow both normalised layers and the fifth convolutional one.",
        (Value("side of a window", 3, "px"), Value("stride", 2, "px")),
    ),
)

# Training and testing (sections 4 and 5)
register(
    Claim("s4.1-patches", "4.1", "arithmetic",
        "Training images are random patches and their reflections, which multiplies the training set by 2048.",
        (
            Value("side of a patch", 224, "px"),
            Value("factor", 2048, "count", notes2012=2178, notes_source="convdata_jpeg.py:238-246"),
        ),
        note="2048 is 32 x 32 x 2; the source draws one of 33 offsets each way, once for 32 successive images.",
    ),
    Claim("s4.1-pca-noise", "4.1", "definition",
        "Every use of an image adds to all its pixels multiples of the principal components of the training set's RGB "
        "values, in proportion to the eigenvalues times a Gaussian draw.",
        (Value("standard deviation of a draw", 0.1, "constant", notes2012=0.1, notes_source="convdata_jpeg.py:155-179"),),
        note="The source multiplies by the square root of the eigenvalue and then divides the training image by 1.1.",
    ),
    Claim("s4.1-background", "4.1", "definition",
        "The CPU transforms the next batch of images while the GPUs train on the one before.",
        direction="Batches are made while the net trains on others.",
    ),
    Claim("s4.1-ten-views", "4.1", "definition",
        "At test time the softmax outputs of ten patches are averaged: four corners, the centre, and their reflections.",
        (Value("views", 10, "count"), Value("patches", 5, "count"), Value("side of a patch", 224, "px")),
    ),
    Claim("s4.2-dropout-rule", "4.2", "definition",
        "In the first two fully-connected layers each output is zero with probability 0.5; at test time all are halved.",
        (
            Value("probability of zero", 0.5, "constant"),
            Value("factor at test time", 0.5, "constant"),
            Value("layers", 2, "count"),
        ),
    ),
    Claim("s5-sgd", "5", "definition",
        "Stochastic gradient descent with momentum; decay is part of the step and scaled by the rate.",
        (
            Value("batch size", 128, "count"),
            Value("momentum", 0.9, "constant"),
            Value("weight decay", 5e-4, "constant"),
        ),
        note="The source decays weights and not biases.",
    ),
    Claim("s5-initialisation", "5", "definition",
        "Weights begin as Gaussian draws around zero, biases at one in conv2, conv4, conv5, fc6 and fc7, else at zero.",
        (
            *(
                Value("standard deviation of weights", 0.01, "constant", subject=layer,
                      notes2012=0.03 if layer in LAYERS_CFG else 0.01, notes_source=LAYERS_CFG.get(layer, "layers-145.cfg"))
                for layer in NEURONS
            ),
            *(
                Value("bias", float(layer in ("conv2", "conv4", "conv5", "fc6", "fc7")), "constant", subject=layer)
                for layer in NEURONS
            ),
        ),
    ),
    Claim("s5-rates", "5", "definition",
        "One learning rate for all layers, divided by ten by hand when the validation error stops improving, three times.",
        (
            Value("first rate", 0.01, "constant"),
            Value("divisor", 10, "constant"),
            Value("drops", 3, "count", notes2012=3, notes_source="layer-params-145-2010.cfg"),
        ),
        note="In the 2012 runs biases begin at 0.02, conv1 is lowered early and frozen, colour noise is off at the end.",
    ),
)
