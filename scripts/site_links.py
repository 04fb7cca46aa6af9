"""A hook of MkDocs that adds the pages and pictures of the repository that the docs link to.

The docs are also read in the repository, where ``../results/figures/figure3.png`` is a file beside
the folder docs. The site has such files in its folder ``repository``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_FOLDER = "repository"
_LINK = re.compile(r"(\]\()([^)#:]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the files that the docs link to, and those that the added pages link to."""
    docs = Path(config["docs_dir"])
    todo = [Path(file.abs_src_path or "") for file in files.documentation_pages()]
    while todo:
        page = todo.pop()
        for _, target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            uri = _uri(path, docs)
            if path.is_file() and not files.get_file_from_path(uri):
                files.append(File.generated(config, uri, abs_src_path=str(path)))
                if path.suffix == ".md":
                    todo.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Change links to files outside the folder docs into links to their copies in the site."""
    docs = Path(config["docs_dir"])
    here = Path(page.file.abs_src_path or "")
    folder = Path(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        path = (here.parent / match[2]).resolve()
        if not path.exists():
            return match[0]
        target = os.path.relpath(_uri(path, docs), folder)
        return f"{match[1]}{target}{match[3]}"

    return _LINK.sub(link, markdown)


def _uri(path: Path, docs: Path) -> str:
    """The path of a file of the repository in the site."""
    if path.is_relative_to(docs):
        return path.relative_to(docs).as_posix()
    return f"{_FOLDER}/{os.path.relpath(path, docs.parent)}"
