"""The tables of the report in each format, with names that try to break out of it."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from config_results import result

from treeshare.experiments.reports.config_results import PuzzleMeans
from treeshare.experiments.reports.intervals import Estimate
from treeshare.experiments.reports.paired_tests import PairedComparison
from treeshare.experiments.reports.reference_results import REFERENCE_RESULTS
from treeshare.experiments.reports.tables import pairs_table, results_table
from treeshare.experiments.reports.writers import (
    Section,
    csv_table,
    data_address,
    html_page,
    latex_page,
    markdown_page,
)

NASTY = "<img src=x onerror=alert(1)>|[a](b)`*$x^{$\\_&%#~{}\"'"
SHARE = Estimate(0.5, 0.2, 0.8)
ONE = result("tot_bfs", parameters={"breadth": "5"}, grades={"letters_5": 0.25}, top1=[1, 0])


def section(*shown, task="sorting", pairs=None, **more):
    return Section(task, results_table(task, shown), pairs, **more)


PAIR = PairedComparison(
    *(ONE, result("cot"), 20, 7, 1, Estimate(-0.3, -0.55, 0.05), SHARE, "McNemar", 0.0703, 0.14),
)


def lines_of(text):
    return [line.strip() for line in text.splitlines()]


# What the formats hold.


def test_markdown():
    page = markdown_page([section(ONE, image="a.svg", pairs=pairs_table([PAIR], 2))])
    lines = lines_of(page)
    assert lines[:5] == ["# Accuracy and what it costs", "", "## sorting", "", "![sorting](a.svg)"]
    assert lines[6:9] == [
        "| run | model | puzzles | top-1 | any-of-b | b | mean accuracy | letters_5 | tokens "
        "| KV computed | nodes | requests | seconds |",
        f"| --- | --- |{' --: |' * 11}",
        "| tot_bfs breadth=5 | m | 2 | 50.0% [0.0, 100.0] | 50.0% [0.0, 100.0] | 5 "
        "| 50.0% [0.0, 100.0] | 25.0% | 100 [50, 200] | 50 | 10.0 | 5.0 | 1 |",
    ]
    assert (
        "| tot_bfs breadth=5 | cot | m | McNemar | 20 | 7 | 1 | −30.0 [−55.0, +5.0] | 0.07 | 0.14 "
        "| +50.0 [+20.0, +80.0] |" in lines
    )
    assert "2 pairs have no puzzle in common and are not compared." in lines


def test_latex():
    lines = lines_of(latex_page([section(ONE, pairs=pairs_table([PAIR], 0))]))
    assert lines[0] == r"% needs \usepackage{booktabs}"
    assert r"\begin{tabular}{llrrrrrrrrrrr}" in lines
    assert r"\caption{sorting}" in lines and r"\label{tab:sorting-paired}" in lines
    assert (
        r"tot\_bfs breadth=5 & m & 2 & 50.0\% [0.0, 100.0] & 50.0\% [0.0, 100.0] & 5 & "
        r"50.0\% [0.0, 100.0] & 25.0\% & 100 [50, 200] & 50 & 10.0 & 5.0 & 1 \\" in lines
    )
    assert any(r"$-$30.0 [$-$55.0, +5.0] & 0.07 & 0.14" in line for line in lines)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert lines.count(rule) == 2
    for part in ("table", "tabular"):
        starts = [line for line in lines if line.startswith(rf"\begin{{{part}}}")]
        assert len(starts) == lines.count(rf"\end{{{part}}}") == 2


def test_csv_has_exact_numbers():
    tables = [("sorting", results_table("sorting", [ONE])), ("t", results_table("t", [ONE, ONE]))]
    rows = list(csv.DictReader(io.StringIO(csv_table(tables))))
    assert [row["task"] for row in rows] == ["sorting", "t", "t"]
    first = rows[0]
    assert (first["run"], first["top1"], first["top1_low"], first["top1_high"]) == (
        *("tot_bfs breadth=5", "0.5", "0.0", "1.0"),
    )
    assert (first["grade_letters_5"], first["tokens_high"], first["b"]) == ("0.25", "200.0", "5")
    (pair,) = csv.DictReader(io.StringIO(csv_table([("t", pairs_table([PAIR], 0))])))
    assert (pair["p"], pair["top1_difference"], pair["first_better"]) == ("0.0703", "-0.3", "7")


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_html_needs_no_other_file():
    page = html_page([section(ONE, image=data_address(b"<svg/>"), pairs=pairs_table([PAIR], 0))])
    assert '<td class="text">tot_bfs breadth=5</td>' in page
    assert "<td>50.0% [0.0, 100.0]</td>" in page and "<h3>Paired tests</h3>" in page
    elements = Elements(page).found
    assert [a for tag, a in elements if tag == "img"] == [
        {"src": "data:image/svg+xml;base64,PHN2Zy8+", "alt": "sorting"}
    ]
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in elements}
    assert "default-src 'none'" in page


def test_formats_hold_the_same_lines():
    shown = [ONE, result("cot"), result("io")]
    for text in (
        markdown_page([section(*shown)]),
        latex_page([section(*shown)]).replace(r"\_", "_"),
        html_page([section(*shown)]),
        csv_table([("sorting", results_table("sorting", shown))]),
    ):
        assert re.findall("tot_bfs breadth=5|cot|io(?!n)", text)[:3] == [
            *("tot_bfs breadth=5", "cot", "io"),
        ]


# Notes.


def test_published_results_are_in_italics_behind_ours():
    figure = REFERENCE_RESULTS["game24"][4]
    page = markdown_page([section(ONE, task="game24")])
    assert "| *ToT, b = 5* | *GPT-4* | 100 |  | 74.0% | 5 |" in page
    assert "arXiv 2305.10601" in page and "counts any of the 5 answers" in page
    lines = lines_of(latex_page([section(ONE, task="game24")]))
    at = lines.index(r"\midrule", lines.index(r"\midrule") + 1)
    assert lines[at + 1].startswith(r"\textit{IO} & \textit{GPT-4} & 100 &")
    rows = csv.DictReader(io.StringIO(csv_table([("game24", results_table("game24", [ONE]))])))
    assert figure.source in [row["note"] for row in rows]


def test_rows_of_several_devices_are_marked():
    mixed = result("a", resources={"cuda bfloat16": 12, "cpu float32": 8})
    table = results_table("sorting", [mixed, result("b", resources={"cuda bfloat16": 20})])
    page = markdown_page([Section("sorting", table)])
    note = "a: rows of different devices or data types, 12 on cuda bfloat16, 8 on cpu float32."
    assert "| a † |" in page and "| b |" in page and f"\n\n† {note}\n" in page
    assert r"a \dag{} &" in latex_page([Section("sorting", table)])
    rows = list(csv.DictReader(io.StringIO(csv_table([("sorting", table)]))))
    assert [(row["run"], row["note"]) for row in rows] == [("a", note), ("b", "")]


def test_what_cannot_be_compared_is_said():
    shown = [result("a", top1=[1, 0], is_oracle=True), result("b", top1=[1], repeated=3)]
    page = markdown_page([section(*shown)])
    assert "**The runs are not all over the same puzzles.**" in page
    assert "**3 rows are left out: another run of the same configuration and seed" in page
    assert "In runs marked oracle the evaluator knew the answers." in page
    assert "**" not in markdown_page([section(result("a"), result("b"))])


def test_unknown_digests_may_be_of_the_same_puzzles():
    def of(*digests):
        return result(puzzles={"p": PuzzleMeans(1, 1, frozenset(digests))})

    said = "The runs are not all over the same puzzles."
    assert said not in markdown_page([section(of("a"), of(), of("a"))])
    assert said in markdown_page([section(of("a"), of("b"))])


def test_seeds_and_failures_have_columns_where_there_are_any():
    page = markdown_page([section(result("a", seeds=3, failed=2), result("b"))])
    assert "| puzzles | seeds | failed | top-1 |" in page and "| a | m | 2 | 3 | 2 |" in page
    assert "**Puzzles that failed with an error are counted as failed and nowhere else.**" in page


def test_columns_are_chosen_by_key():
    table = results_table("sorting", [ONE]).with_columns(["tokens", "run", "grade_letters_5"])
    assert [column.key for column in table.columns] == ["run", "grade_letters_5", "tokens"]
    assert markdown_page([Section("t", table)]).count("| tot_bfs breadth=5 | 25.0% | 100 [") == 1
    with pytest.raises(ValueError, match=r"there is no column 'top-1'; there are run, model, p"):
        results_table("sorting", [ONE]).with_columns(["top-1"])


# Names.


def nasty_section(**more):
    shown = [
        result(NASTY, model=NASTY, grades={NASTY: 0.5}, resources={NASTY: 1, "b": 1}),
        result("b", parameters={NASTY: NASTY}),
    ]
    return section(*shown, task=NASTY, **more)


def test_names_cannot_break_out_of_markdown():
    page = markdown_page([nasty_section()])
    for character in "<>`*$\\":
        assert character not in page.replace("**", "")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len({row.count("|") for row in rows}) == 1
    assert "&#60;img src=x" in page and "](b)" not in page


def test_names_cannot_break_out_of_html():
    tags = {tag for tag, _ in Elements(html_page([nasty_section()])).found}
    assert "img" not in tags
    assert "&lt;img src=x onerror=alert(1)&gt;" in html_page([nasty_section()])


def test_names_cannot_break_out_of_latex():
    text = latex_page([nasty_section()])
    commands = set(re.findall(r"\\([A-Za-z]+|.)", text.replace("\\\\\n", "\n")))
    assert commands == {
        *("usepackage", "begin", "end", "centering", "small", "caption", "label", "toprule"),
        *("midrule", "bottomrule", "par", "smallskip", "raggedright", "footnotesize", "dag"),
        *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater"),
        *("textbar", "%", "$", "#", "_", "&", "{", "}"),
    }
    (label,) = re.findall(r"\\label{tab:(.*)}", text)
    assert re.fullmatch("[A-Za-z0-9-]+", label)
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    heads = [line for line in text.splitlines() if line.strip().endswith("\\\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in heads}) == 1


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@SUM(A1)"])
def test_names_are_no_formulas_in_a_spreadsheet(name):
    table = results_table(name, [result(name, model=name)])
    (row,) = csv.DictReader(io.StringIO(csv_table([(name, table)])))
    assert {row["task"], row["run"], row["model"]} == {f"'{name}"}


def test_names_of_csv_are_quoted():
    name = 'a,b"c\n'
    (row,) = csv.DictReader(io.StringIO(csv_table([(name, results_table(name, [result(name)]))])))
    assert (row["task"], row["run"]) == (name, name.strip())
