"""The 2012 run notes: the file is whole, and what is read from it is what the paper prints."""

import pytest

from alexnet.paper import run_notes


def test_the_file_has_131_lines_of_112_runs_and_variants_and_65_results():
    notes = run_notes.frame()
    assert len(notes) == 131
    assert len(notes.drop_duplicates(["run", "variant"])) == 112
    results = notes.dropna(subset=["top1_error"]).drop_duplicates(["nll", "top1_error", "top5_error"])
    assert len(results) == 65
    assert set(notes.views) == {"ten", "central", ""}
    assert notes.source.str.match(r"layers/layer-params-[\w.-]+\.cfg$").all()
    assert notes.top5_error.dropna().between(0.1, 0.5).all()


def test_a_frame_can_be_changed_without_changing_the_notes():
    notes = run_notes.frame()
    notes["run"] = "none"
    assert "145" in set(run_notes.frame().run)


def test_errors_are_those_of_the_nets_of_both_tables():
    assert run_notes.errors("145", "2010") == pytest.approx((37.4727, 16.9987))
    assert run_notes.errors("145", "2012") == pytest.approx((40.664, 18.210))
    assert run_notes.errors("137", "2010", split="test") == pytest.approx((37.6167, 17.1247))


@pytest.mark.parametrize(("asked", "fit"), [(("137", "2010"), 2), (("145", "2013"), 0)])
def test_what_is_not_one_result_is_refused(asked, fit):
    with pytest.raises(ValueError, match=f"{fit} results fit run '{asked[0]}'"):
        run_notes.errors(*asked)


PRINTED = {
    "s3.2-two-gpus": (1.7, 1.2), "s3.3-lrn": (1.4, 1.2), "s3.4-overlap": (0.4, 0.3), "s6-pretraining": (1.7, 1.6),
    "s6-ten-crop": (1.6, 1.3),
}  # fmt: skip


def test_the_pairs_give_the_gains_that_the_paper_prints():
    """But for ten views: the paper prints their rates, 39.0 and 37.5, of which the difference is 1.5."""
    found = run_notes.gains()
    gains = {row.claim: (round(row.top1_gain, 1), round(row.top5_gain, 1)) for row in found.itertuples()}
    assert gains == PRINTED
    assert set(found.data) == {"ilsvrc2010", "ilsvrc2012"}


def test_runs_that_differ_in_their_schedules_alone_spread_over_0_18_points():
    assert run_notes.schedule_spread() == pytest.approx((0.176, 0.098), abs=0.0005)
    assert run_notes.schedule_spread(run_notes.SCHEDULES_ALONE + run_notes.GIVEN_UP)[0] == pytest.approx(0.95, abs=0.005)
