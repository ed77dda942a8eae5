"""The ledger as data: where the paper and the 2012 source differ or are silent, what each preset does, and what pins it.

`ROWS` has a row for each such place. Numbers of ours are computed from the presets and the configs' defaults, which are the
2012 notes'.
"""

import re
from dataclasses import dataclass

import numpy as np

from alexnet.config import Optimiser, Schedule
from alexnet.model.presets import (
    CONV,
    count_neurons,
    paper,
    sides,
    source2012,
    with_sixth_layer,
    without_exchange,
    without_overlap,
)
from alexnet.paper.arithmetic import layer_parameters
from alexnet.preprocessing.augment import PAPER, SOURCE2012, colour_axes, num_views

NOT_PINNED = "not pinned"


@dataclass(frozen=True)
class LedgerRow:
    """One place where the paper, the 2012 source and we need not agree."""

    topic: str
    section: str  # of the paper; "" where it has no word on it
    paper: str
    source2012: str
    source_file: str  # file:line, several separated by commas; "" where the text says what there is
    ours: str  # both presets where they differ
    test: str  # room::function, to be found below tests/room; or NOT_PINNED


# Standard deviations of the colours of ILSVRC's training pixels along their principal components, least first, in grey
# levels, as in cuda-convnet2's make-data/input_meta (color_pca).
COLOUR_SDS = (19.7208, 37.0939, 121.7801)


def grey_levels(literal: bool) -> list[float]:
    """Return the sd of the colour noise along each principal component of ILSVRC's colours, main axis first.

    `literal` multiplies by eigenvalues, as section 4.1 says, in place of their square roots.
    """
    axes = colour_axes(np.diag(np.square(COLOUR_SDS)), literal)
    return [float(PAPER.noise * np.linalg.norm(axis)) for axis in axes.T[::-1]]


def is_source_place(text: str) -> bool:
    """Return whether `text` names a file of the 2012 source and its lines."""
    return re.fullmatch(r"[\w./-]+\.(cfg|py|cu):\d+(-\d+)?", text) is not None


MODEL, IMAGES, TRAINING, HERE = (f"{room}::test_" for room in ("model", "preprocessing", "training", "paper"))

_ours, _theirs, _side, _notes = paper(), source2012(), sides(paper()), Schedule()
_shares = {name: n / sum(layer_parameters(_ours).values()) for name, n in layer_parameters(_ours).items() if name in CONV}
_large = " and ".join(f"{name} has {share:.2%}" for name, share in _shares.items() if share > 0.01)
_unrounded = (_ours.image_side - _ours.conv1.side) / _ours.conv1.stride + 1
_touching, _conv6, _apart = sides(without_overlap(_theirs)), with_sixth_layer(_theirs).conv6, without_exchange(_theirs)
_drops = ", ".join(f"{fraction:.0%}" for fraction in _notes.drops)

