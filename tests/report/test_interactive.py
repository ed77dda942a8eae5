"""Charts: the drawing is there without scripts, and the data cannot end the script that holds them."""

import json
import re

import matplotlib.pyplot as plt

from alexnet.report import figures, interactive

TRACES = [{"type": "scatter", "x": [1], "y": [2], "text": ["</script>"], "marker": {"color": figures.BLUE}}]
SHOWN = (TRACES, {"xaxis": {"title": {"text": "x"}}, "height": 300}, "fig-x", "A caption.", "What one sees.")


def test_a_page_has_the_drawing_and_the_data_of_the_chart(tmp_path, monkeypatch):
    monkeypatch.setenv(figures.FOLDER, str(tmp_path))
    text = interactive.show(plt.figure(), *SHOWN).data
    assert (tmp_path / "fig-x.svg").is_file()
    assert ":alt: What one sees." in text
    found = re.findall(r'<script type="application/json" class="chart" data-figure="fig-x">(.*?)</script>', text)
    (chart,) = map(json.loads, found)
    assert chart["data"] == TRACES
    assert chart["layout"]["height"] == 300
    assert chart["layout"]["xaxis"] == interactive.AXIS | {"title": {"text": "x"}}
    assert chart["dark"] == figures.DARK


def test_a_notebook_opened_by_itself_has_the_drawing_alone(monkeypatch):
    monkeypatch.delenv(figures.FOLDER, raising=False)
    assert "<script" not in interactive.show(plt.figure(), *SHOWN).data


def test_controls_wait_for_their_script_and_say_so_where_there_is_none():
    text = interactive.controls("size", "<output></output>", {"a": "</script>"}, "let b = data.a;").data
    assert '<div class="controls" id="size" hidden>' in text
    assert text.index("let b = data.a;") < text.index("box.hidden = false;")
    assert "<noscript>" in text
    assert text.count("</script>") == 2, "the data's own one would end the script"
