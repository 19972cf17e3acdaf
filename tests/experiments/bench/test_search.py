"""The benchmark of MCTS simulations on small trees: its table and its refusals."""

import re

import pytest

from treeshare.experiments.bench.search import main


def test_table_has_a_row_for_each_size(capsys):
    main(["40", "20", "--window=10", "--seconds=0.001"])
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", capsys.readouterr().out, re.MULTILINE)
    assert [size for size, _ in rows] == ["20", "40"]
    for _, figures in rows:
        assert all(int(figure.replace(",", "")) >= 0 for figure in figures.split("|"))


def test_window_longer_than_the_smallest_size_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["20", "--window=20"])
    assert "--window=20 must be from 1 to 19" in capsys.readouterr().err
