"""The network's chapter: its tables against numbers from the paper and by hand, and its figure."""

from matplotlib.patches import FancyBboxPatch

from alexnet.claims import network
from alexnet.model import presets


def cells(table):
    """Rows of a table by their first cell, which is left out; the rest without blanks."""
    lines = [line.strip("|").split("|") for line in table.data.splitlines() if line.startswith("|")][2:]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def test_layers_are_those_of_the_text_and_of_config_145():
    rows = cells(network.layers_table())
    assert list(rows)[:2] == [
        "conv1: 48 kernels of 11x11x3, stride 4, no padding",
        "conv2: 128 kernels of 5x5x48, stride 1, padding 2",
    ]
    assert rows["conv3: 192 kernels of 3x3x256, stride 1, padding 1"] == [
        "ReLU; weights of deviation 0.01, biases 0",
        "ReLU; weights of deviation 0.03, biases 0",
    ]
    assert rows["fc7: 2,048 units that see 4,096 values"][1] == "the same"


def test_neurons_stand_beside_the_caption_and_only_the_first_differs():
    rows = cells(network.sides_table())
    assert rows["conv1"] == ["96 maps of 55x55, pooled to 27x27", "290,400", "253,440: higher than the paper"]
    assert rows["conv5"][0] == "256 maps of 13x13, pooled to 6x6"
    assert [name for name, row in rows.items() if "higher" in row[-1]] == ["conv1"]
    assert rows["all"][1:] == ["659,272", "622,312"]


def test_parameters_add_up_for_both_nets():
    rows = cells(network.parameters_table())
    for column in (0, 2):
        counts = [int(row[column].replace(",", "")) for row in rows.values()]
        assert sum(counts[:-1]) == counts[-1] == (60_965_224, None, 59_798_312)[column]
    assert (rows["conv3"][1], rows["fc6"][1]) == ("1.45%", "61.93%")


def test_statements_that_are_false_are_called_so():
    verdicts = {sentence: row[-1] for sentence, row in cells(network.statements_table()).items()}
    false = [sentence for sentence, verdict in verdicts.items() if verdict != "agrees"]
    assert [sentence.split(" (")[0] for sentence in false] == [
        "The first layer has 253,440 neurons.",
        "No convolutional layer has more than 1 % of the parameters.",
        "Crops and reflections multiply the training set by 2048.",
    ]


def test_bytes_are_those_of_the_maps_that_cross():
    rows = cells(network.exchange_table())
    assert rows["conv3: 128x13x13"] == [f"{128 * 13 * 13 * 4:,}"] * 2
    total = 4 * (128 * 13 * 13 + 128 * 6 * 6 + 2048 + 1000)
    assert rows["an image"] == [f"{total:,}", f"{total - 4000:,}"]
    assert rows["a step of 128 images"][0] == f"{total * 128 / 1e6:.1f} MB"


def test_ablations_are_shown_as_changes_of_the_config():
    rows = cells(network.ablations_table())
    assert rows["`no-dropout`"] == ["dropout 0.5 → 0", "60,965,224"]
    assert "conv5.kernels 128 → 256" in rows["`one-column`"][0]
    assert "exchange conv3 fc6 fc7 → nothing" in rows["`no-exchange`"][0]
    assert set(rows) == {f"`{name}`" for name in presets.ABLATIONS}


def test_every_column_and_what_crosses_is_in_the_figure():
    """Two columns of seven boxes, the image and the sum; arrows of each layer and column, and twice those that cross."""
    for config, boxes, arrows in ((presets.paper(), 16, 22), (presets.one_column(presets.paper()), 9, 8)):
        (axes,) = network.figure2(config).axes
        assert sum(isinstance(patch, FancyBboxPatch) for patch in axes.patches) == boxes
        assert sum(note.arrow_patch is not None for note in axes.texts if hasattr(note, "arrow_patch")) == arrows
    texts = [text.get_text() for text in network.figure2(presets.paper()).axes[0].texts]
    assert texts.count("conv2: 128 of 5x5\n27x27, then 13x13") == 2
    assert "image\n224x224x3" in texts


def test_what_the_prose_takes_is_what_the_tables_show():
    texts = network.numbers("toy")
    assert texts["places"] == "54.25"
    assert texts["slip"] == "253,440 = 55 x 48 x 96"
    assert texts["large"] == "conv3 (1.45%) and conv4 (1.09%)"
    assert (texts["one-share"], texts["fc6-share"]) == ("98%", "62%")
