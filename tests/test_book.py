"""The notebooks: sources without outputs, declared parameters, and nbval on the copies executed at scale toy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from alexnet.config import PROJECT_DIR, UserError

BOOK = PROJECT_DIR / "book"
SOURCES = sorted(BOOK.glob("*.ipynb"))
sys.path.insert(0, str(BOOK))
import make as book  # noqa: E402


def written(tmp_path, cells):
    """Write a notebook of code cells, the first tagged as parameters, and return its path."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    file = tmp_path / "chapter.ipynb"
    nbformat.write(notebook, file)
    return file


def test_every_page_of_the_book_is_made_and_in_the_table_of_contents():
    assert [path.stem for path in SOURCES] == sorted(book.NOTEBOOKS)
    contents = (BOOK / "_toc.yml").read_text()
    assert all(re.search(rf"\b{name}$", contents, re.M) for name in book.NOTEBOOKS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_carries_no_outputs_and_declares_its_scale(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    book.refuse_undeclared(path, {"scale": "toy"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_result_is_typed_into_prose(path):
    """A decimal number in prose is a result; results come from glue."""
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert not [text for text in prose if re.search(r"(?<![\w.])\d+\.\d+(?![\w.])", re.sub(r"section \d\.\d", "", text))]


def test_a_parameter_that_is_not_declared_or_has_another_type_is_an_error(tmp_path):
    chapter = written(tmp_path, ['scale = "toy"\nconfidence = 0.95'])
    with pytest.raises(UserError, match="declares no parameter 'scal'; did you mean 'scale'"):
        book.refuse_undeclared(chapter, {"scal": "toy"})
    with pytest.raises(UserError, match="parameter 'confidence' must be float, not 'high'"):
        book.refuse_undeclared(chapter, {"confidence": "high"})


def test_a_cell_that_fails_is_one_line_and_the_notebook_keeps_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    chapter, target = written(tmp_path, ['scale = "toy"', "1 / 0"]), tmp_path / "executed.ipynb"
    with pytest.raises(
        UserError, match=r"chapter.ipynb failed: ZeroDivisionError: division by zero \(the whole of it is in"
    ):
        book.execute(chapter, target, {"scale": "toy"})
    assert "ZeroDivisionError" in target.read_text()


@pytest.fixture(scope="module")
def executed():
    """The folder of the notebooks executed at scale toy, as `make reproduce` does it; a second call finds the runs done."""
    for command in (("-m", "alexnet", "train", "--scale", "toy"), (BOOK / "make.py", "--scale", "toy")):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=PROJECT_DIR)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("book/_build/html/index.html")
    return PROJECT_DIR / "runs" / "toy" / "book"


def test_nbval_finds_no_error_and_the_same_tables_in_the_executed_notebooks(executed):
    """Every cell runs again; outputs of cells marked NBVAL_CHECK_OUTPUT must come out the same."""
    words = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-W", "ignore"]
    environment = os.environ | {"ALEXNET_TRAIN": "0", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", *words, "-o", "addopts=", *sorted(executed.glob("*.ipynb"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BOOK, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    checked = sum("NBVAL_CHECK_OUTPUT" in cell.source for p in SOURCES for cell in nbformat.read(p, as_version=4).cells)
    assert checked >= 7


def test_the_chapter_shows_a_toy_figure_that_is_marked_as_such(executed):
    html = (BOOK / "_build" / "html" / "relu.html").read_text()
    assert "<img" in html
    assert re.search(r"At scale .*toy", html)
    assert "stand-in for CIFAR-10" in html


def test_pages_ask_nothing_of_the_network_and_math_is_in_them(executed):
    pages = sorted((BOOK / "_build" / "html").glob("*.html"))
    assert len(pages) > len(SOURCES)
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]*\srel="(?:stylesheet|preload|icon)"[^>]*\shref="([^"]+)"', page.read_text())
        assert loaded or page.name == "index.html"  # which only leads on
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
    assert "<math" in (BOOK / "_build" / "html" / "relu.html").read_text()


def test_executing_again_gives_the_same_bytes(executed, tmp_path):
    """Times and durations are stripped; the figure is the same."""
    again = tmp_path / "relu.ipynb"
    book.execute(BOOK / "relu.ipynb", again, {"scale": "toy"})
    assert again.read_bytes() == Path(executed / "relu.ipynb").read_bytes()
