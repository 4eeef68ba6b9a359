"""Notebooks are pages of the site, with the outputs they were saved with; a hook of mkdocs.yml.

Links to docs/notebooks/NAME.ipynb, which a repository's browser shows by itself, lead to the page.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]*)\.ipynb(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every notebook, beside the file itself."""
    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        uri = path.relative_to(config.docs_dir).with_suffix(".md").as_posix()
        text = page_of(json.loads(path.read_text()), path.name)
        files.append(File.generated(config, uri, content=text, inclusion=InclusionLevel.INCLUDED))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to notebooks to their pages; those pages have the link to the file."""
    if page.file.src_uri.removesuffix(".md") + ".ipynb" in files.src_uris:
        return markdown
    return LINK.sub(lambda m: f"{m['path']}.md", markdown)


def page_of(notebook: dict[str, Any], name: str) -> str:
    """A notebook as Markdown: its text, its code, what each cell put out."""
    parts = ["".join(cell["source"]) for cell in notebook["cells"][:1]]
    parts.append(f"The notebook: [{name}]({name}). Here it is with its outputs.")
    for cell in notebook["cells"][1:]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"~~~~python\n{source}\n~~~~")
        parts += [text for out in cell["outputs"] if (text := _output(out))]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    """What a cell printed or showed; its HTML where it has that."""
    if "text" in output:
        return _printed("".join(output["text"]))
    data = output.get("data", {})
    if "text/html" in data:
        # what is scrolled can be reached by the keyboard
        shown = "".join(data["text/html"]).replace("<pre>", '<pre tabindex="0">')
        return f'<div class="shown">{shown}</div>'
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        image = f'<img alt="The figure of this cell" src="data:image/png;base64,{png}">'
        return f'<p class="shown">{image}</p>'
    return _printed("".join(data.get("text/plain", [])))


def _printed(text: str) -> str:
    return f"~~~~text\n{text.rstrip()}\n~~~~" if text.strip() else ""
