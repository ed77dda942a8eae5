"""Execute the notebooks at a scale and build the book from the executed ones. It never trains.

    python book/make.py                  at the largest scale with recorded runs
    python book/make.py --scale toy      executed notebooks go to book/_executed/toy, pages to book/_build/html
    python book/make.py --pdf            and the whole of it as one file, which Chromium prints
    python book/make.py --readme         and the figures of README.md anew, for a commit with new runs

Sources in book/ carry no outputs; `_toc.yml` is the only list of chapters; a page without code is Markdown. Each notebook
declares its parameters in a tagged cell with typed defaults. A notebook is not executed again unless it, the code, the
versions or the runs behind it changed: the runs on the sets of the claims that its parameters name (`claim` or `claims`),
or all runs if they name none.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

BOOK_DIR = Path(__file__).resolve().parent
BUILD_DIR, EXECUTED_DIR = BOOK_DIR / "_build", BOOK_DIR / "_executed"
STATIC = ("_config.yml", "_toc.yml", "_ext", "_static", "references.bib")
PAGE = re.compile(r"^\s*(?:- file|root): *([\w-]+) *$", re.M)  # a page in the contents
PDF = "alexnet-book.pdf"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FIGURES = "figures"  # the folder of pictures beside executed notebooks and pages
# Figures of the front page that README.md shows too.
README = {
    "fig-scorecard": "readme-scorecard",
    "fig-scorecard-elsewhere": "readme-elsewhere",
    "fig-front": "readme-figure1",
}
IMPORTANT = ("matplotlib", "pandas", "papermill", "numpy")  # packages whose version may change an executed notebook
RECORDS = (".json", ".jsonl", ".csv", ".npz")
SHOWS = re.compile(r"^(?!\s|def ).*(?:\bshow\(|\bstrips\()", re.M)  # a cell that ends with a figure


def main() -> None:
    """Parse, execute, build, and print the path of the book."""
    own_the_environment()
    sys.path.insert(0, str(BOOK_DIR.parent))
    import alexnet
    from alexnet.config import UserError
    from alexnet.experiments import readiness, scales

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    words = "auto: the largest with recorded runs; ready: what `alexnet train` takes by itself"
    parser.add_argument("--scale", choices=("auto", "ready", *scales.SCALES), default="auto", help=words)
    parser.add_argument("--figures", metavar="CLAIM", help="only draw the figures of the chapter on a claim")
    parser.add_argument("--to", type=Path, default=Path(), help="the folder for --figures")
    parser.add_argument("--pdf", action="store_true", help=f"print the whole book to {PDF} too, by a Chromium that is here")
    parser.add_argument("--readme", action="store_true", help="renew the figures of README.md, from the front page's")
    options = parser.parse_args()
    wanted = options.scale
    try:
        refuse_other_checkout(Path(alexnet.__file__))
        if options.figures:
            print(*draw(options.figures, wanted, options.to.absolute()), sep="\n")
            return
        scale = {"auto": largest_recorded, "ready": lambda: readiness.choose("auto")[0]}.get(wanted, lambda: wanted)()
        program = chromium() if options.pdf else ""
        executed = execute_all(scale)
        page = build(executed)
        if options.readme:
            renew_readme(executed / FIGURES, BOOK_DIR / "_static")
        if program:
            print(f"To print: {to_pdf(program, page.parent)}")
        print(f"The book at scale {scale}: {page}")
    except UserError as error:
        sys.exit(f"error: {error}")


def largest_recorded() -> str:
    """Return the largest scale at which any experiment has a result, or toy."""
    from alexnet.experiments import EXPERIMENTS, results, scales

    found = {results.recorded_scale(experiment) for experiment in EXPERIMENTS}
    return next((scale for scale in reversed(scales.SCALES) if scale in found), "toy")


def own_the_environment() -> None:
    """Set what kernels inherit, so that nothing the user has exported changes the book."""
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    os.environ["MPLBACKEND"] = "agg"  # Why: figures are shown by `alexnet.report`, once, and never by a backend.
    os.environ["IPYTHONDIR"] = str(quiet_profile())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BOOK_DIR.parent), os.environ.get("PYTHONPATH")]))
    for name in ("ALEXNET_RUNS", "ALEXNET_DATA"):  # Why: kernels have another working directory.
        if name in os.environ:
            os.environ[name] = str(Path(os.environ[name]).absolute())


def refuse_other_checkout(package: Path) -> None:
    """Raise UserError for an `alexnet` that is not this checkout's: the book would show another code's numbers."""
    from alexnet.config import UserError

    if package.resolve().parents[1] != BOOK_DIR.parent:
        raise UserError(
            f"alexnet is imported from {package.parents[1]}, and this book is of {BOOK_DIR.parent}. In it: make setup."
        )


def quiet_profile() -> Path:
    """Write an IPython profile whose kernels report errors only, and return its folder."""
    folder = BUILD_DIR / "ipython"
    (folder / "profile_default").mkdir(parents=True, exist_ok=True)
    (folder / "profile_default" / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
    return folder


def chapters() -> list[str]:
    """Return the names of all notebooks in the order of `_toc.yml`."""
    return [name for name in PAGE.findall((BOOK_DIR / "_toc.yml").read_text()) if not is_plain(name)]


def is_plain(name: str) -> bool:
    """Return whether a page has no code: it is Markdown then, and nothing of it is executed."""
    return (BOOK_DIR / f"{name}.md").is_file()


def execute_all(scale: str) -> Path:
    """Execute every notebook that changed at `scale`, two at a time, and return the folder of the executed ones."""
    from tqdm import tqdm

    folder = EXECUTED_DIR / scale
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    os.environ["ALEXNET_FIGURES"] = str(folder / FIGURES)
    code = hash_of_code()
    prints = {name: fingerprint(BOOK_DIR / f"{name}.ipynb", scale, code) for name in chapters()}
    stale = [name for name, found in prints.items() if not is_fresh(folder / f"{name}.ipynb", found)]
    # Why two at a time: most of a small notebook's time is the start of its kernel.
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            pool.submit(execute, BOOK_DIR / f"{name}.ipynb", folder / f"{name}.ipynb", {"scale": scale}): name
            for name in stale
        }
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="notebooks", unit="notebook", disable=not jobs):
            job.result()
            mark_of(folder / f"{jobs[job]}.ipynb").write_text(prints[jobs[job]])
    return folder


def draw(claim: str, scale: str, to: Path) -> list[Path]:
    """Execute the notebook that is most about a claim and write its figures as SVG to a folder; return their paths.

    Raises UserError where no notebook is on the claim, or nothing was run at the scale.
    """
    from alexnet.config import UserError

    sources = [BOOK_DIR / f"{name}.ipynb" for name in chapters()]
    if not (on_claim := [source for source in sources if claim in claims_of(source)]):
        raise UserError(f"No chapter has figures of {claim}.")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALEXNET_FIGURES"] = str(figures := Path(folder, FIGURES))
        figures.mkdir()
        execute(min(on_claim, key=lambda source: len(claims_of(source))), Path(folder, "executed.ipynb"), {"scale": scale})
        drawn = [file for file in sorted(figures.glob("*.svg")) if not file.stem.endswith("-dark")]
        if not drawn:
            raise UserError(
                f"{claim} has no figure: nothing was run at scale {scale}. alexnet train {claim} --scale {scale}"
            )
        to.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(file, to)) for file in drawn]


def renew_readme(figures: Path, to: Path) -> None:
    """Copy the figures that README.md shows too, light and dark. Raises UserError where the front page lacks one."""
    from alexnet.config import UserError

    found = {figures / f"{drawn}{look}.svg": f"{name}{look}.svg" for drawn, name in README.items() for look in ("", "-dark")}
    if missing := [file for file in found if not file.is_file()]:
        raise UserError(f"The front page has no {missing[0].name} at this scale, and README.md stays as it is.")
    for file, name in found.items():
        shutil.copy(file, to / name)


def mark_of(notebook: Path) -> Path:
    """Return the file that says from what an executed notebook was made."""
    return notebook.with_suffix(".made-from")


def is_fresh(notebook: Path, found: str) -> bool:
    """Return whether an executed notebook is there, with its figures, and was made from what is there now."""
    mark = mark_of(notebook)
    return notebook.is_file() and mark.is_file() and mark.read_text() == found and not missing_figures(notebook)


def hash_of_code() -> str:
    """Return a hash over the library, this file and the versions that may change an executed notebook."""
    digest = hashlib.sha256()
    sources = [p for p in sorted((BOOK_DIR.parent / "alexnet").rglob("*")) if p.suffix in (".py", ".csv", ".c")]
    for path in (*sources, Path(__file__), BOOK_DIR / "_toc.yml"):  # some pages link what the contents have
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr([sys.version, *map(metadata.version, IMPORTANT)]).encode())
    return digest.hexdigest()


def fingerprint(source: Path, scale: str, code: str) -> str:
    """Return a hash over all that an executed notebook follows from: its source, the code, the scale, the records."""
    from alexnet.experiments.runs import runs_dir
    from alexnet.preprocessing import SETS, data_dir

    digest = hashlib.sha256(f"{scale}{code}".encode() + source.read_bytes())
    for top in sets_behind(source, scale):
        records = [p for p in sorted((runs_dir() / top).rglob("*")) if p.suffix in RECORDS and p.name != "timing.jsonl"]
        for path in records:
            state = path.stat()
            digest.update(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
    for manifest in sorted(data_dir().glob("*/*.json")):
        known = SETS.get(manifest.parent.name)
        if known is None or not known.stand_in:  # Why: a notebook itself may make a set by formula, of the same bytes always
            digest.update(f"{manifest} {manifest.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def sets_behind(source: Path, scale: str) -> list[str]:
    """Return the folders of `runs/` that a notebook depends on: the sets of its claims, or all."""
    from alexnet.experiments import plan, runs

    if not (claims := claims_of(source)):
        return [""]
    own = [run for run in runs.recorded() if run.facts.get("arm_of", [""])[0] in claims]
    return sorted({each.config.data for each in [*plan.wanted(scale, claims, assume=True), *own]})


def claims_of(source: Path) -> list[str]:
    """Return the claims that a notebook's parameters name."""
    named = parameters_of(source)
    return [*ast.literal_eval(named.get("claims", "[]")), *([ast.literal_eval(named["claim"])] if "claim" in named else [])]


