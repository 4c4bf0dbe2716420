"""The picture of the trade-off: colours, labels, one data set."""

import matplotlib.figure
import pytest

from speechbrain_amnet.report import tradeoff
from speechbrain_amnet.report.results import read_results


def test_tradeoff(runs, tmp_path, picture, has_color):
    for seed in (1, 2):
        runs.make("full", seed)
    runs.make("amnet")
    runs.make("energy", errors=(1, 1, 1, 1, 1), mflops_per_frame=1.5)
    results = read_results([runs.folder / "runs"])
    pixels = picture(
        tradeoff.plot_tradeoff(results, tmp_path / "new" / "t.png")
    )
    assert has_color(pixels, tradeoff.EXPERIMENTS["amnet"])
    assert has_color(pixels, tradeoff.OTHERS[0])
    with pytest.raises(ValueError, match="no results"):
        tradeoff.plot_tradeoff([], tmp_path / "u.png")
    results[0]["data"] = "other"
    with pytest.raises(ValueError, match="one data set, not: other test, toy"):
        tradeoff.plot_tradeoff(results, tmp_path / "u.png")


def test_one_experiment_on_several_devices_is_a_line():
    axes = matplotlib.figure.Figure().subplots()
    rows = [
        {"experiment": name, "wer": wer, "wer_low": None, "mflops": mflops}
        for name, wer, mflops in (("any", 3, 2), ("one", 1, 1), ("any", 2, 4))
    ]
    looks = {"any": ("red", "o"), "one": ("blue", "s")}

    def x(row):
        return row["mflops"]

    tradeoff.draw_points(axes, rows, [], looks, x, x)
    (line,) = [one for one in axes.lines if len(one.get_xdata()) > 1]
    assert list(line.get_xdata()) == [2, 4] and list(line.get_ydata()) == [3, 2]
    assert line.get_color() == "red"
    for row, device in zip(rows, ("r = 2", "r = 2", "r = 4")):
        row |= {"data": "toy", "device": device, "speed": None}
    assert [tradeoff.short_label(row, rows) for row in rows] == [
        "any, r = 2",
        "one, r = 2",
        "r = 4",
    ]


def test_labels_do_not_cover_each_other():
    figure = matplotlib.figure.Figure()
    axes = figure.subplots()
    points = [("first", 1.0, 1.0), ("second", 1.01, 1.0), ("third", 1.0, 1.02)]
    axes.plot([0, 2], [0, 2])
    canvas = tradeoff.FigureCanvasAgg(figure)
    canvas.draw()
    tradeoff.label_points(
        axes, points, [(1.0, 0.5, 1.5), (1.0, None, None)], "kkk"
    )
    boxes = [
        text.get_window_extent(canvas.get_renderer()).extents
        for text in axes.texts
    ]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(tradeoff.overlap(box, other) for other in boxes[:i])
