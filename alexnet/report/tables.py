"""Tables of the book as Markdown. Sphinx numbers them by chapter ("Table 6.1"), so that none reads like the paper's own."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from IPython.display import Markdown
from tabulate import tabulate


def markdown(rows: Iterable[Sequence[Any]], headers: Sequence[str]) -> str:
    """Return rows as a Markdown table; a bar inside a cell does not end it, and no line breaks within "40.66 / 18.21 %"."""
    slash = re.compile(r"(?<=\d) / (?=[\d+-])")
    cells = [[slash.sub("\u00a0/\u00a0", str(c)).replace(" %", "\u00a0%").replace("|", "\\|") for c in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


def numbered(rows: Iterable[Sequence[Any]], headers: Sequence[str], caption: str, name: str, look: str = "") -> Markdown:
    """Return a table with a number and a caption, which `{numref}` finds under `name`.

    The page's script gives tables of the look "filterable" a filter, sorting and a button for their rows as CSV.
    """
    options = f":name: {name}\n" + f":class: {look}\n" * bool(look)
    return Markdown(f":::{{table}} {caption}\n{options}\n{markdown(rows, headers)}\n:::")
