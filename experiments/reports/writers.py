"""Write the tables of the report as Markdown, LaTeX, HTML or CSV.

Names come from run directories, which may be another's. Each format escapes them.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from treeshare.experiments.results.markdown import markdown_table

from .intervals import Estimate
from .tables import Column, Table, Value

TITLE = "Accuracy and what it costs"


@dataclass(frozen=True, slots=True)
class Section:
    """What the report says about one task."""

    task: str
    results: Table
    pairs: Table | None = None  # None if there is nothing to compare
    image: str = ""  # the address of the figure; empty if there is none


def markdown_page(sections: Iterable[Section]) -> str:
    """The report as a Markdown page."""
    parts = [f"# {TITLE}"]
    for section in sections:
        title = _escaped_markdown(section.task)
        parts.append(f"## {title}")
        if section.image:
            parts.append(f"![{title}]({section.image})")
        parts.append(_markdown(section.results))
        if section.pairs is not None:
            parts += ["### Paired tests", _markdown(section.pairs)]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    head = [_escaped_markdown(column.name) for column in table.columns]
    num_text_columns = sum(not column.spec for column in table.columns)
    rows = _texts(table, _escaped_markdown, lambda text: f"*{text}*")
    notes = [f"**{_escaped_markdown(text)}**" for text in table.warnings]
    notes += map(_escaped_markdown, table.all_notes)
    return "\n\n".join([markdown_table(head, rows, num_text_columns=num_text_columns), *notes])


def _escaped_markdown(text: str) -> str:
    """Escape a text, so that it begins no HTML, table cell, link or image."""
    return re.sub(r"[][&<>|`*~\\$]", lambda match: f"&#{ord(match[0])};", text)


def latex_page(sections: Iterable[Section]) -> str:
    r"""The report as LaTeX tables for `\input`. They need the package booktabs."""
    parts = [r"% needs \usepackage{booktabs}"]
    for section in sections:
        label = re.sub(r"[^A-Za-z0-9]+", "-", section.task)
        parts.append(_latex(section.results, section.task, label))
        if section.pairs is not None:
            parts.append(_latex(section.pairs, f"{section.task}: paired tests", f"{label}-paired"))
    return "\n\n".join(parts) + "\n"


def _latex(table: Table, caption: str, label: str) -> str:
    head = [_escaped_latex(column.name) for column in table.columns]
    rows = list(_texts(table, _escaped_latex, lambda t: rf"\textit{{{t}}}", _latex_number))
    num_ours = sum(not line.is_published for line in table.lines)
    ours, published = (
        [f"    {' & '.join(cells)} \\\\" for cells in part]
        for part in (rows[:num_ours], rows[num_ours:])
    )
    notes = [rf"\textbf{{{_escaped_latex(text)}}}" for text in table.warnings]
    notes += map(_escaped_latex, table.all_notes)
    lines = [
        r"\begin{table}",
        r"  \centering",
        r"  \small",
        rf"  \caption{{{_escaped_latex(caption)}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if c.spec else 'l' for c in table.columns)}}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *ours,
        *([r"    \midrule", *published] if published else []),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip\raggedright\footnotesize {text}" for text in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # behind the end of a line a bracket begins an argument
        "]": "{]}",
        "†": r"\dag{}",
        "\N{REPLACEMENT CHARACTER}": "?",
    }
)


def _escaped_latex(text: str) -> str:
    return text.translate(_LATEX)


def _latex_number(text: str) -> str:
    return text.replace("%", r"\%").replace("\N{MINUS SIGN}", "$-$")


_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 90rem; margin: 2rem auto; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; }
img { max-width: 100%; background: #fff; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px; border-bottom: 1px solid #8886; text-align: right; }
th { border-bottom-width: 2px; vertical-align: bottom; }
th.text, td.text { text-align: left; }
p { max-width: 60rem; font-size: 13px; }
"""
_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{TITLE}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{TITLE}</h1>"""


def html_page(sections: Iterable[Section]) -> str:
    """The report as one HTML page, which loads and sends nothing."""
    parts = [_HEAD]
    for section in sections:
        title = html.escape(section.task)
        parts.append(f"<h2>{title}</h2>")
        if section.image:
            parts.append(f'<img src="{section.image}" alt="{title}">')
        parts.append(_html(section.results))
        if section.pairs is not None:
            parts += ["<h3>Paired tests</h3>", _html(section.pairs)]
    return "\n".join([*parts, "</body>\n</html>\n"])


def _html(table: Table) -> str:
    kinds = ["" if column.spec else ' class="text"' for column in table.columns]

    def line(tag: str, cells: Iterable[str]) -> str:
        shown = zip(cells, kinds, strict=True)
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for cell, kind in shown)}</tr>"

    head = line("th", (html.escape(column.name) for column in table.columns))
    rows = _texts(table, html.escape, lambda text: f"<em>{text}</em>")
    notes = [f"<p><strong>{html.escape(text)}</strong></p>" for text in table.warnings]
    notes += [f"<p>{html.escape(text)}</p>" for text in table.all_notes]
    lines = [head, *(line("td", cells) for cells in rows)]
    return "\n".join(["<div><table>", *lines, "</table></div>", *notes])


def data_address(svg: bytes) -> str:
    """The address of an SVG image that stands in the page itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def csv_table(tables: Sequence[tuple[str, Table]]) -> str:
    """Several tables as one CSV table.

    Numbers are exact: shares are in [0, 1], and a value with an interval has two more columns,
    `..._low` and `..._high`.

    Args:
        tables: each with the name of its task, which is the first column. A column that a table
            lacks is left empty.
    """
    lines: list[dict[str, Value]] = []
    for task, table in tables:
        for line in table.lines:
            cells: dict[str, Value] = {"task": _csv_text(task)}
            for column, value in zip(table.columns, line.cells, strict=True):
                cells |= _csv_cells(column, value)
            lines.append(cells | {"note": _csv_text(line.note)})
    names = dict.fromkeys(name for cells in lines for name in cells if name != "note")
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, "note"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_cells(column: Column, value: Value) -> dict[str, Value]:
    if isinstance(value, Estimate):
        bounds = {f"{column.key}_low": value.low, f"{column.key}_high": value.high}
        return {column.key: value.value, **bounds}
    return {column.key: _csv_text(value) if isinstance(value, str) else value}


def _csv_text(text: str) -> str:
    """The text, changed if a spreadsheet could take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _texts(
    table: Table,
    escape: Callable[[str], str],
    italic: Callable[[str], str],
    number: Callable[[str], str] = str,
) -> Iterator[list[str]]:
    """The cells of each line as texts of a format.

    Args:
        table: the table.
        escape: escapes a text.
        italic: puts an escaped text in italics, for the names of published results.
        number: escapes a number.
    """
    for line in table.lines:
        cells = []
        for column, value in zip(table.columns, line.cells, strict=True):
            if isinstance(value, str):
                cells.append(italic(escape(value)) if line.is_published else escape(value))
            else:
                cells.append(number(column.text(value)))
        if line.mark:
            cells[0] += escape(f" {line.mark}")
        yield cells
