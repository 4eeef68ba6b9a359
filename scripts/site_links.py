"""Links of pages to files outside docs/ work on the site too; a hook of mkdocs.yml.

The site has no repository to point to. What a page names outside docs/ is put below repository/: a
Markdown file as a page, other text as a page that shows it, anything else as it is.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

# [text](PATH#anchor), but no address, no anchor alone
LINK = re.compile(r"(?<=\]\()(?![\w+]+:|#|/)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
# what a command printed: the site shows the command above it, once
PRINTED = re.compile(
    r"(?:^`rfbench [^`\n]*`:\n\n)?<!-- (?:output|like): (?P<command>rfbench [^\n]*?) -->"
    r"\n```\n",
    re.MULTILINE,
)
FOLDER = "repository"
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n\n"

shown: dict[str, Path] = {}  # path on the site -> the file in the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what that links to."""
    root, docs = _places(config)
    shown.clear()
    shown.update({page.src_uri: docs / page.src_uri for page in files.documentation_pages()})
    waiting = [*shown.values()]
    while waiting:
        for path in _outside(waiting.pop(), config):
            if (uri := _uri(path, root)) not in shown:
                shown[uri] = path
                files.append(_file(uri, path, root, config))
                waiting += [path] if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links out of docs/ to the pages that show these files; name the commands of outputs."""
    root, docs = _places(config)
    here, path = page.file.src_uri, shown.get(page.file.src_uri)
    if path is None or path.suffix != ".md":  # of another hook, or a file that is shown
        return markdown

    def moved(link: re.Match) -> str:
        target = (path.parent / link["path"]).resolve()
        if not target.exists() or (target.is_relative_to(docs) and path.is_relative_to(docs)):
            return link[0]
        uri = target.relative_to(docs).as_posix() if target.is_relative_to(docs) else None
        return _relative(uri or _uri(target, root), here) + (link["anchor"] or "")

    markdown = PRINTED.sub(lambda m: f"```text title='{m['command']}'\n", markdown)
    return LINK.sub(moved, markdown)


def _places(config: MkDocsConfig) -> tuple[Path, Path]:
    """The repository and its docs/."""
    return Path(config.config_file_path).resolve().parent, Path(config.docs_dir).resolve()


def _outside(page: Path, config: MkDocsConfig) -> Iterator[Path]:
    """The files outside docs/ that a page links to."""
    root, docs = _places(config)
    for link in LINK.finditer(page.read_text()):
        target = (page.parent / link["path"]).resolve()
        if target.exists() and target.is_relative_to(root) and not target.is_relative_to(docs):
            yield target


def _uri(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    return f"{FOLDER}/{name}" if path.suffix == ".md" or _is_binary(path) else f"{FOLDER}/{name}.md"


def _is_binary(path: Path) -> bool:
    return path.is_file() and b"\0" in path.read_bytes()[:8192]


def _file(uri: str, path: Path, root: Path, config: MkDocsConfig) -> File:
    name, hidden = path.relative_to(root).as_posix(), InclusionLevel.NOT_IN_NAV
    if _is_binary(path):
        return File.generated(config, uri, abs_src_path=str(path), inclusion=hidden)
    if path.suffix == ".md":  # the README repeats what pages say
        text = (UNSEARCHED if name == "README.md" else "") + path.read_text()
        return File.generated(config, uri, content=text, inclusion=hidden)
    held = "\n".join(sorted(p.name for p in path.iterdir())) if path.is_dir() else path.read_text()
    text = f"{UNSEARCHED}# {name}\n\n~~~~~{path.suffix.lstrip('.')}\n{held}\n~~~~~\n"
    return File.generated(config, uri, content=text, inclusion=hidden)


def _relative(uri: str, page: str) -> str:
    return os.path.relpath(uri, os.path.dirname(page) or ".").replace(os.sep, "/")
