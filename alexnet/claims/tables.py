"""Tables of the book as Markdown: numbered, referable, readable on a phone.

Each function returns an IPython `Markdown` object for the last line of a notebook's cell.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from IPython.display import Markdown

from alexnet.claims import machine, runs
from alexnet.config import Scale

NOT_RUN = "not run at this scale"


def numbered(rows: Iterable[Sequence[Any]], headers: Sequence[str], caption: str, name: str) -> Markdown:
    """Return a table with a number and a caption, which `{numref}` finds under `name`."""
    table = pd.DataFrame(list(rows), columns=list(headers)).astype(str).to_markdown(index=False, disable_numparse=True)
    return Markdown(f":::{{table}} {caption}\n:name: {name}\n\n{table}\n:::")


def machine_table() -> Markdown:
    """Return what this book was executed on."""
    has, git = machine.hardware(), machine.git_state()
    commit = (
        "not a git checkout" if git["commit"] is None else git["commit"][:12] + (" with changes" if git["dirty"] else "")
    )
    rows = [
        ("processor", f"{has['processor']}, {has['cores']} cores, {has['cpu_capability']}"),
        ("memory", f"{has['memory_gb']} GB"),
        ("devices", ", ".join(has["devices"]) or "none"),
        ("system", has["system"]),
        ("commit", commit),
    ]
    return numbered(rows, ("what", "here"), "The machine on which the notebooks were executed.", "tbl-machine")


def versions_table() -> Markdown:
    """Return the versions this book was executed with."""
    return numbered(machine.versions().items(), ("package", "version"), "Versions.", "tbl-versions")


def runs_table(scale: Scale) -> Markdown:
    """Return every recorded run at `scale` with its cost and its machine."""
    rows = []
    for manifest in runs.manifests(scale):
        part = manifest["parts"][-1]
        rows.append(
            (
                manifest["name"],
                manifest["status"],
                manifest["epochs"],
                f"{manifest['seconds'] / 60:.1f}",
                f"{part['hardware']['processor']}, threads {part['threads']}, {part['precision']['choice']}",
                manifest["config_hash"],
                (part["git"]["commit"] or "none")[:8] + ("*" if part["git"]["dirty"] else ""),
            )
        )
    headers = ("run", "state", "epochs", "minutes", "machine", "config", "commit")
    caption = f"Runs recorded at scale {scale}. A star marks a commit with changes that were not committed."
    return numbered(rows, headers, caption, "tbl-runs")
