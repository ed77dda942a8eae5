"""The performance chapter, from a record written by hand and from arithmetic."""

import json

import numpy as np
import pytest
from IPython.display import Markdown

from alexnet.claims import performance

HARDWARE = {"processor": "A", "cpu_capability": "AVX2"}
ROW = {"what": "ours", "against": "theirs", "ratio": 2.0, "figures": "2 against 1", "at_least": {"fp32": 1.5, "bf16": 5}}
# 4 GFLOP in 0.1 s where 0.04 s would do; 1 GB in 0.5 s where 0.1 s would do.
LAYERS = [
    {"layer": "conv1", "seconds": 0.1, "operations": 4e9, "bytes": 1e8},
    {"layer": "update", "seconds": 0.5, "operations": 1e6, "bytes": 1e9},
]


def cells(table):
    """Rows of a table, without blanks."""
    lines = [line.strip("|").split("|") for line in table.data.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row] for row in lines]


@pytest.fixture
def bench(tiny, tmp_path):
    """Write what a machine recorded."""

    def write(name="a", **more):
        folder = tmp_path / "runs" / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        record = {"hardware": HARDWARE, "fast_in": "fp32", "threads": 2, "rows": [ROW]} | more
        (folder / f"{name}.json").write_text(json.dumps(record))

    return write


def test_a_ratio_is_judged_by_the_target_of_its_kind_of_machine(bench):
    bench()
    assert cells(performance.bench_table()) == [
        ["**A, AVX2, 2 threads, fast in fp32**", "", "", ""],
        ["ours, against theirs", "2.00", "1.5: met", "2 against 1"],
    ]
    bench(fast_in="bf16")
    assert cells(performance.bench_table())[1][2] == "5: not met"


def test_what_a_cuda_device_does_is_shown_and_not_judged(bench):
    bench(devices=[{"device": "a GPU", "type": "bf16", "rows": [ROW | {"at_least": {}}]}])
    assert cells(performance.bench_table())[2:] == [
        ["**a GPU, in bf16**", "", "", ""],
        ["ours, against theirs", "2.00", "", "2 against 1"],
    ]
    assert "not measured" not in performance.bench_table().data
    bench(devices=[])
    assert "A CUDA device: not measured." in performance.bench_table().data


def test_the_first_record_has_one_target_a_row(bench, tmp_path):
    bench()
    file = tmp_path / "runs" / "bench" / "a.json"
    record = json.loads(file.read_text())
    del record["fast_in"], record["rows"][0]["at_least"]
    record["rows"][0]["target"] = 0.7
    file.write_text(json.dumps(record))
    assert cells(performance.bench_table())[1][2] == "0.7: met"


def test_what_was_not_measured_is_called_so(bench):
    bench()
    tables = performance.layers_table(), performance.profile_table(), performance.measured_growth_table()
    for shown in (*tables, performance.draw_roofline()):
        assert isinstance(shown, Markdown)
        assert "not measured" in shown.data


def test_the_latest_record_says_where_the_time_of_a_step_goes(bench):
    limits = {"gflops": 100, "gb_per_second": 10}
    layers = {"batch": 128, "type": "fp32", "limits": limits, "layers": LAYERS}
    top = [{"operation": "aten::mm", "calls": 13.0, "seconds": 0.02}]
    step = {"batch": 64, "type": "fp32", "seconds": 0.2, "operations": top}
    bench("a", layers=layers, profile=step, date="2026-11-26")
    bench("b", layers=layers, profile=step | {"operations": []}, date="2026-11-25")
    bench("c", layers=layers)  # of before records had dates
    assert cells(performance.profile_table()) == [["`aten::mm`", "13", "20", "10.0%"]]


def test_a_layer_is_held_against_the_slower_of_two_limits(bench):
    limits = {"gflops": 100, "gb_per_second": 10}
    bench(layers={"batch": 128, "type": "fp32", "limits": limits, "layers": LAYERS})
    assert cells(performance.layers_table()) == [
        ["conv1", "100.0", "17%", "40", "40%", "arithmetic"],
        ["update", "500.0", "83%", "0", "20%", "memory"],
    ]
    roof, points = (line.get_xydata() for line in performance.draw_roofline().axes[0].lines)
    assert points.tolist() == [[40, 40], [0.001, 0.002]]
    assert roof[:, 1].max() == 100


def test_half_the_width_has_a_quarter_of_the_work_but_for_the_first_layer():
    rows = {(classes, width): rest for classes, width, *rest in cells(performance.growth_table())}
    assert rows["1,000", "1"][0] == "61.0"
    ratio = float(rows["20", "1"][1]) / float(rows["20", "0.5"][1])
    assert 3 < ratio < 4
    assert float(rows["10,184", "1"][0]) == pytest.approx(float(rows["1,000", "1"][0]) + 9184 * 4097 / 1e6, abs=0.1)


def test_the_machine_of_2012_is_what_its_training_time_says():
    """90 passes over 1.2 million images are 108 million: 250 a second in 5 days of 86,400 s, 208 in 6."""
    found = performance.two_gpus(1.0, 8.0)
    assert found["images-per-second"] == "208 to 250"
    assert found["step-time"] == "512 to 614"
    assert (found["days"], found["epochs"], found["images"]) == ("5 to 6", "90", "1.2")
    slow, fast = (float(part) for part in found["sustained"].split(" to "))
    assert (slow, fast) == pytest.approx((208.3 * float(found["work"]) / 1000, 250 * float(found["work"]) / 1000), abs=0.01)
    assert found["efficiency"] == f"{slow / 2:.0%} to {fast / 2:.0%}"


def test_pairs_gain_less_than_their_number_and_one_pair_is_the_papers():
    rows = cells(performance.pairs_table(0.5))
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    assert rows[0][3:] == ["0", "227", "1.0"]
    assert all(227 < float(row[4]) < 227 * n for row, n in zip(rows[1:], (2, 4, 8), strict=True))
    # A column sends 128 x 13 x 13 + 128 x 6 x 6 + 2048 values and 1000 logits forward, and all but the logits backward.
    sent = 2 * (128 * 13**2 + 128 * 6**2 + 2048) + 1000
    assert rows[0][2] == f"{1000 * 4 * sent * 128 / 0.5e9:.0f}"
    # Half of 61 million weights on each GPU, 4 bytes each, once there and back for two pairs.
    assert rows[1][3] == f"{1000 * 4 * 60_965_224 / 2 / 0.5e9:.0f}"


def test_labels_of_neighbours_are_joined():
    """Of four points, the second and third are within a factor of 1.6 in both directions; the fourth is so in one only."""
    labels = performance._apart(["a", "b", "c", "d"], np.array([1, 10, 12, 13]), np.array([1, 5, 4, 100]))
    assert labels == [("a", 1, 1), ("b, c", 10, 4), ("d", 13, 100)]


def test_measured_growth_is_beside_its_first_row(bench):
    base = {"width": 0.5, "batch": 128, "classes": 20, "seconds": 0.008}
    bench(growth=[base, base | {"classes": 10184, "seconds": 0.01}])
    assert cells(performance.measured_growth_table()) == [
        ["0.5", "128", "20", "8.00", "1.00"],
        ["0.5", "128", "10,184", "10.00", "1.25"],
    ]
