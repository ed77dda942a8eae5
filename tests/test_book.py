"""The notebooks: sources without outputs, declared parameters, what is executed again and why, nbval on toy copies."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest

from alexnet import files
from alexnet.config import PROJECT_DIR, UserError, to_dict
from alexnet.experiments import EXPERIMENTS, artefacts, plan, results, runs
from alexnet.experiments.declare import QUESTIONS
from alexnet.experiments.rate_search import Search
from alexnet.experiments.scales import table
from alexnet.model import num_columns_of
from alexnet.paper import CLAIMS
from alexnet.paper.ledger import ROWS
from alexnet.preprocessing import SETS
from alexnet.report import Chapter
from alexnet.report.chapter import REPOSITORY

BOOK = PROJECT_DIR / "book"
sys.path[:0] = [str(BOOK), str(PROJECT_DIR / "tests")]
import browser  # noqa: E402
import make as book  # noqa: E402

SOURCES = [BOOK / f"{name}.ipynb" for name in book.chapters()]


def by_name(path):
    return path.stem


def code_of(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def written(tmp_path, cells):
    """Write a notebook of code cells, the first tagged as parameters, and return its path."""
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    file = tmp_path / "chapter.ipynb"
    nbformat.write(notebook, file)
    return file


def executed_alone(source, target):
    """Execute a notebook in a process of its own, and return the last line of what it says when it fails."""
    code = (
        "import sys, make; from pathlib import Path; make.own_the_environment(); "
        "make.execute(*map(Path, sys.argv[1:]), {'scale': 'toy'})"
    )
    done = subprocess.run([sys.executable, "-c", code, source, target], capture_output=True, text=True, cwd=BOOK)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_every_notebook_is_in_the_table_of_contents_and_there():
    assert all(path.is_file() for path in SOURCES)
    assert SOURCES[0].stem == "intro"
    assert len(set(SOURCES)) == len(SOURCES) >= 7


def test_the_repository_is_named_once_for_pages_and_once_for_links():
    assert f"repository_url: {REPOSITORY}\n" in (BOOK / "_config.yml").read_text()


@pytest.mark.parametrize("path", SOURCES, ids=by_name)
def test_a_source_carries_no_outputs_and_declares_its_scale(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(path))
    book.refuse_undeclared(path, {"scale": "toy"})


@pytest.mark.parametrize("path", SOURCES, ids=by_name)
def test_no_result_is_typed_into_prose(path):
    """A decimal number in prose is a result; results come from glue. Commands and formulas may have one."""
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    plain = [
        re.sub(r"section \d\.\d|sections [\d., and]+|```.*?```|`[^`]*`|\$[^$]*\$", "", text, flags=re.S) for text in prose
    ]
    assert not [text for text in plain if re.search(r"(?<![\w.])\d+\.\d+(?![\w.])", text)]


@pytest.mark.parametrize("path", SOURCES, ids=by_name)
def test_no_folded_cell_hides_a_single_call(path):
    """What a reader unfolds has to teach something."""
    folded = [cell for cell in code_of(path) if "hide-input" in cell.metadata.get("tags", ())]
    for cell in folded:
        body = ast.parse(cell.source).body
        assert len(body) > 1, cell.source


@pytest.mark.parametrize("path", [*SOURCES, *sorted(BOOK.glob("*.md"))], ids=by_name)
def test_commands_that_a_page_proposes_name_claims_and_arms_that_exist(path):
    text = path.read_text() if path.suffix == ".md" else "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
    arms = {name: set() for name in (*CLAIMS, *QUESTIONS)}
    for experiment in EXPERIMENTS:
        arms[experiment.claim] |= set(experiment.arms)
    for words in re.findall(r"(?:`| {4})alexnet (?:train|compare|plan|list) ([^`\n]+)", text):
        claim, *options = shlex.split(words.split("#")[0])
        if claim.startswith("-") or claim in ("all", "CLAIM"):
            continue
        assert claim in arms, words
        if "--arm" in options and options[options.index("--arm") + 1] != "ARM":
            assert options[options.index("--arm") + 1] in arms[claim], words


def test_listings_of_the_written_pages_run_as_they_stand(capsys):
    for path in sorted(BOOK.glob("*.md")):
        names = {}
        for listing in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S):
            exec(compile(listing, path.name, "exec"), names)
    (ours,) = re.findall(r"95%: (.*) times \((.*)\)", capsys.readouterr().out)
    published = Chapter("fig1-relu", "small").answers[0].ours
    assert published.startswith("{} times (95% interval {}, ".format(*ours)), "scipy's is ours"


@pytest.mark.parametrize("path", SOURCES, ids=by_name)
def test_claims_in_parameters_have_experiments(path):
    assert book.sets_behind(path, "small")


def test_a_parameter_that_is_not_declared_or_has_another_type_is_an_error(tmp_path):
    chapter = written(tmp_path, ['scale = "toy"\nconfidence = 0.95'])
    with pytest.raises(UserError, match="declares no parameter 'scal'; did you mean 'scale'"):
        book.refuse_undeclared(chapter, {"scal": "toy"})
    with pytest.raises(UserError, match="parameter 'confidence' must be float, not 'high'"):
        book.refuse_undeclared(chapter, {"confidence": "high"})


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 / 0", r"chapter.ipynb failed: ZeroDivisionError: division by zero \(the whole of it is in"),
        ("import os\nos._exit(1)", r"chapter.ipynb: its kernel died; mostly that is a lack of memory"),
        ("def show():\n    pass\n\n\nshow()", r"chapter.ipynb: the cell 'show\(\)' shows nothing"),
    ],
    ids=["a cell that fails", "a kernel that dies", "a figure that is missing"],
)
def test_what_goes_wrong_is_one_line_and_the_notebook_is_kept(cell, said, tmp_path):
    chapter, target = written(tmp_path, ['scale = "toy"', cell]), tmp_path / "executed.ipynb"
    line = executed_alone(chapter, target)
    assert re.match(f"alexnet.config.UserError: {said}", line), line
    assert target.is_file()


def test_a_picture_that_is_missing_makes_a_notebook_stale(tmp_path):
    chapter = written(tmp_path, ["chapter.show(figure)"])
    notebook = nbformat.read(chapter, as_version=4)
    output = nbformat.v4.new_output("display_data", {"text/markdown": ":::{figure} figures/fig-x.svg\n:::"})
    notebook.cells[0].outputs = [output]
    nbformat.write(notebook, chapter)
    assert book.missing_figures(chapter) == [f"{tmp_path / 'figures/fig-x.svg'} is missing"]


def test_a_new_set_makes_a_notebook_stale_unless_it_is_made_by_formula(monkeypatch, tmp_path):
    """A first `make book` makes such a set on its way, and the next one must find every notebook fresh."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    before = book.fingerprint(SOURCES[0], "toy", "code")
    for name, is_same in (("formula256", True), ("imagenet20", False)):
        files.write_json(tmp_path / name / "prepare.json", {})
        assert (book.fingerprint(SOURCES[0], "toy", "code") == before) is is_same