# fmt: off
# Why: a row reads as a line of a table.
SIZES = [
    ("3.5", "The input has 224x224 pixels, conv1 kernels of 11 and a stride of 4. No padding is printed: that makes "
     f"{_unrounded:g} places a side.", "Rounds up: the last kernel sees three zeros beyond the right and the bottom edge.",
     "layer.py:1004", f"Both presets: as 2012, {_side['conv1']} places.",
     MODEL + "conv1_is_three_zeros_right_and_bottom_of_224_pixels"),
    ("4.1", "A footnote gives the patches as the reason for 224; others read 227.", "A crop has 256 pixels less two equal "
     "borders: always an even side, so 227 cannot occur.", "convdata.py:120-121",
     f"Both presets: {PAPER.crop_side}, as printed.", HERE + "224_pixels_shrink_as_in_figure_2"),
    ("3.5", "No padding and no stride is printed for conv2 to conv5.", "Padding 2, 1, 1, 1 and stride 1.",
     "layers-145.cfg:65, layers-145.cfg:135, layers-145.cfg:163, layers-145.cfg:192", "Both presets: as 2012.",
     HERE + "each_convolutional_layer_has_the_kernels_that_the_text_lists"),
    ("", "Nothing on windows that run over the edge.", "Rounds up. With side 3 and stride 2 it makes no difference in "
     "this net; with side 2 it does.", "layer.py:1164", "Both presets: as 2012.",
     MODEL + "pooling_takes_the_largest_of_each_window_over_the_edge_too"),
    ("figure 2", "The first layer has 253,440 neurons.", "48 kernels at 55x55 places in each column.", "layers-145.cfg:9",
     f"{count_neurons(_ours)['conv1']:,}. The caption's number is 55x48x96: a column's kernels in place of a side.",
     HERE + "253_440_neurons_in_the_first_layer_are_a_slip"),
    ("abstract", "The net has 650,000 neurons.", "The same sizes.", "layers-145.cfg:9",
     f"{sum(count_neurons(_ours).values()):,}, which rounds to 660,000.",
     HERE + "it_is_false_that_the_net_has_650_000_neurons"),
    ("1", "No convolutional layer has more than 1 % of the parameters.", "The same sizes.", "layers-145.cfg:135",
     f"False: {_large}.", HERE + "it_is_false_that_no_convolutional_layer_has_over_one_percent_of_the_parameters"),
    ("3.5", "The last layer sees all neurons of the one before.", "It stands on one of the two GPUs.",
     "layers-145.cfg:294-299", "Both presets: split between the columns, each with the weights of its own inputs; the "
     "products are added, which is the same sum.",
     MODEL + "columns_meet_four_times"),
    ("6.1", "The net has two layers connected to the data.", "One. Earlier nets fed a blurred image to conv2 as well; the "
     "sentence is left over from them.", "layers-145.cfg:9", "Both presets: only conv1 sees the image.",
     HERE + "only_the_first_layer_sees_the_image"),
]
NORMALISATION = [
    ("3.3", "Alpha multiplies the sum over n maps.", "Alpha is first divided by n.", "layer.py:1183",
     f"`paper`: alpha is {_ours.norm.alpha:g}. `source2012`: {_theirs.norm.alpha / _theirs.norm.size:g} in effect, which is "
     "what libraries compute.",
     MODEL + "the_literal_reading_multiplies_the_plain_sum_and_the_2012_reading_divides_alpha_by_n"),
    ("3.3", "The sum runs from i - n/2 to i + n/2, over a layer's N kernels.", "n maps, two on each side, among the kernels "
     "of one column only.", "layers-145.cfg:35, layers-145.cfg:95", "Both presets: windows stay in a column.",
     MODEL + "normalisation_of_one_column_ignores_the_other"),
    ("3.3", "k is 2 and beta 0.75.", "The same (minDiv and pow) in this net; the CIFAR-10 nets of the same code have k = 1.",
     "layer-params-145.cfg:137-155", f"Both presets: {_ours.norm.k:g} and {_ours.norm.beta:g}.",
     HERE + "the_constants_are_k_2_n_5_alpha_1e_4_and_beta_three_quarters"),
    ("", "Nothing on an even n.", "No net of the tables has one.", "", "One map more before than after, as torch has it.",
     MODEL + "torch_has_the_2012_reading_and_the_literal_one_with_alpha_times_n"),
    ("3.3", "Normalisation follows the ReLU in layers 1 and 2.", "In layer 1 it comes before, on signed values: "
     "convolution, normalisation, pooling, ReLU.", "layers-145.cfg:35-54", "`paper`: ReLU first. `source2012`: as 2012.",
     MODEL + "in_the_2012_source_layer_1_is_normalised_before_its_relu_and_layer_2_twice"),
    ("", "Nothing on a third normalisation.", "A second one follows in layer 2: over the 5x5 neighbours in the same map.",
     "layers-145.cfg:107",
     "`paper`: none. `source2012`: as 2012.", MODEL + "normalisation_within_maps_is_the_formula_with_zeros_outside"),
    ("", "Nothing on its border.", "That one divides its alpha by the 25 places also at the border.", "layer.py:1183",
     "`paper`: none. `source2012`: as 2012.", MODEL + "alpha_within_maps_is_divided_by_the_window_also_at_the_border"),
    ("3.5", "Layer 5 is convolution, ReLU, pooling.", "Convolution, pooling, ReLU: the same values.", "layers-145.cfg:220",
     "`paper`: ReLU first. `source2012`: pooling first.", MODEL + "a_net_computes_what_loops_in_float64_compute"),
]
START = [
    ("5", "Weights begin with a standard deviation of 0.01 in each layer.", "0.03 in conv3, conv4 and conv5.",
     "layers-145.cfg:135, layers-145.cfg:163, layers-145.cfg:192",
     f"`paper`: {_ours.conv3.sd:g} everywhere. `source2012`: {_theirs.conv3.sd:g} in these three.",
     HERE + "weights_begin_with_a_standard_deviation_of_0_01_in_each_layer"),
    ("6", "A sixth convolutional layer over the last pooling, without sizes.", "128 kernels of 3x3 in each of two columns, "
     "which see both; padding 1, standard deviation 0.03, biases 1 (#146).", "layers-146-2009.cfg:258-269",
     f"As 2012: {_conv6.kernels} kernels of {_conv6.side}x{_conv6.side} a column. `paper`: standard deviation "
     f"{with_sixth_layer(_ours).conv6.sd:g}, as in each of its layers. `source2012`: {_conv6.sd:g}.",
     MODEL + "the_sixth_layer_is_that_of_146"),
    ("", "Nothing on narrower nets.", "None.", "",
     "At our small scales standard deviations grow by the root of what the fan-in shrinks by, so that activities begin at "
     "the same scale.",
     MODEL + "half_width_is_half_of_every_count_and_sds_grow_where_the_fan_in_halves"),
]
UPDATES = [
    ("5", "The velocity holds the rate.", "The same, also when the rate drops.", "src/weights.cu:146-197", "Both presets: "
     "as printed. Libraries put the rate outside, which differs for some steps after a drop.",
     TRAINING + "at_a_constant_rate_it_equals_torchs_form_and_after_a_drop_it_does_not"),
    ("5", "One learning rate for all layers; biases are not told apart.", "Biases move at twice the rate of weights "
     "(epsB and epsW in the parameter files).", "",
     f"`paper`: equal. `source2012`: biases {Optimiser().bias_rate_factor:g} times.",
     TRAINING + "biases_move_at_twice_the_rate_and_do_not_decay"),
    ("5", "The rule decays whatever it moves.", "Weights only: biases are built without decay (src/layer.cu).", "",
     "`paper`: all parameters. `source2012`: weights only.", TRAINING + "the_papers_rule_decays_biases_too"),
    ("5", "The rate is divided by 10 by hand when the validation error stops improving, three times in about 90 epochs.",
     "By hand too: at epochs 23, 51 and 78 of 93 for table 1 (notes of layer-params-145-2010.cfg).", "",
     f"`source2012`: at {_drops} of the epochs. `paper`: at a plateau.",
     TRAINING + "the_fractions_give_the_epochs_of_the_2012_run_notes_within_one"),
    ("5", "All rates drop three times.", "Known from the last values only: biases end at 0.002, one drop, in table 1's net, "
     "and at 0.02, no drop, in table 2's.", "layer-params-145-2010.cfg:19, layer-params-145.cfg:19",
     f"`paper`: biases follow every drop. `source2012`: the first {_notes.bias_drops} only, as table 1's net; that it was "
     "the first of the three is a guess.", TRAINING + "the_fractions_give_the_epochs_of_the_2012_run_notes_within_one"),
    ("5", "Does not say when an error has stopped improving.", "A person decided.", "",
     f"`paper`: {_notes.patience} epochs without a new lowest validation error, a guess; a fourth time ends the training. "
     "`source2012`: does not ask.",
     HERE + "the_plateau_of_the_preset_paper_is_three_epochs_and_drops_every_rate"),
    ("5", "One learning rate for all layers, all the time.", "conv1 drops ahead of the rest (epoch 68 of 93), then stands "
     "still (72), by the same notes.", "", f"`paper`: never. `source2012`: at {_notes.conv1_drop:.0%} and "
     f"{_notes.conv1_freeze:.0%}.", TRAINING + "the_fractions_give_the_epochs_of_the_2012_run_notes_within_one"),
    ("", "Nothing on a rate of zero.", "The update is skipped: the layer stands still at once, whatever its velocity.",
     "src/weights.cu:148", "Both presets: as 2012.", HERE + "a_rate_of_zero_stops_a_layer_at_once"),
    ("4.1", "Colour noise at every use of an image.", "Off from epoch 68 of 93, by the same notes.", "",
     f"`paper`: always on. `source2012`: off from {_notes.conv1_drop:.0%}.",
     TRAINING + "the_fractions_give_the_epochs_of_the_2012_run_notes_within_one"),
    ("", "Nothing on the order of images.",
     "Images come in the same order each epoch: the line that permutes them is commented out.",
     "convdata_jpeg.py:262", "Both presets: a new order each epoch.",
     IMAGES + "a_batch_is_a_function_of_seed_epoch_and_step"),
]
IMAGE_ROWS = [
    ("2", "The shorter side is scaled to 256; no filter is named.", "Reads JPEGs already scaled; what scaled them is not "
     "released.", "", "Pillow's bicubic, which widens with the reduction so that it does not alias.",
     IMAGES + "the_shorter_side_is_scaled_without_aliasing_and_the_centre_is_kept"),
    ("2", "The central 256x256.", "Cut before; not released.", "", "An odd margin leaves its extra pixel right or below.",
     IMAGES + "an_odd_margin_leaves_its_extra_pixel_right_or_below"),
    ("", "Nothing on turned photographs.", "Not released.", "",
     "EXIF orientation is honoured: pictures stand as a viewer shows them.",
     IMAGES + "the_camera_s_orientation_is_undone"),
    ("", "Nothing on images that are not RGB.", "Not released.", "",
     "Grey is repeated, CMYK and palettes are converted, 16 bits scaled; what is "
     "transparent shows white.", IMAGES + "every_mode_becomes_rgb"),
    ("", "Nothing on how images are kept.", "As JPEGs (of quality 85, by a folder's name).",
     "fix-big-imgnet.py:7, fix-big-imgnet.py:10",
     "Kept raw; very large sets as JPEGs of quality 95.",
     IMAGES + "a_form_is_chosen_by_size_and_said_and_kept_when_a_call_is_repeated"),
    ("4.1", "Crops and reflections multiply the set by 2048.", "Offsets are 0 to 32 inclusive.", "convdata_jpeg.py:238-246",
     f"Both presets: {num_views(PAPER):,} views, 33x33x2.", IMAGES + "there_are_2178_views_where_the_paper_prints_2048"),
    ("4.1", "Patches are random.", f"One crop and reflection for {SOURCE2012.images_per_decision} images in a row.",
     "convdata_jpeg.py:77, convdata_jpeg.py:238-246", "`paper`: for each image. `source2012`: as 2012.",
     IMAGES + "32_consecutive_images_share_a_decision_in_the_2012_source_and_none_in_the_paper"),
    ("2", "The mean over the training set is subtracted from each pixel.", "The mean image's centre is subtracted from "
     "every crop, wherever it was cut.", "convdata_jpeg.py:95, convdata_jpeg.py:209-211",
     "`paper`: the crop's own part. `source2012`: the centre.", IMAGES + "which_part_of_the_mean_is_subtracted"),
    ("4.1", "Colour noise is in proportion to the eigenvalues.", "To their square roots, the standard deviations.",
     "convdata_jpeg.py:57-66", f"Both presets: standard deviations, {grey_levels(False)[0]:.1f} grey levels on the main "
     f"axis. Eigenvalues would give {grey_levels(True)[0]:,.0f}, of 255.", IMAGES + "the_noise_on_the_main_axis"),
    ("", "Nothing on a division.", "Training images are then divided by 1.1, test images not.", "convdata_jpeg.py:155-179",
     f"`paper`: not divided. `source2012`: by {1 + SOURCE2012.noise:g}.",
     IMAGES + "colour_noise_is_one_colour_an_image_and_then_a_division"),
]
TESTING = [
    ("4.2", "Outputs are zero with probability 0.5; at test time all are halved.", "The same: none is scaled in training.",
     "src/layer.cu:1118-1150", "Both presets: as printed. Libraries double in training instead, which changes the start of "
     "fc7 and fc8.",
     MODEL + "dropout_zeroes_and_does_not_rescale_in_training_and_halves_at_test_time"),
    ("4.2", "In the first two fully-connected layers.", "On the outputs of fc6 and fc7, not on pooled maps.",
     "layers-145.cfg:238, layers-145.cfg:266", "Both presets: as 2012.",
     HERE + "dropout_is_in_the_first_two_fully_connected_layers"),
    ("6", "Predictions of several nets are averaged.", "Weights tuned on the validation set in steps of .05 (avg-valid.py); "
     "which rows used them is unknown.", "", "Equal weights, as the text says.", HERE + "several_nets_have_equal_weights"),
    ("3.2, 3.3, 3.4", "Gains are printed without a data set.", "By the notes, 3.2 is on ILSVRC-2010's test set, 3.3 and 3.4 "
     "on ILSVRC-2012's validation set.", "layer-params-145-2010.cfg:178, layer-params-145.cfg:182",
     "Each claim carries its set, and only the same set is compared.",
     HERE + "gains_are_the_differences_of_2012_runs_to_the_last_printed_digit"),
    ("", "Nothing on batches at test time.", "Not looked into.", "",
     "Evaluation shows a net the same number of images at a time in every run, so that counts do not depend on the batch.",
     TRAINING + "a_net_sees_pieces_of_one_size_and_the_rest"),
    ("", "Nothing on ties.", "Not looked into.", "", "Ties, and values that are not numbers, count as errors.",
     TRAINING + "ties_at_the_first_and_at_the_fifth_place_count_against_us"),
    ("", "Nothing on precision.", "fp32 throughout.", "",
     "fp32, or bf16 where a machine multiplies it faster: what was asked for and what was taken is recorded with a run.",
     TRAINING + "what_is_asked_for_is_taken_unmeasured"),
    ("", "Nothing on sums in half precision.", "None is.", "", "Under bf16 the squares of response normalisation are summed "
     "in fp32.", MODEL + "squares_are_summed_in_fp32_under_bf16"),
    ("", "Nothing on the precision of logits.", "fp32.", "", "Errors are counted from logits in fp32 also under bf16, in "
     "which the largest ones often tie.", MODEL + "in_bf16_logits_are_the_fp32_products_of_the_last_layer_and_do_not_tie"),
    ("", "Nothing on the precision of tanh.", "fp32.", "",
     "Figure 1's tanh takes its derivative in fp32 under bf16, which would "
     "round it to zero.", MODEL + "bf16_does_not_silence_a_saturated_tanh"),
]
CHANGED = [
    ("3.4", "Pooling without overlap has outputs of equivalent size.", "Only with other paddings: 1 in conv2, none in conv5 "
     "(#147).", "layers-147.cfg:69, layers-147.cfg:195", f"As 2012: {' → '.join(str(n) for n in _touching.values())}.",
     MODEL + "147_has_windows_that_touch_and_ends_in_the_same_six_pixels"),
    ("3.3", "The gain of response normalisation.", "The net without it lacks all three normalisations, the unpublished one "
     "too (#148).", "layer-params-148.cfg:148", "As 2012: all of a preset's go.",
     MODEL + "148_removes_every_normalisation_and_nothing_else"),
    ("3.2", "The one-GPU net has half the kernels, except in the last convolutional layer.", "The same (#145-half).",
     "layers-145-half.cfg:100-103", "As 2012.", MODEL + "one_column_is_145_half"),
    ("", "Nothing on columns that never meet.", "conv2 has 160 kernels a column and fc6 4096 units; fc7 keeps 2048 (#150).",
     "layers-150.cfg:65-68, layers-150.cfg:238-279",
     f"As 2012: {_apart.conv2.kernels} kernels, {_apart.fc6.units:,} and {_apart.fc7.units:,} units.",
     MODEL + "150_has_columns_that_never_meet_before_the_logits"),
    ("7", "Removing any middle layer costs about 2 %.", "No run removes a layer.", "", "Kernels, activation and "
     "normalisation go; the pooling stays, and an exchange moves to the next layer. A guess.",
     MODEL + "a_removed_layer_leaves_sides_and_exchange_as_they_were"),
    ("3.1", "Figure 1's net has four layers.", "Two published nets fit the words: 19pct and conv-local-13pct.", "",
     "Both are run.", MODEL + "parameters_are_those_of_the_2012_files"),
]
# fmt: on
TOPICS = {
    "Sizes": SIZES,
    "Normalisation": NORMALISATION,
    "Initial values": START,
    "Updates and schedule": UPDATES,
    "Images": IMAGE_ROWS,
    "Dropout and testing": TESTING,
    "Ablations": CHANGED,
}
ROWS: tuple[LedgerRow, ...] = tuple(LedgerRow(topic, *row) for topic, rows in TOPICS.items() for row in rows)
