"""Execute the notebooks at a scale and build the book from the executed ones.

    python book/make.py --scale toy              executes into runs/toy/book, builds book/_build/html
    python book/make.py --scale cpu --no-train   the same, from the recorded runs alone

Sources in book/ carry no outputs. Each notebook declares its parameters in a tagged cell with typed defaults; a parameter
that a notebook does not declare is an error.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

BOOK_DIR = Path(__file__).resolve().parent
BUILD_DIR = BOOK_DIR / "_build"
STATIC = ("_config.yml", "_toc.yml", "_ext", "_static", "references.bib")
NOTEBOOKS = ("intro", "images", "relu", "network", "ledger", "performance", "environment")  # in the order of execution


def main() -> None:
    """Parse, execute, build, and print the path of the book."""
    # Why before the imports: they read it, and kernels inherit it.
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    os.environ["IPYTHONDIR"] = str(quiet_profile())
    from alexnet.claims import fig1, scales
    from alexnet.config import UserError

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scale", choices=("auto", *scales.DESCRIPTIONS), default="auto")
    parser.add_argument("--no-train", action="store_true", help="show what is recorded; missing runs stay missing")
    options = parser.parse_args()
    if options.no_train:
        os.environ["ALEXNET_TRAIN"] = "0"
    try:
        scale = scales.recorded() if options.no_train and options.scale == "auto" else scales.choose(options.scale)[0]
        executed = execute_all(scale)
        fig1.save_figures(scale)
        print(f"The book at scale {scale}: {build(executed)}")
    except UserError as error:
        sys.exit(f"error: {error}")


def quiet_profile() -> Path:
    """Write an IPython profile whose kernels report errors only, and return its folder."""
    folder = BUILD_DIR / "ipython"
    (folder / "profile_default").mkdir(parents=True, exist_ok=True)
    (folder / "profile_default" / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
    return folder


def execute_all(scale: str) -> Path:
    """Execute every notebook at `scale` into `runs/<scale>/book` and return that folder."""
    from tqdm import tqdm

    from alexnet.claims.runs import runs_dir

    folder = runs_dir() / scale / "book"
    folder.mkdir(parents=True, exist_ok=True)
    # Why two at a time: most of a small notebook's time is the start of its kernel.
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(execute, BOOK_DIR / f"{n}.ipynb", folder / f"{n}.ipynb", {"scale": scale}) for n in NOTEBOOKS]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="notebooks", unit="notebook"):
            job.result()
    return folder


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Execute one notebook with papermill.

    Raises UserError for a parameter that it does not declare or one of another type, and when a cell fails; the notebook
    with the traceback is then at `target`.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from alexnet.config import UserError

    refuse_undeclared(source, parameters)
    try:
        papermill.execute_notebook(source, target, parameters, cwd=BOOK_DIR, progress_bar=False, kernel_name="python3")
    except PapermillExecutionError as error:
        raise UserError(f"{source.name} failed: {error.ename}: {error.evalue} (the whole of it is in {target})") from error
    tidy(target)


def refuse_undeclared(source: Path, parameters: dict[str, Any]) -> None:
    """Raise UserError unless `source` declares every one of `parameters`, with a default of the same type."""
    import ast

    import papermill

    from alexnet.claims.experiments import nearest
    from alexnet.config import UserError

    declared = papermill.inspect_notebook(source)
    for name, value in parameters.items():
        if name not in declared:
            raise UserError(
                f"{source.name} declares no parameter {name!r}{nearest(name, declared)}. It declares: {', '.join(declared)}."
            )
        default = ast.literal_eval(declared[name]["default"])
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


def build(executed: Path) -> Path:
    """Build the book from the notebooks in `executed` and return its first page. Raises UserError when sphinx warns."""
    from alexnet.config import UserError

    source = BUILD_DIR / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in STATIC:
        path = BOOK_DIR / name
        if path.is_dir():
            shutil.copytree(path, source / name)
        elif path.exists():
            shutil.copy(path, source / name)
    for name in NOTEBOOKS:
        shutil.copy(executed / f"{name}.ipynb", source)
    program = Path(sys.executable).with_name("jupyter-book")
    strict = ["--all", "-W", "-n", "--keep-going", "--quiet"]
    command = [str(program), "build", str(source), "--path-output", str(BUILD_DIR / "jupyter-book"), *strict]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"jupyter-book failed, and a warning counts as failure:\n{done.stdout}{done.stderr}")
    html = BUILD_DIR / "html"
    shutil.rmtree(html, ignore_errors=True)
    shutil.copytree(BUILD_DIR / "jupyter-book" / "_build" / "html", html)
    return html / "index.html"


if __name__ == "__main__":
    main()
