"""Write Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, num_text_columns: int = 1
) -> str:
    """A Markdown table without a newline at its end.

    Args:
        head: the columns' names.
        rows: the cells of each row. Text that holds `|` must be escaped.
        num_text_columns: the number of columns that are aligned to the left. The others hold
            numbers and are aligned to the right.
    """
    rule = ["---"] * num_text_columns + ["--:"] * (len(head) - num_text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