def parameters_of(source: Path) -> dict[str, str]:
    """Return the parameters that a notebook declares, with their defaults as text."""
    import papermill

    return {name: said["default"] for name, said in papermill.inspect_notebook(source).items()}


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Execute one notebook with papermill.

    Raises UserError for a parameter that it does not declare or one of another type, when a cell fails, when its kernel dies
    and when a figure is missing; the notebook with the traceback is then at `target`.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from alexnet.config import UserError

    refuse_undeclared(source, parameters)
    mark_of(target).unlink(missing_ok=True)
    try:
        papermill.execute_notebook(source, target, parameters, cwd=BOOK_DIR, progress_bar=False, kernel_name="python3")
    except PapermillExecutionError as error:
        raise UserError(f"{source.name} failed: {error.ename}: {error.evalue} (the whole of it is in {target})") from error
    except DeadKernelError as error:
        raise UserError(f"{source.name}: its kernel died; mostly that is a lack of memory. Again: make book") from error
    tidy(target)
    if missing := missing_figures(target):
        raise UserError(f"{source.name}: {'; '.join(missing)}. The executed notebook is {target}.")


def refuse_undeclared(source: Path, parameters: dict[str, Any]) -> None:
    """Raise UserError unless `source` declares every one of `parameters`, with a default of the same type."""
    from alexnet.config import UserError, nearest

    declared = parameters_of(source)
    for name, value in parameters.items():
        if name not in declared:
            raise UserError(
                f"{source.name} declares no parameter {name!r}{nearest(name, declared)}. It declares: {', '.join(declared)}."
            )
        default = ast.literal_eval(declared[name])
        if default is not None and not isinstance(value, type(default)):
            raise UserError(f"{source.name}: parameter {name!r} must be {type(default).__name__}, not {value!r}.")


