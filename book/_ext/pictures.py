"""Show the rendering of a picture that suits the page: `x.svg` on light pages, and `x-dark.svg`, if there, on dark ones."""

from pathlib import Path

from docutils import nodes
from docutils.transforms import Transform
from sphinx.application import Sphinx


class BothRenderings(Transform):
    """Put the dark rendering of every picture behind the light one; book.css shows one of them."""

    default_priority = 500  # before images are collected (880)

    def apply(self, **kwargs: object) -> None:
        """Change the document."""
        folder = Path(self.document["source"]).parent
        for picture in list(self.document.findall(nodes.image)):
            light = Path(picture["uri"])
            dark = light.with_name(f"{light.stem}-dark{light.suffix}")
            if (folder / dark).is_file():
                other = picture.deepcopy()
                other["uri"] = dark.as_posix()
                # Why not the theme's only-light: it hides the caption too. dark-light: the theme changes no colour.
                picture["classes"] += ["on-light", "dark-light"]
                other["classes"] += ["on-dark", "dark-light"]
                picture.parent.insert(picture.parent.index(picture) + 1, other)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(BothRenderings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
