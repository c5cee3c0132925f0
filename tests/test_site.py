"""The pages of docs/: links, an entry and an executed example for every public name, pictures, and the built site."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser
from markdown_it import MarkdownIt
from PIL import Image

from factory.sources.creatures import species

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "examples/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
NAMES = re.compile(r"^```\{names\} (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# --- links -----------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor of a heading, as on GitHub and in the site."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def tokens(path: Path) -> list:
    return MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    parsed = tokens(path)
    return {
        slug(re.sub(r"[`*]", "", following.content))
        for token, following in pairwise(parsed)
        if token.type == "heading_open"
    }


def links(path: Path) -> list[str]:
    """Targets of links and pictures, HTML included."""
    targets = []
    for token in tokens(path):
        for child in [token, *(token.children or [])]:
            targets += [value for name, value in (child.attrs or {}).items() if name in ("href", "src")]
            if child.type in ("html_block", "html_inline"):
                targets += re.findall(r'(?:href|src)="([^"]*)"', child.content)
    return targets


def fault(path: Path, target: str) -> str:
    """Why a link is broken, "" if it is not. Addresses of other sites are not opened."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        good = parts.scheme == "https" and re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}", parts.netloc)
        return "" if good or parts.scheme == "mailto" else "not an https address"
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.exists() or ROOT.resolve() not in [file.resolve(), *file.resolve().parents]:
        return "no such file"
    if parts.fragment and (file.suffix != ".md" or parts.fragment not in anchors(file)):
        return "no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_broken(page):
    assert [(target, why) for target in links(page) if (why := fault(page, target))] == []


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("other.md", "no such file"),
        ("../../outside.md", "no such file"),
        ("page.md#no-heading", "no such heading"),
        ("#no-heading", "no such heading"),
        ("http://example.org", "not an https address"),
        ("https:///path", "not an https address"),
        ("page.md#a-heading-with-code", ""),
        ("https://example.org/a", ""),
    ],
)
def test_a_broken_link_is_seen(target, why, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# A heading, with `code`\n\n| a |\n|---|\n| [text]({target}) |\n")
    assert links(page) == [target] and fault(page, target) == why


def test_every_page_is_in_the_navigation():
    listed = {
        line.split("<")[-1].rstrip(">")
        for block in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    }
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert listed - {"self"} == pages - {"index"}


# --- the reference ---------------------------------------------------------------------------------------


def public_names() -> dict[str, set[str]]:
    """Package → names in its `__all__`."""
    result = {}
    for package in ("factory", "zoo", "renderers", "cluster"):
        for file in sorted((ROOT / package).rglob("__init__.py")):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                    name = ".".join(file.parent.relative_to(ROOT).parts)
                    result[name] = set(ast.literal_eval(node.value))
    return result


def names_in(code: str) -> set[str]:
    """Names and attributes that code uses, outside of imports."""
    used = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    return used


def entries(markdown: str) -> list[tuple[str, str, set[str]]]:
    """(package, name, names that the code of the section uses) of every entry of a page."""
    result = []
    for section in re.split(r"^## ", markdown, flags=re.MULTILINE):
        used = set().union(*map(names_in, PYTHON.findall(section)))
        result += [
            (package, name, used) for package, block in NAMES.findall(section) for name in block.split()
        ]
    return result


def test_every_public_name_has_one_entry():
    listed = [(package, name) for page in REFERENCE for package, name, _ in entries(page.read_text())]
    expected = {(package, name) for package, names in public_names().items() for name in names}
    assert len(expected) > 400 and set(listed) == expected
    assert sorted(listed) == sorted(set(listed))


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_every_entry_has_an_example(page):
    """Its section has code that uses it, beyond an import; tests/test_pages.py runs the code."""
    assert [
        f"{package}.{name}" for package, name, used in entries(page.read_text()) if name not in used
    ] == []


def test_a_name_without_an_example_is_seen():
    page = "## a\n\n```python\nfrom zoo import load, info\nload(1)\n```\n\n```{names} zoo\nload\ninfo\n```\n"
    assert [name in used for _, name, used in entries(page)] == [True, False]
    moved = page.replace("```{names}", "## b\n\n```{names}")
    assert [name in used for _, name, used in entries(moved)] == [False, False]


# --- pictures --------------------------------------------------------------------------------------------


def animated(path: Path) -> int:
    """Number of frames of a picture that repeats for ever."""
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        return image.n_frames


def test_the_readme_begins_with_a_moving_picture_and_two_commands():
    first = [token for token in tokens(ROOT / "README.md") if token.type in ("inline", "fence")][:4]
    picture = first[1].children[0]
    assert picture.type == "image" and picture.content
    path = ROOT / picture.attrs["src"]
    assert animated(path) >= 20 and path.stat().st_size <= 1_500_000
    assert [line.split("#")[0].strip() for line in first[3].content.splitlines()] == ["make run", "make test"]


def test_the_gallery_shows_every_creature_and_model():
    page = (DOCS / "gallery.md").read_text()
    models = [path.parent for path in (ROOT / "zoo/bundled").glob("*/*/config.json")]
    names = [*species(), *(f"{path.parent.name}-{path.name}" for path in models)]
    assert len(names) == 25
    for name in names:
        path = DOCS / f"gallery/{name}.webp"
        assert f"(gallery/{name}.webp)" in page and animated(path) >= 8 and path.stat().st_size <= 120_000
    assert {path.stem for path in (DOCS / "gallery").iterdir()} == set(names)


# --- the built site --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("furo", reason="needs the extra `docs` (make docs)")
    pytest.importorskip("myst_parser", reason="needs the extra `docs` (make docs)")
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-P",
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


class Built(HTMLParser):
    """Targets of links, addresses that are fetched, and ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.fetched, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif "src" in values or (tag == "link" and "href" in values):
            self.fetched.append(values.get("src") or values["href"])


@pytest.mark.slow
def test_the_site_is_complete_and_fetches_nothing(site):
    pages = {path: Built(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        assert not [address for address in page.fetched if urlsplit(address).netloc], path
        for target in [*page.links, *page.fetched]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target == "#":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[file].ids if file in pages else set()
            if not file.exists() or (parts.fragment and file in pages and parts.fragment not in known):
                broken.append(f"{path.name}: {target}")
    assert broken == [] and len(pages) > 30
    ids = set().union(*(page.ids for page in pages.values()))
    assert {f"{package}.{name}" for package, names in public_names().items() for name in names} <= ids


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_in_a_browser(site, scheme, width):
    """Requests stay on this disk, nothing is wider than the window, and pictures have sizes."""
    run = browser()
    check = (
        "({width: document.documentElement.scrollWidth, dark: getComputedStyle(document.body).backgroundColor, "
        "pictures: [...document.images].map(i => i.complete && i.naturalWidth > 0)})"
    )
    for name in ("index", "gallery", "reference/zoo", "benchmarks"):
        result = run(
            site / f"{name}.html", [["evaluate", check]], "document.readyState == 'complete'",
            colorScheme=scheme, viewport={"width": width, "height": 800},
        )  # fmt: skip
        (page,) = result["results"]
        assert result["requests"] and all(
            each.startswith(("file://", "data:")) for each in result["requests"]
        )
        assert page["width"] <= width, name
        assert all(page["pictures"])
        light = sum(map(int, re.findall(r"\d+", page["dark"])[:3])) > 380
        assert light == (scheme == "light")


@pytest.mark.slow
def test_the_search_finds_a_name(site):
    found = "document.querySelectorAll('#search-results li').length"
    url = (site / "search.html").as_uri() + "?q=load_model"
    result = browser()(url, [["wait", f"{found} > 0"]], "document.readyState == 'complete'")
    assert all(each.startswith(("file://", "data:")) for each in result["requests"])