def tidy(notebook: Path) -> None:
    """Take out of an executed notebook what differs from one execution to the next, and fold papermill's own cell."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("papermill", None)
    for number, cell in enumerate(content.cells):
        cell["id"] = f"{notebook.stem}-{number:02d}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata["tags"].append("remove-cell")
    nbformat.write(content, notebook)


def missing_figures(notebook: Path) -> list[str]:
    """Return what is missing of an executed notebook's figures: cells that show nothing, and files that are not there."""
    import nbformat

    missing = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or not SHOWS.search(cell.source):
            continue
        text = "".join(out.get("data", {}).get("text/markdown", "") for out in cell.outputs)
        if not text:
            missing.append(f"the cell {cell.source.splitlines()[-1]!r} shows nothing")
        pictures = [notebook.parent / name for name in re.findall(r"{figure} (\S+)", text)]
        missing += [f"{file} is missing" for file in pictures if not file.is_file()]
    return missing


def plotly_script() -> Path:
    """Return the script of the interactive figures, which the Python package of the same version brings along."""
    return Path(str(metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))


def build(executed: Path) -> Path:
    """Build the book from the notebooks in `executed` and return its first page. Raises UserError when sphinx warns."""

    source = BUILD_DIR / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    sources = [*(BOOK_DIR / name for name in STATIC), *BOOK_DIR.glob("*.md"), executed / FIGURES]
    for path in [*sources, *(executed / f"{name}.ipynb" for name in chapters())]:
        if path.is_dir():
            shutil.copytree(path, source / path.name)
        else:
            shutil.copy(path, source)
    html = BUILD_DIR / "html"
    shutil.rmtree(html, ignore_errors=True)
    shutil.copytree(jupyter_book("html"), html, ignore=shutil.ignore_patterns("*.map"))
    if (card := executed / FIGURES / "card.png").is_file():  # which _ext/head.py names in every page
        shutil.copy(card, html / "_static")
    if any("data-figure=" in (executed / f"{name}.ipynb").read_text() for name in chapters()):
        # Why into the pages: every page would load a script that jupyter-book finds in `_static`.
        shutil.copy(plotly_script(), html / "_static")
    (html / ".nojekyll").touch()
    return html / "index.html"


