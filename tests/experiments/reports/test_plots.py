"""The figures: every label can be read, and the same results give the same files."""

import sys
from itertools import combinations

import pytest
from config_results import result

from treeshare.experiments.reports.plots import COSTS, draw, figure_files

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra `report`")


def boxes(texts, renderer):
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    return {text.get_text(): text.get_window_extent(renderer) for text in shown}


def drawn(shown, costs=tuple(COSTS)):
    """The figure after its layout, and its renderer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(shown[0].task, shown, costs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas.get_renderer()


def tick_labels(panel):
    low, high = panel.get_xlim()
    return [tick.label1 for tick in panel.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize(
    "costs",
    [
        *([0.0663], [1.0, 1.05], [1500, 2900, 2950]),
        *([10, 2000], [12, 90_000], [1e-4, 1e9]),
    ],
    ids=str,
)
def test_labels_of_the_axes_do_not_overlap(costs):
    shown = [result(f"p{i}", tokens=cost, seconds=cost, nodes=cost) for i, cost in enumerate(costs)]
    figure, renderer = drawn(shown)
    for panel in figure.axes[3:]:
        found = boxes(tick_labels(panel), renderer)
        assert len(found) >= 2
        for one, other in combinations(found.values(), 2):
            assert not one.overlaps(other)
        assert not boxes([t.label1 for t in panel.xaxis.get_minor_ticks()], renderer)


MANY = [
    result(
        f"a_policy_with_a_long_name_{i}",
        model=f"a-model-with-a-long-name-{j}-instruct",
        tokens=1000 + i + j,
        seconds=1.0 + 0.001 * i,
        nodes=50 + j,
        top1=[1.0, 1.0, 0.0],
        parameters={"num_simulations": str(k), "exploration": "1.4142"},
    )
    for i in range(6)
    for j in range(2)
    for k in range(3)
]


@pytest.mark.parametrize("costs", [("tokens",), ("seconds", "nodes"), tuple(COSTS)])
def test_many_close_points_are_named_in_the_legend(costs):
    figure, renderer = drawn(MANY, costs)
    (legend,) = figure.legends
    names = boxes(legend.get_texts(), renderer)
    assert len(names) == len(MANY)
    for one, other in combinations(names.values(), 2):
        assert not one.overlaps(other)
    frame = legend.get_window_extent(renderer)
    titles = boxes(figure.texts, renderer)
    for box in (frame, *titles.values()):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    for panel in figure.axes:
        assert not frame.overlaps(panel.get_tightbbox(renderer))
        assert panel.get_window_extent(renderer).height > 100  # pixels: it can be read


def test_long_titles_are_cut():
    shown = [result(task="t" * 200, model="m" * 200)]
    figure, renderer = drawn(shown, ["nodes"])
    (box,) = boxes(figure.texts, renderer).values()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_results_of_one_series_look_different():
    shown = [result("a", tokens=10.0 + i, parameters={"width": str(i)}) for i in range(60)]
    figure, _ = drawn(shown, ["tokens"])
    looks = {
        (line.get_marker(), line.get_fillstyle(), line.get_color())
        for line in figure.axes[0].get_lines()
        if line.get_linestyle() == "None" and line.get_marker() in "osD^v<>*PX"
    }
    assert len(looks) == 60


def test_published_figures_are_named_at_the_right():
    figure, renderer = drawn([result("io")])
    texts = [text for panel in figure.axes for text in panel.texts]
    found = boxes(texts, renderer)
    assert "ToT, b = 5 (GPT-4)" in found and len(found) > 4
    for panel in figure.axes:
        for one, other in combinations(boxes(panel.texts, renderer).values(), 2):
            assert not one.overlaps(other)
    assert all(box.x1 <= figure.bbox.x1 for box in found.values())


@pytest.mark.parametrize("costs", [[0.1, 0.1 + 1e-12], [0.0], [0.0, 7.0]])
def test_costs_that_have_no_range(costs):
    shown = [result(parameters={"num_samples": str(i)}, nodes=cost) for i, cost in enumerate(costs)]
    assert all(figure_files("game24", shown, ["nodes"], ["svg"]))


def test_same_results_give_the_same_files():
    first, second = (figure_files("t", MANY[:3], ["nodes"], ("svg", "pdf")) for _ in range(2))
    assert first == second
    assert first[0].startswith(b"<?xml") and first[1].startswith(b"%PDF")


def test_names_are_shown_as_they_are():
    names = ["_hidden", "$x^{$", r"\frac", "<b>", "n" * 300]
    figure, _ = drawn([result(name) for name in names], ["nodes"])
    shown = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert sorted(shown) == sorted(
        ["_hidden", r"\$x^{\$", r"\frac", "<b>", f"{'n' * 51}...{'n' * 26}"]
    )
    (svg,) = figure_files("t", [result(name) for name in names], ["nodes"], ["svg"])
    assert b"&lt;b&gt;" in svg and b"<b>" not in svg


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install \"treeshare\[report\]\""):
        figure_files("t", [result()], ["nodes"], ["svg"])
