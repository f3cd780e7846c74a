"""MkDocs hooks for links between docs/ and the rest of the repository, so that they work on the site as on a code host.

Files outside docs/ that a page links to are added to the site: the root's pages under names of their own, everything
else (model cards, result files, plots) under repository/.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
# The target of a Markdown link without its anchor, unless it is a URL or only an anchor.
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]+)(?=(?:#[^)\s]*)?\))")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, and the files that those link to in turn."""
    waiting = [*PAGES, *(DOCS + file.src_uri for file in files.documentation_pages())]
    for path in waiting:
        site = _site_path(path)
        if files.get_file_from_path(site) is None:
            # Only pages have a place in the navigation, and are missed if they lack it.
            inclusion = InclusionLevel.INCLUDED if path in PAGES else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, site, abs_src_path=str(ROOT / path), inclusion=inclusion))
        if path.endswith(".md"):
            waiting += [target for target in _targets(path) if target not in waiting]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links relative to the page's place on the site."""
    source = next((path for path, site in PAGES.items() if site == page.file.src_uri), None)
    if source is None:
        site = page.file.src_uri
        source = site.removeprefix("repository/") if site.startswith("repository/") else DOCS + site
    here, there = posixpath.dirname(source), posixpath.dirname(page.file.src_uri)

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link.group()))
        return posixpath.relpath(_site_path(target), there or ".") if (ROOT / target).is_file() else link.group()

    return LINK.sub(rewrite, markdown)


def _targets(path: str) -> Iterator[str]:
    for link in LINK.finditer((ROOT / path).read_text(encoding="utf8")):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link.group()))
        if not target.startswith(DOCS) and (ROOT / target).is_file():
            yield target


def _site_path(path: str) -> str:
    if path in PAGES:
        return PAGES[path]
    if path.endswith(".ipynb"):
        # The page that notebooks.py makes from it.
        path = path.removesuffix(".ipynb") + ".md"
    return path.removeprefix(DOCS) if path.startswith(DOCS) else f"repository/{path}"
