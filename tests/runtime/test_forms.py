"""Every form of a branch is the same on a device, however it is multiplied."""

from functools import partial

import numpy as np
import pytest
import torch

from speechbrain_amnet import (
    AmortizedEncoder,
    Dense,
    LowRank,
    RandomRouting,
    Skip,
    Sparse,
)
from speechbrain_amnet.export import export_model
from speechbrain_amnet.inference import load
from speechbrain_amnet.runtime import blocks, products
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.packed import read_packed, write_packed
from speechbrain_amnet.runtime.recogniser import Recogniser

BRANCHES = [
    Dense,
    partial(LowRank, energy=0.9),
    partial(Sparse, density=0.1),
    partial(Sparse, density=0.1, block=16),
    Skip,
]


@pytest.fixture(params=[1, 2], ids="{} predictor layers".format, scope="module")
def asr(request, tiny, tmp_path_factory):
    """A model of all forms that has been through SVD and pruning."""
    folder = tmp_path_factory.mktemp("run")
    predictor = {"layers": request.param}
    made = tiny(folder, ["GO FORWARD", "STOP"], predictor=predictor)
    export_model(*made, folder / "model")
    asr = load(folder, run_opts={"device": "cpu"})
    assert asr.mods.predictor.lstm.num_layers == request.param
    router = RandomRouting([0.2] * 5, seed=3)
    encoder = AmortizedEncoder(320, 40, 2, BRANCHES, router)
    with torch.no_grad():
        for layer in encoder.layers:
            for form in (layer.input[0], layer.recurrent[0]):
                # As where something is learnt, few directions have the energy.
                few = torch.randn(form.rows, 4) @ torch.randn(4, form.columns)
                form.weight.add_(few, alpha=0.7 / form.columns**0.5)
    encoder.start_routing()
    encoder.prune(1.0)
    asr.mods.encoder = encoder.eval()
    return asr


@pytest.mark.parametrize("place", [0, -1])
def test_all_forms_as_any_product(place, asr, speech, tmp_path, monkeypatch):
    """A clock may find the first product the fastest, or the last."""
    monkeypatch.setattr(products, "fastest", lambda all_, _: all_[place])
    write_packed(pack(asr), tmp_path / "model.safetensors")
    model = Recogniser(read_packed(tmp_path / "model.safetensors"))
    forms = ["dense", "low rank", "dense", "dense", "zeros"]
    if place:
        forms[2:4] = ["CSR", "blocks" if blocks.kernel() else "CSR"]
    for form, layers in zip(forms, model.encoder.products, strict=True):
        assert list(map(products.form_of, layers)) == [form] * 2
    for thin in (layer.input[1] for layer in asr.mods.encoder.layers):
        assert thin.rank < len(thin.right)

    samples, states = speech(1.7), []
    stream = model.start(
        encoded=lambda: states.append(stream.cells[-1].h.copy())
    )
    frames = stream.feed(samples[:9000]) + stream.feed(samples[9000:], True)
    wavs = torch.from_numpy(samples)[None]
    encoded, _, routing = asr.encode_batch(wavs, torch.ones(1))
    words, tokens = asr.transcribe_batch(wavs, torch.ones(1))
    assert np.stack(states) == pytest.approx(encoded[0].numpy(), abs=2e-5)
    assert [frame.branch for frame in frames] == routing.choice[0].tolist()
    assert {frame.branch for frame in frames} == set(range(5))
    assert "".join(frame.text for frame in frames) == words[0]
    assert stream.tokens == tokens[0] and len(set(tokens[0])) > 3
