import json

from alexnet.claims import repeats

ROW = {"what": "ours", "against": "theirs", "ratio": 2.0, "figures": "", "at_least": {"fp32": 1.5}}
BENCH = {"hardware": {"processor": "A"}, "fast_in": "fp32", "threads": 2}


def test_the_spread_is_over_all_runs_of_the_same_machine(tiny, tmp_path):
    folder = tmp_path / "runs" / "bench"
    (folder / "repeats").mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(BENCH | {"rows": [ROW, {**ROW, "what": "free", "at_least": {}}]}))
    assert "not measured" in repeats.spread_table().data
    for name, machine, ratio in (("a-1", "A", 1.4), ("b-1", "B", 9.0)):
        record = BENCH | {"hardware": {"processor": machine}, "rows": [ROW | {"ratio": ratio}]}
        (folder / "repeats" / f"{name}.json").write_text(json.dumps(record))
    table = repeats.spread_table().data
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ours")
    ]
    assert lines == [["ours, against theirs", "1.5", "1.40 to 2.00", "1 of 2"]]
    assert "free" not in table
