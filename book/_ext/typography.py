"""One space before every sign of percent, whoever wrote the number, and no line that begins with the sign."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class PercentSigns(SphinxPostTransform):
    """Write "95 %" for "95%" in what readers read: not in code and formulas."""

    default_priority = 900

    def run(self, **kwargs: object) -> None:
        """Change the document."""
        aside = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
        for text in list(self.document.findall(nodes.Text)):
            spaced = re.sub(r"(?<=\d) ?%", "\u00a0%", text)
            if spaced != text and not isinstance(text.parent, aside):
                text.parent.replace(text, nodes.Text(spaced))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(PercentSigns)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