def jupyter_book(builder: str) -> Path:
    """Build the pages of `_build/source` and return their folder. Raises UserError when sphinx warns."""
    from alexnet.config import UserError

    program = Path(sys.executable).with_name("jupyter-book")
    strict = ["--all", "-W", "-n", "--keep-going", "--quiet"]
    kind = [] if builder == "html" else ["--builder", "custom", "--custom-builder", builder]
    command = [str(program), "build", str(BUILD_DIR / "source"), "--path-output", str(BUILD_DIR / "jupyter-book"), *strict]
    done = subprocess.run([*command, *kind], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"jupyter-book failed, and a warning counts as failure:\n{done.stdout}{done.stderr}")
    return BUILD_DIR / "jupyter-book" / "_build" / builder


def chromium() -> str:
    """Return the program that prints the book. Raises UserError where there is none."""
    from alexnet.config import UserError

    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise UserError("Printing the book takes Chromium or Chrome, and none is here: apt install chromium. Then: make pdf")
    return found


def to_pdf(program: str, html: Path) -> Path:
    """Print all pages as one file into `html`, and link it where a page names it. Raises UserError if that fails."""
    from alexnet.config import UserError

    pdf, page = html / PDF, jupyter_book("singlehtml") / "intro.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    command = [program, *options, "--virtual-time-budget=20000", f"--print-to-pdf={pdf}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    if not pdf.is_file():
        raise UserError(f"{program} printed nothing:\n{done.stderr}")
    citing = html / "citing.html"
    named = re.compile(f"<code[^>]*>(<span[^>]*>)?{re.escape(PDF)}(</span>)?</code>")
    citing.write_text(named.sub(f'<a href="{PDF}">{PDF}</a>', citing.read_text()))
    return pdf


if __name__ == "__main__":
    main()
