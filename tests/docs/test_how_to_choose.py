"""docs/how-to-choose-branches.md: its code runs, its table is reckoned."""

import doctest
import re
from pathlib import Path

from speechbrain_amnet.hparams import load_hparams

PAGE = Path(__file__).parents[2] / "docs" / "how-to-choose-branches.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_python_gives_what_the_page_says():
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted and not found.failed


def test_shares_are_those_of_the_formula():
    lines = [line.strip("| ").split(" | ") for line in TEXT.splitlines()]
    header = next(cells for cells in lines if cells[0].startswith("c = "))
    costs = [float(cell.removeprefix("c = ")) for cell in header]
    rows = [cells for cells in lines if cells[0].startswith("r = ")]
    assert len(rows) == 4
    for load, *shares in rows:
        for cost, share in zip(costs, shares):
            r = float(load.removeprefix("r = "))
            expected = max(0, (1 / r - cost) / (1 - cost))
            assert abs(float(share) - expected) < 0.0051


def test_yaml_loads(tmp_path, root):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.M | re.S)
    base = root / "hparams" / "amnet.yaml"
    (tmp_path / "mine.yaml").write_text(block.replace("amnet.yaml", str(base)))
    folders = {"data_folder": "none", "output_folder": str(tmp_path / "out")}
    encoder = load_hparams(tmp_path / "mine.yaml", folders)["encoder"]
    flops = encoder.branch_flops
    assert len(flops) == 3 and flops == sorted(flops, reverse=True)
