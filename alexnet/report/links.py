"""Where the book leads on to: the chapter of a claim, lines of the 2012 source at its commit, tables to download."""

import ast
import json
import os
import re
from functools import cache
from pathlib import Path

import pandas as pd

from alexnet.config import PROJECT_DIR
from alexnet.report.figures import FOLDER

BOOK_DIR = PROJECT_DIR / "book"
SOURCE2012 = "https://github.com/computerhistory/AlexNet-Source-Code"
COMMIT2012 = "2f8b81f76470bf873c865754ad8f4a5e0dbbeb7b"


@cache
def chapters() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the written chapters of `_toc.yml` in their order: name -> (title, ids of the claims that it declares)."""
    names = re.findall(r"^\s*(?:- file|root): *([\w-]+) *$", (BOOK_DIR / "_toc.yml").read_text(), re.M)
    return {name: _head(name) for name in names if (BOOK_DIR / f"{name}.ipynb").is_file()}


def _head(name: str) -> tuple[str, tuple[str, ...]]:
    cells = json.loads((BOOK_DIR / f"{name}.ipynb").read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    title = next(match[1] for text in texts if (match := re.match(r"# (.+)", text)))
    source = next((t for t, c in zip(texts, cells, strict=True) if "parameters" in c["metadata"].get("tags", ())), "")
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    said = {node.targets[0].id: ast.literal_eval(node.value) for node in assigned if isinstance(node.targets[0], ast.Name)}
    return title, tuple(filter(None, (said.get("claim"), *said.get("claims", ()))))


def chapter(name: str) -> str:
    """Return a link to a chapter by the name of its notebook; "" where there is none."""
    return f"[{re.sub(r' *[(].*', '', chapters()[name][0])}]({name})" if name in chapters() else ""


def of_claim(claim: str) -> str:
    """Return a link to the chapter that declares a claim and the fewest others; the claim's id alone where none does."""
    declared = {name: len(claims) for name, (_, claims) in chapters().items() if claim in claims}
    return chapter(min(declared, key=declared.__getitem__)) if declared else f"`{claim}`"


def source(places: str) -> str:
    """Return links to places in the 2012 source, "layer.py:1183, layer-params-145.cfg:182"; .cfg files are below layers/."""
    linked = []
    for place in places.split(", "):
        file, _, lines = place.partition(":")
        path = f"layers/{file}" if file.endswith(".cfg") and "/" not in file else file
        anchor = "#" + "-".join(f"L{line}" for line in lines.split("-")) if lines else ""
        linked.append(f"[{place.removeprefix('layers/')}]({SOURCE2012}/blob/{COMMIT2012}/{path}{anchor})")
    return ", ".join(linked)


def download(frame: pd.DataFrame, name: str, text: str) -> str:
    """Return a link to a table as a CSV file, which is written beside the page's pictures; the text alone outside a book."""
    if (folder := os.environ.get(FOLDER)) is None:
        return text
    frame.to_csv(Path(folder, name), index=False)
    return f"[{text}]({Path(folder).name}/{name})"
