"""The picture of a training, from a log that may be young."""

import pytest

from speechbrain_amnet.report import style, training


def test_training(train_log, tmp_path, picture, has_color):
    pixels = picture(training.plot_training(train_log, tmp_path / "t.png"))
    assert has_color(pixels, style.BRANCHES[1])


def test_training_log_is_read(train_log):
    epochs = training.read_log(train_log)
    assert list(epochs) == [1, 2, 3, 4, 5, 6]
    assert epochs[4]["valid transducer"] == 14.0  # the second time
    assert epochs[6]["train saved"] == -3.15e-3
    assert epochs[2]["valid wer"] == 50.0
    assert epochs[3]["temperature"] == 64.0


def test_training_of_one_epoch_and_one_branch(tmp_path, picture):
    log = tmp_path / "train_log.txt"
    log.write_text("epoch: 1, lr: 1.00 - train loss: 9.0 - valid loss: 8.0\n")
    assert (
        picture(training.plot_training(log, tmp_path / "t.png")).shape[0] < 600
    )
    log.write_text("Epoch loaded: 3 - test loss: 1.0\n")
    with pytest.raises(ValueError, match="has no epoch yet"):
        training.plot_training(log, tmp_path / "t.png")
    with pytest.raises(FileNotFoundError, match="no training log"):
        training.plot_training(tmp_path / "none.txt", tmp_path / "t.png")
