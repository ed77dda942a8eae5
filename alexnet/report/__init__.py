"""What every chapter of the book shares, so that a notebook holds only its own text and its own drawing.

    chapter.py     Chapter: one experiment at one scale as frames, tables, sentences and provenance
    figures.py     style, palette for light and dark, and how a figure reaches the page
    tables.py      Markdown tables, numbered by chapter
    interactive.py figures to handle; links.py: to chapters, to lines of the 2012 source, to tables
    scorecard.py   every claim with the paper's number, the 2012 run notes', ours and the verdict

Nothing here knows a claim by name, and nothing trains.
"""

from alexnet.report import figures, scorecard, tables
from alexnet.report.chapter import Chapter

__all__ = ["Chapter", "figures", "scorecard", "tables"]