def test_the_kernels_environment_is_the_books_own(monkeypatch, tmp_path):
    """A backend that the user has exported made a book without figures; a relative folder was another one in notebooks."""
    monkeypatch.setattr(book, "BUILD_DIR", tmp_path)
    for name in ("SOURCE_DATE_EPOCH", "IPYTHONDIR", "PYTHONPATH", "ALEXNET_DATA"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("MPLBACKEND", "no such backend")
    monkeypatch.setenv("ALEXNET_RUNS", "elsewhere/runs")
    monkeypatch.chdir(tmp_path)
    book.own_the_environment()
    assert os.environ["MPLBACKEND"] == "agg"
    assert os.environ["ALEXNET_RUNS"] == str(tmp_path / "elsewhere/runs")
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(PROJECT_DIR)


def test_without_chromium_nothing_is_printed_and_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(book.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="takes Chromium or Chrome, and none is here: apt install chromium"):
        book.chromium()


def test_pages_without_code_are_no_notebooks():
    assert book.is_plain("glossary")
    assert {"glossary", "disagree"}.isdisjoint(book.chapters())


def test_another_checkouts_library_is_refused():
    with pytest.raises(UserError, match=r"alexnet is imported from /elsewhere, and this book is of "):
        book.refuse_other_checkout(Path("/elsewhere/alexnet/__init__.py"))


def record(config, errors=(), curve=()):
    """Write a finished run as on disk: `errors` are (split, views, k, wrong, total), `curve` errors on training images."""
    folder = runs.folder_of(config)
    hardware = {"processor": "A", "cpu_capability": "AVX2"}
    git = {"commit": "0123456789", "dirty": False}
    segment = {"device": "cpu", "hardware": hardware, "precision": {"choice": "fp32"}, "git": git}
    manifest = {"version": 2, "name": runs.name_of(config), "status": "finished", "config": to_dict(config), "seconds": 60.0}
    manifest |= {"epochs": len(curve) - 1, "segments": [segment], "data": {"stand_in": SETS[config.data].stand_in}}
    files.write_json(folder / "manifest.json", manifest)
    shown, held = "whole" if config.augmentation is None else "central", plan.held_out(config.data)
    rows = [
        {"epoch": epoch, "split": split, "views": views, "k": k, "wrong": round(1000 * error / k), "total": 1000}
        for epoch, error in enumerate(curve)
        for split, views, k in (("train", shown, 1), ("train", "as trained", 1), (held, shown, 1), (held, shown, 5))
    ]
    files.write_lines(folder / "metrics.jsonl", rows)
    losses = [
        {"epoch": epoch, "images_seen": 1500 * epoch, "loss": 3 * error if epoch else None}
        for epoch, error in enumerate(curve)
    ]
    files.write_lines(folder / "history.jsonl", losses)
    if errors:
        artefacts.write_errors(folder, [dict(zip(artefacts.COLUMNS, row, strict=True)) for row in errors])
    return rows


def record_artefact(config, name):
    """Write an artefact of noise in the form of `artefacts.py`."""
    draws, classes, images = np.random.default_rng(config.seed), SETS[config.data].num_classes, 300
    labels = np.arange(images, dtype=np.int32) % classes
    if name == "kernels":
        arrays = {"kernels": draws.normal(size=(12, 3, 11, 11)).astype(np.float32)}
    elif name.startswith("predictions"):
        probabilities = draws.dirichlet(np.ones(classes), images) + np.eye(classes)[labels] * draws.random((images, 1))
        arrays = {
            "probabilities": (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32),
            "labels": labels,
        }
    elif name == "connections":
        arrays = {"strengths": draws.random((16, 12 // num_columns_of(config.net))).astype(np.float32)}
    elif name.startswith(("neighbours", "codes")):
        arrays = {"queries": np.arange(images, dtype=np.int32), "labels": labels}
        for kind in ("features", "pixels") if name.startswith("neighbours") else ("codes",):
            found = draws.integers(0, 1500, (images, artefacts.NUM_NEIGHBOURS)).astype(np.int32)
            near = np.where(draws.random(found.shape) < 0.4, labels[:, None], found % classes).astype(np.int32)
            arrays |= {
                f"{kind}_images": found,
                f"{kind}_labels": near,
                f"{kind}_squares": draws.random(found.shape).astype(np.float32),
            }
    else:
        return
    files.write_arrays(runs.folder_of(config) / f"{name.replace('/', '-')}.npz", **arrays)


def record_toy():
    """Write runs at toy as trainings would leave them: of the searches for rates, and of all arms of fixed rate."""
    for experiment in EXPERIMENTS:
        for arm, search in experiment.searches("toy"):
            record_search(experiment, search, slow=4 if "tanh" in arm else 1)
        for number, (arm, config) in enumerate(experiment.configs("toy")):
            wrong = 150 + 7 * number + config.seed
            kinds = [
                (s, v, k) for s in SETS[config.data].counts for v in ("central", "ten", "whole", "grid") for k in (1, 5)
            ]
            counts = [(split, views, k, wrong // k - 9 * (split == "train"), 300) for split, views, k in kinds]
            record(config, counts, curve=[0.95, 0.8, 0.7])
            for name in plan.artefacts_of(experiment, "toy", arm):
                record_artefact(config, name)
    results.family.cache_clear()


def record_search(experiment, search, slow):
    """Write runs whose error falls to the line after `slow` epochs at the first guess of the rate, and later at others."""
    best = search.start["toy"]

    def metrics_of(config, limit):
        epochs = slow * (1 + abs(config.optimiser.rate / best - 1)) + 0.3 * config.seed
        return record(config, curve=[max(0.9 - 0.66 * epoch / epochs, 0.2) for epoch in range(int(epochs) + 3)])

    found: Search = plan.search_of(experiment, search, "toy", metrics_of)
    for seed in search.seeds:
        metrics_of(search.config(table("toy"), experiment.dataset(), found.best_rate, seed), None)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, whose book was made at toy of records written by hand; it is where the tests' kernels look."""
    top = tmp_path_factory.mktemp("checkout")
    leave = shutil.ignore_patterns("__pycache__", "_build", "_executed", "recorded")
    for name in ("alexnet", "book"):
        shutil.copytree(PROJECT_DIR / name, top / name, ignore=leave)
    shutil.copytree(PROJECT_DIR / "runs" / "bench", top / "runs" / "bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_RUNS", str(top / "runs"))
        patch.setenv("ALEXNET_DATA", os.environ.get("ALEXNET_DATA", str(PROJECT_DIR / "data")))
        record_toy()
        command = [sys.executable, top / "book" / "make.py", "--scale", "toy"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip() == f"The book at scale toy: {top}/book/_build/html/index.html"
        patch.setenv("PYTHONPATH", str(top))
        patch.setattr(book, "BOOK_DIR", top / "book")
        patch.setattr(book, "EXECUTED_DIR", top / "book" / "_executed")
        yield top
    results.family.cache_clear()


@pytest.fixture
def executed(checkout):
    """The folder of the executed notebooks."""
    return checkout / "book" / "_executed" / "toy"


def sources(checkout):
    return [checkout / "book" / path.name for path in SOURCES]


def test_nbval_finds_no_error_and_the_same_tables_in_the_executed_notebooks(executed):
    """Every cell runs again; outputs of cells marked NBVAL_CHECK_OUTPUT must come out the same."""
    words = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-W", "ignore"]
    command = [sys.executable, "-m", "pytest", *words, "-o", "addopts=", *sorted(executed.glob("*.ipynb"))]
    more = {"PYTEST_ADDOPTS": "", "MPLBACKEND": "agg", "ALEXNET_FIGURES": str(executed / "figures")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=BOOK, env=os.environ | more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("NBVAL_CHECK_OUTPUT" in cell.source for path in SOURCES for cell in code_of(path)) >= 7


def test_what_did_not_change_is_not_executed_again(checkout, executed, monkeypatch):
    """A new record is of one set, and only the pages of claims on it, or of all claims, are made again."""
    monkeypatch.setenv("ALEXNET_FIGURES", "")  # which the next line sets
    monkeypatch.setattr(book, "execute", lambda source, *_: pytest.fail(f"{source} is executed again"))
    book.execute_all("toy")
    code = book.hash_of_code()
    before = {path.stem: book.fingerprint(path, "toy", code) for path in sources(checkout)}
    assert all(book.is_fresh(executed / f"{name}.ipynb", found) for name, found in before.items())
    record(next(EXPERIMENTS[0].configs("toy"))[1])
    after = {path.stem for path in sources(checkout) if book.fingerprint(path, "toy", code) != before[path.stem]}
    assert "intro" in after
    assert "relu" not in after
    assert book.fingerprint(checkout / "book" / "relu.ipynb", "toy", "other code") != before["relu"]


def test_executing_again_gives_the_same_bytes(checkout, executed, tmp_path, monkeypatch):
    """Times and durations are stripped; the figures are the same."""
    pictures = {file.name: file.read_bytes() for file in (executed / "figures").glob("fig-relu*.svg")}
    (tmp_path / "figures").mkdir()
    monkeypatch.setenv("ALEXNET_FIGURES", str(tmp_path / "figures"))
    assert not executed_alone(checkout / "book" / "relu.ipynb", tmp_path / "relu.ipynb")
    assert (tmp_path / "relu.ipynb").read_bytes() == (executed / "relu.ipynb").read_bytes()
    assert {file.name: file.read_bytes() for file in (tmp_path / "figures").glob("*.svg")} == pictures
    assert len(pictures) >= 4


def pages(checkout):
    return sorted((checkout / "book" / "_build" / "html").glob("*.html"))


class Page(HTMLParser):
    """What a page has: ids, links, pictures, and what its head says of it."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.links, self.images, self.said = set(), [], [], {}
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        has = dict(attrs)
        self.ids |= {has[name] for name in ("id", "name") if has.get(name) and tag != "meta"}
        self.links += [has[name] for name in ("href", "src") if has.get(name)]
        self.images += [has] * (tag == "img")
        if tag == "meta":
            self.said[has.get("property") or has.get("name")] = has.get("content")


def test_the_chapter_shows_a_toy_figure_that_is_marked_as_such(checkout):
    html = (checkout / "book" / "_build" / "html" / "relu.html").read_text()
    assert "What was measured at scale toy" in html
    assert "a stand-in, no photographs" in html
    assert "_images/fig-relu-primary.svg" in html


def test_every_picture_has_an_alt_text_and_a_rendering_for_dark_pages(checkout):
    for page in pages(checkout):
        images = re.findall(r"<img [^>]*>", page.read_text())
        images = [image for image in images if "_images/fig-" in image]
        assert all(len(re.search(r'alt="([^"]*)"', image)[1]) > 20 for image in images), page.name
        light, dark = ([i for i in images if f"on-{kind}" in i.split('class="')[1]] for kind in ("light", "dark"))
        assert len(light) == len(dark) == len(images) / 2, page.name


def test_tables_and_figures_of_chapters_are_numbered_by_chapter(checkout):
    numbers = [n for page in pages(checkout) for n in re.findall(r'caption-number">(\w+ [\d.]+) ?<', page.read_text())]
    assert "Table 1.1" in numbers
    front = {f"Figure {n}" for n in range(1, 1 + len(book.README))}
    assert {n for n in numbers if "." not in n} <= front, "book.css takes them away"
    hidden = re.search(r":is\((.*)\) \.caption-number { display: none; }", (BOOK / "_static" / "book.css").read_text())[1]
    assert set(hidden.split(", ")) == {f"#{name}" for name in book.README}


def test_the_readme_shows_figures_of_the_front_page(tmp_path):
    (drawn := tmp_path / "figures").mkdir()
    for name in book.README:
        for look in ("", "-dark"):
            (drawn / f"{name}{look}.svg").write_text(f"{name}{look}")
    (kept := tmp_path / "static").mkdir()
    book.renew_readme(drawn, kept)
    shown = {Path(name).name for name in re.findall(r'src(?:set)?="([^"]+)"', (PROJECT_DIR / "README.md").read_text())}
    assert {file.name for file in kept.iterdir()} == shown
    assert (kept / "readme-figure1-dark.svg").read_text() == "fig-front-dark"
    (drawn / "fig-scorecard.svg").unlink()
    with pytest.raises(UserError, match="no fig-scorecard"):
        book.renew_readme(drawn, kept)
    code = [cell.source for cell in nbformat.read(BOOK / "intro.ipynb", as_version=4).cells if cell.cell_type == "code"]
    assert any(book.SHOWS.search(source) for source in code), "its figures are looked for after it was executed"
    assert set(re.findall(r'"(fig-[\w-]+)"', "".join(code))) == set(book.README)


def test_no_link_within_the_book_is_dead_and_no_anchor(checkout):
    html = checkout / "book" / "_build" / "html"
    found = {file.name: Page(file) for file in pages(checkout)}
    dead = []
    for name, page in found.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc or link.startswith("data:"):
                continue
            target = unquote(url.path) or name
            ids = found[target].ids if target in found else None
            if not (html / target).exists() or (url.fragment and ids is not None and unquote(url.fragment) not in ids):
                dead.append(f"{name}: {link}")
    assert not [link for link in dead if not link.endswith(": #")]
    assert len(found) > len(SOURCES)


def test_every_picture_says_what_one_sees_and_no_page_is_heavy(checkout):
    for file in pages(checkout):
        assert all(image.get("alt") for image in Page(file).images), file.name
        assert file.stat().st_size < 1.5e6, file.name
    assert not list((checkout / "book" / "_build" / "html").rglob("*.map")), "source maps are of no use to a reader"
    assert (checkout / "book" / "_build" / "html" / ".nojekyll").is_file()


def test_a_page_says_what_it_is_to_those_who_share_it(checkout):
    shown = [page for page in pages(checkout) if page.stem in ("intro", "relu", "disagree", "citing")]
    for file in shown:
        said = Page(file).said
        assert said["og:title"], file.name
        assert len(said["description"]) > 60, file.name
        assert said["og:url"].endswith(file.name)
        assert "favicon.svg" in file.read_text()
        assert (file.parent / "_static" / Path(said["og:image"]).name).is_file()
    assert len(shown) == 4


def test_the_front_page_says_what_the_table_to_download_has(checkout):
    """The counts in its sentences, counted again from the scorecard's rows."""
    html = checkout / "book" / "_build" / "html"
    (table,) = html.glob("_downloads/*/scorecard.csv")
    rows = pd.read_csv(table)
    rows = rows[rows.claim != "s3.5-parameters"]  # which the paper does not print
    text = re.sub(r"<[^>]+>|\s+", " ", (html / "intro.html").read_text())
    for word in ("true", "false"):
        count = int((rows.word == f"arithmetic: {word}").sum())
        assert re.search(rf"\b{count} (are )?{word}\b", text)
    assert re.search(r"Of the (\d+) claims that only trainings can test", text)
    downloads = {file.name for file in html.glob("_downloads/*/*.csv")}
    assert {"claims.csv", "scorecard.csv", "ledger.csv", "run-notes.csv", "reproductions.csv", "runs.csv"} <= downloads


@pytest.mark.skipif(not browser.PROGRAM, reason="no Chromium is installed, so nobody looks at the pages")
def test_on_a_phone_nothing_juts_out_and_no_script_complains(checkout):
    shown = [page for page in pages(checkout) if page.name not in ("index.html", "genindex.html")]
    seen = browser.look(shown, browser.PHONE)
    assert len(seen) >= len(SOURCES)
    assert not {name: found for name, found in seen.items() if found != ([], [])}


FILTER = """(() => {
  const rows = [...document.querySelectorAll("table.filterable tbody tr")];
  const shown = () => rows.filter((r) => !r.hidden).length;
  const all = shown(), chip = [...document.querySelectorAll(".filter-chip")].find((c) => c.textContent === "slip");
  chip.click();
  const slips = shown(), badges = rows.filter((r) => r.textContent.includes("slip") && !r.hidden).length;
  chip.click();
  const text = document.querySelector(".filter-text");
  text.value = "eigenvalues"; text.dispatchEvent(new Event("input"));
  const one = shown();
  text.value = ""; text.dispatchEvent(new Event("input"));
  const first = () => rows[0].parentElement.rows[0].textContent, before = first();
  document.querySelector("button.sort").click();
  return [all, slips, badges, one, shown(), before !== first()];
})()"""
ANSWER = """(() => {
  const card = document.querySelector(".question"), details = card.querySelector("details"), closed = !details.open;
  [...card.querySelectorAll(".choice button")].find((b) => b.textContent === "half true").click();
  return [closed, details.open, document.querySelector(".filter-count").textContent];
})()"""


@pytest.mark.skipif(not browser.PROGRAM, reason="no Chromium is installed, so nobody tries the filters")
def test_rows_can_be_filtered_and_sorted_and_a_statement_answered(checkout):
    html = checkout / "book" / "_build" / "html"
    kinds = [row.kind for row in ROWS]
    slips = sum("slip" in kind for kind in kinds)
    (found, errors) = browser.look([html / "ledger.html"], browser.DESK, script=FILTER)["ledger.html"]
    assert not errors
    assert found == [len(ROWS), slips, slips, 1, len(ROWS), True]
    (found, errors) = browser.look([html / "misreadings.html"], browser.DESK, "dark", ANSWER)["misreadings.html"]
    assert not errors
    assert found[:2] == [True, True]
    assert found[2].startswith("1 right of 1 answered")


@pytest.mark.skipif(not browser.PROGRAM, reason="no Chromium is installed, so nobody measures the front page")
def test_the_front_page_is_one_screen(checkout):
    """At 1400 by 900 pixels its figures and the links to read on are seen without scrolling."""
    front = checkout / "book" / "_build" / "html" / "intro.html"
    bottom = """Math.max(...["#fig-front", "section > p:nth-of-type(3)"].map((name) =>
      document.querySelector(name).getBoundingClientRect().bottom))"""
    assert browser.look([front], browser.DESK, script=bottom)["intro.html"][0] < 900


def test_pages_ask_nothing_of_the_network_and_math_is_in_them(checkout):
    assert len(pages(checkout)) > len(SOURCES)
    for page in pages(checkout):
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]*\srel="(?:stylesheet|preload|icon)"[^>]*\shref="([^"]+)"', page.read_text())
        assert loaded or page.name == "index.html"  # which only leads on
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
    for sheet in (checkout / "book" / "_build" / "html").rglob("*.css"):
        assert not re.search(r"""(url\(|@import )['"]?(https?:)?//""", sheet.read_text()), sheet.name
    assert "<math" in next(page for page in pages(checkout) if page.name == "relu.html").read_text()
