"""Pictures: written whole, of the right contents, with clear errors."""

import json

import matplotlib.colors
import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.report import plots, table


def picture(path):
    """The picture's pixels, after a look that it is one and not blank."""
    assert path.is_file() and not list(path.parent.glob("*.part"))
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.01
    return pixels


def has_color(pixels, color):
    wanted = np.array(matplotlib.colors.to_rgb(color))
    return bool((np.abs(pixels[..., :3] - wanted) < 0.02).all(-1).any())


def test_utterances(runs):
    run = runs.make("amnet")
    out = plots.plot_utterances(run, "test")
    assert out == run / "utterances_test.png"
    pixels = picture(out)
    for color in (plots.BRANCHES[0], plots.BRANCHES[1], plots.RED):
        assert has_color(pixels, color)
    assert not has_color(pixels, plots.BRANCHES[2])


def test_utterances_of_a_single_branch(runs, tmp_path):
    run = runs.make("full")
    pixels = picture(plots.plot_utterances(run, "test", 1, tmp_path / "a.png"))
    assert not has_color(pixels, plots.BRANCHES[1])


def test_chosen_are_short_median_long(runs):
    run = runs.make("amnet", errors=[0] * 5)
    read = plots.read_frames(run, "test")
    assert [u["id"] for u in read] == ["u0", "u1", "u2", "u3", "u4"]
    assert plots.spread(5, 3) == [0, 2, 4]
    assert plots.spread(1000, 3) == [100, 500, 899]
    assert plots.spread(5, 1) == [2]
    assert plots.spread(1, 3) == [0]


def test_what_is_drawn_of_an_utterance(runs):
    run = runs.make("amnet", errors=(1,), period=4)
    drawn = plots.prepare(plots.read_frames(run, "test")[0], run)
    assert drawn["end"] == pytest.approx(1.0)
    assert drawn["shares"] == pytest.approx([0.28, 0.72])
    assert drawn["limit"] == pytest.approx(1.0 + drawn["latency"] / 1000)
    assert [word for word, times, row in drawn["words"]] == ["LIGHTS", "ON"]
    assert len(drawn["words"][0][1]) == 6
    assert len(drawn["wave"]) == drawn["rate"] == 16000


def test_words_from_subword_pieces():
    pieces = [("▁KIT", 1), ("CHEN", 3), ("▁", 4), ("▁ON", 5)]
    words = plots.words_of(pieces, 0.04)
    assert [word for word, _ in words] == ["KITCHEN", "ON"]
    assert words[0][1] == pytest.approx([0.08, 0.16])


def test_words_at_one_place_are_stacked():
    assert plots.stack([("WORD", 1.0, 1.0)] * 3) == [0, 1, 2]
    assert plots.stack([("WORD", 1.0, 1.0), ("WORD", 2.0, 2.0)]) == [0, 0]
    assert plots.stack([]) == []


def test_nothing_found_is_drawn_too(runs):
    picture(plots.plot_utterances(runs.make("amnet", errors=(3,)), "test"))


def test_utterances_of_a_run_that_is_incomplete(runs):
    run = runs.make("amnet")
    with pytest.raises(FileNotFoundError, match="evaluate the run on dev"):
        plots.plot_utterances(run, "dev")
    frames = run / "frames_test.jsonl"
    lines = frames.read_text().splitlines()
    frames.write_text("\n".join([lines[0], lines[1][:50]]))
    with pytest.raises(ValueError, match="line 2, is incomplete"):
        plots.plot_utterances(run, "test")
    frames.write_text(json.dumps({**json.loads(lines[0]), "branch": "01"}))
    with pytest.raises(ValueError, match="as many branches as backlogs"):
        plots.plot_utterances(run, "test")
    frames.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        plots.plot_utterances(run, "test")
    frames.write_text("\n".join(lines))
    (runs.audio / "u4.wav").unlink()
    with pytest.raises(FileNotFoundError, match="audio of u4 is no longer"):
        plots.plot_utterances(run, "test")
    assert not list(run.glob("*.png*"))


