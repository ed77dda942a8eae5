"""What a page says of itself to search engines and to those who share it; and scripts that no page of ours needs."""

import html
import re
import subprocess
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LENGTH = 200  # letters of a description


def describe(doctree: nodes.document | None) -> str:
    """Return the first paragraph of a page that is text, as a description."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split())
        if len(text) > 60 and isinstance(paragraph.parent, nodes.section):
            return text if len(text) <= LENGTH else text[:LENGTH].rsplit(" ", 1)[0] + " ..."
    return ""


def date_of_commit(folder: str) -> str:
    """Return the day and the hash of the commit that is checked out; "" outside a checkout.

    Why not the day of the building: the same sources give the same pages.
    """
    command = ["git", "-C", folder, "log", "-1", "--format=%cs, commit %h"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def head(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add a page's description and its og: tags, and take out the scripts of Thebe, which runs code on a server."""
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    said = {"og:title": html.unescape(title), "og:type": "article", "og:site_name": app.config.html_title}
    said |= {"og:description": describe(doctree), "og:url": f"{app.config.html_baseurl}{page}.html"}
    said |= {"og:image": f"{app.config.html_baseurl}_static/card.png"}
    tags = [f'<meta property="{name}" content="{html.escape(text)}">' for name, text in said.items() if text]
    if said["og:description"]:
        tags.append(f'<meta name="description" content="{html.escape(said["og:description"])}">')
    if app.config.last_commit:
        tags.append(f'<meta name="date" content="{app.config.last_commit[:10]}">')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if "thebe" not in repr(vars(file)).lower()]


def say_when(app: Sphinx, config: Any) -> None:
    """Put the day of the commit below every page."""
    config.last_commit = date_of_commit(app.confdir)
    if config.last_commit:
        config.html_theme_options["extra_footer"] = f"<p>{config.last_commit}. BSD 3-clause licence.</p>"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what happens when the configuration is read, and when a page is written."""
    app.add_config_value("last_commit", "", "html")
    app.connect("config-inited", say_when)
    app.connect("html-page-context", head, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
