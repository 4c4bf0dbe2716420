"""A file of weights fits, every name of it, or is refused."""

import pytest
import torch

from speechbrain_amnet.loading import WeightsError, load_weights


def test_weights_are_those_of_the_file(tmp_path):
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    torch.save(one.state_dict(), tmp_path / "x.ckpt")
    load_weights(other, tmp_path / "x.ckpt")
    assert torch.equal(one.weight, other.weight)


def test_a_missing_name_is_not_passed_over(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.save({"weight": module.weight}, tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match="Missing key.*bias"):
        load_weights(module, tmp_path / "x.ckpt")


def test_what_is_no_file_of_weights(tmp_path):
    module, file = torch.nn.Linear(2, 2), tmp_path / "x.ckpt"
    with pytest.raises(FileNotFoundError, match="no such file: .*x.ckpt"):
        load_weights(module, file)
    file.write_text("weights")
    with pytest.raises(WeightsError, match="x.ckpt: not the weights of Linear"):
        load_weights(module, file)