def test_tradeoff(runs, tmp_path):
    for seed in (1, 2):
        runs.make("full", seed)
    runs.make("amnet")
    runs.make("energy", errors=(1, 1, 1, 1, 1), mflops_per_frame=1.5)
    results = table.read_results([runs.folder / "runs"])
    pixels = picture(plots.plot_tradeoff(results, tmp_path / "new" / "t.png"))
    assert has_color(pixels, plots.EXPERIMENTS["amnet"])
    assert has_color(pixels, plots.OTHERS[0])
    with pytest.raises(ValueError, match="no results"):
        plots.plot_tradeoff([], tmp_path / "u.png")
    results[0]["data"] = "other"
    with pytest.raises(ValueError, match="one data set, not: other test, toy"):
        plots.plot_tradeoff(results, tmp_path / "u.png")


def test_labels_do_not_cover_each_other():
    figure = matplotlib.figure.Figure()
    axes = figure.subplots()
    points = [("first", 1.0, 1.0), ("second", 1.01, 1.0), ("third", 1.0, 1.02)]
    axes.plot([0, 2], [0, 2])
    canvas = plots.FigureCanvasAgg(figure)
    canvas.draw()
    plots.label_points(
        axes, points, [(1.0, 0.5, 1.5), (1.0, None, None)], "kkk"
    )
    boxes = [
        text.get_window_extent(canvas.get_renderer()).extents
        for text in axes.texts
    ]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(plots.overlap(box, other) for other in boxes[:i])


def test_training(train_log, tmp_path):
    pixels = picture(plots.plot_training(train_log, tmp_path / "t.png"))
    assert has_color(pixels, plots.BRANCHES[1])


def test_training_log_is_read(train_log):
    epochs = plots.read_log(train_log)
    assert list(epochs) == [1, 2, 3, 4, 5, 6]
    assert epochs[4]["valid transducer"] == 14.0  # the second time
    assert epochs[6]["train saved"] == -3.15e-3
    assert epochs[2]["valid wer"] == 50.0
    assert epochs[3]["temperature"] == 64.0


def test_training_of_one_epoch_and_one_branch(tmp_path):
    log = tmp_path / "train_log.txt"
    log.write_text("epoch: 1, lr: 1.00 - train loss: 9.0 - valid loss: 8.0\n")
    assert picture(plots.plot_training(log, tmp_path / "t.png")).shape[0] < 600
    log.write_text("Epoch loaded: 3 - test loss: 1.0\n")
    with pytest.raises(ValueError, match="has no epoch yet"):
        plots.plot_training(log, tmp_path / "t.png")
    with pytest.raises(FileNotFoundError, match="no training log"):
        plots.plot_training(tmp_path / "none.txt", tmp_path / "t.png")


def test_command(runs, train_log, tmp_path, capsys):
    full, amnet = runs.make("full"), runs.make("amnet")
    train_log.rename(amnet / "train_log.txt")
    assert cli.main(["plot", str(full), str(amnet)]) == 0
    shown = capsys.readouterr().out.split()
    assert sorted(shown) == sorted(
        str(path)
        for path in (
            amnet / "training.png",
            amnet / "utterances_test.png",
            full / "utterances_test.png",
            runs.folder / "runs" / "tradeoff_toy_test.png",
        )
    )
    out = tmp_path / "pictures"
    assert cli.main(["plot", str(amnet), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "runs-amnet-1-training.png",
        "runs-amnet-1-utterances_test.png",
    ]


def test_command_on_a_training_that_goes_on(train_log, capsys):
    assert cli.main(["plot", str(train_log.parent)]) == 0
    assert capsys.readouterr().out.endswith("training.png\n")


def test_command_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["plot", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("amnet: error: no results.json")
    assert shown.count("\n") == 1
