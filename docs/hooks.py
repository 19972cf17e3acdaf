"""Hooks of mkdocs: links to files outside docs/ lead somewhere on the site too.

In the repository a page links the code by its path (`../llm_backend/engines/tree.py`). On the site
such a link leads to the API reference, and a link to another Markdown file of the repository to a
page made of that file.
"""

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
REPOSITORY_PAGES = {  # file of the repository -> its page on the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "llm_backend/embedded/MODEL_CARD.md": "model_card.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages that are made of the repository's other Markdown files."""
    for source, page in REPOSITORY_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite links that leave docs/."""
    path = page.file.src_uri
    sources = {made: source for source, made in REPOSITORY_PAGES.items()}
    here = sources.get(path, f"docs/{path}")  # where the page's text lies in the repository

    def rewritten(match):
        text, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:  # an address
            return match[0]
        file = normpath(f"{here.rpartition('/')[0]}/{target}").lstrip("/")
        page_of_file = REPOSITORY_PAGES.get(file)
        if file.endswith(".py"):
            page_of_file, anchor = f"reference/{file.split('/')[0]}.md", f"#{reference(file, text)}"
        elif file.startswith("docs/"):
            page_of_file = file.removeprefix("docs/")
        if page_of_file is None:
            return match[0]  # mkdocs warns of it
        return f"[{text}]({relpath(page_of_file, path.rpartition('/')[0] or '.')}{anchor})"

    return LINK.sub(rewritten, markdown)


def reference(file, text):
    """The anchor in the API reference of a module, or of what a text `file.py:Name.name` names.

    Private names have none of their own: the link leads to what they belong to.
    """
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if not file.startswith(("treeshare/", "kernels/")):  # see docs/reference/kernels.md
        module = f"treeshare.{module}"
    _, _, name = text.strip("`").partition(".py:")
    public = []
    for part in filter(None, name.split(".")):
        if part.startswith("_"):
            break
        public.append(part)
    return ".".join([module, *public])
