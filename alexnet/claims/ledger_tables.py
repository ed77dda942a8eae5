"""The ledger's page: the rows of `ledger.py` as tables of three columns, which a phone can show."""

import re
from pathlib import Path

from IPython.display import Markdown

from alexnet.claims.ledger import NOT_PINNED, ROWS, Row, grey_levels
from alexnet.claims.tables import numbered


def table(topic: str) -> Markdown:
    """Return the rows of a topic: what the paper says, what the 2012 source does, what we do and the test that pins it."""
    rows = [(_paper(row), _source(row), f"{row.ours} *[{pinned(row)}]*") for row in ROWS if row.topic == topic]
    headers = ("the paper (section)", "the 2012 source", "we, *and the test*")
    return numbered(rows, headers, f"The ledger: {topic.lower()}.", f"tbl-ledger-{topic.split()[0].lower()}")


def _paper(row: Row) -> str:
    return f"{row.paper} ({row.section})" if row.section else row.paper


def _source(row: Row) -> str:
    """Return what the source does, with the lines of each file. Plain text, which a narrow column can break at hyphens."""
    lines: dict[str, list[str]] = {}
    for place in filter(None, row.source_file.split(", ")):
        file, line = place.split(":")
        lines.setdefault(file, []).append(line)
    return " ".join([row.source2012, *(f"({file}: {', '.join(of_file)})" for file, of_file in lines.items())])


def pinned(row: Row) -> str:
    """Return the name of a row's test as the sentence that it is, after the name of its module."""
    if row.test == NOT_PINNED:
        return NOT_PINNED
    file, name = row.test.split("::")
    return f"{Path(file).stem}: {name.removeprefix('test_').replace('_', ' ')}"


def noise_table() -> Markdown:
    """Return the colour noise on ILSVRC's pixels in both readings of section 4.1."""
    rows = [
        (number, f"{deviation:.1f}", f"{literal:,.0f}")
        for number, (deviation, literal) in enumerate(zip(grey_levels(False), grey_levels(True), strict=True), start=1)
    ]
    headers = ("component", "by deviations (2012)", "by eigenvalues (the text)")
    caption = "Deviation of the colour noise on ILSVRC's pixels, in grey levels of 0 to 255."
    return numbered(rows, headers, caption, "tbl-noise")


def numbers() -> dict[str, str]:
    """Return the texts that the page takes its numbers from."""
    return {
        "rows": str(len(ROWS)),
        "silent": str(sum(not row.section for row in ROWS)),
        "pinned": str(sum(row.test != NOT_PINNED for row in ROWS)),
        "noise-deviations": f"{grey_levels(False)[0]:.1f}",
        "noise-eigenvalues": f"{grey_levels(True)[0]:,.0f}",
    }


def is_source_place(text: str) -> bool:
    """Return whether `text` names a file of the 2012 source and its lines."""
    return re.fullmatch(r"[\w./-]+\.(cfg|py|cu):\d+(-\d+)?", text) is not None
