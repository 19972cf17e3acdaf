"""The Python code of a Markdown page."""

import re


def python_blocks(page):
    """The blocks of Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
