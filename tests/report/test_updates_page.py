"""The page of updates: all in one file, and drawn where there is a browser."""

import base64
import html
import json
import re

import numpy as np
import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.diff.changes import HashChange, SparseChange, Values
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.report.updates_page import write_updates_page

SHAPE = (4, 6)
TOUCHED = ([0, 7], [7], list(range(24)))  # by three updates, of 24 weights


@pytest.fixture
def updates(tmp_path):
    """A sparse chain of three, and a hashed update."""
    folder, old = tmp_path / "updates", {"w": np.zeros(SHAPE, dtype="f4")}

    def add(name, generation, change, **values):
        place = folder / name / "1" / str(generation)
        place.mkdir(parents=True)
        write_diff(make_diff({"w": change}, old), place / "update.diff")
        record = dict.fromkeys(("wer", "old_wer", "base_wer"), 10.0)
        record |= {"task": "asr", "data": "a</script>", "seed": 1}
        record |= {"base_old_wer": 5.0, "bytes": 100, "budget": 0.02}
        record |= {"generation": generation, **values}
        (place / "diff.json").write_text(json.dumps(record))

    for generation, where in enumerate(TOUCHED, 1):
        values = Values.rounded(np.ones(len(where)), 4)
        change = SparseChange(SHAPE, np.array(where), values)
        add("sparse_2", generation, change, method="sparse")
    buckets = Values.rounded(np.ones(3), 8)
    add("hash_2", 1, HashChange(SHAPE, buckets, 0, "w"), method="hash")
    return folder


def test_only_what_follows_is_a_chain(updates, tmp_path, data_of):
    sparse = updates / "sparse_2" / "1"
    (sparse / "2" / "update.diff").unlink()
    data = data_of(write_updates_page([updates], tmp_path / "page.html"))
    assert [one["generations"] for one in data["chains"]] == [[1], [3]]
    record = json.loads((sparse / "3" / "diff.json").read_text())
    record |= {"fold": 4, "generation": 2}
    (sparse / "3" / "diff.json").write_text(json.dumps(record))
    data = data_of(write_updates_page([updates], tmp_path / "page.html"))
    assert data["chains"][1]["name"].endswith("seed 1, fold 4")


def test_a_damaged_update_is_named(updates, tmp_path, capsys):
    file = updates / "sparse_2" / "1" / "2" / "update.diff"
    file.write_bytes(file.read_bytes()[:-3])
    page = tmp_path / "page.html"
    assert main(["diff", "page", str(updates), f"--out={page}"]) != 0
    assert f"{file}: damaged" in capsys.readouterr().err
    assert not page.exists()


@pytest.fixture
def page(updates, tmp_path):
    return write_updates_page([updates], tmp_path / "new" / "page.html")


def test_what_the_page_holds(page, data_of):
    data = data_of(page)
    (one,) = data["sets"]
    assert one["title"] == "a</script> (asr)"
    assert [row[0] for row in one["rows"]] == ["sparse 2 %", "hash 2 %"]
    assert {len(row) for row in one["rows"]} == {len(one["head"])}
    assert one["picture"].startswith("data:image/png;base64,")
    (chain,) = data["chains"]  # a hashed one touches everything
    assert chain["name"] == "sparse 2 %, a</script>, seed 1"
    assert chain["generations"] == [1, 2, 3]
    assert [row["again"] for row in chain["overlaps"]] == [None, 1, 1 / 24]
    (matrix,) = chain["matrices"]
    assert (matrix["name"], matrix["shape"]) == ("w", "4x6")
    assert matrix["shares"] == [2 / 24, 1 / 24, 1]
    for cells, where in zip(matrix["maps"], TOUCHED):
        found = np.frombuffer(base64.b64decode(cells), np.uint8)
        assert np.flatnonzero(found == 255).tolist() == where
        assert len(found) == 24 and found.sum() == 255 * len(where)


def test_it_is_one_file(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert not re.search(
        r"""(?:src|href)=["'](?!data:)|https?://|@import""", text
    )
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_command(updates, tmp_path, monkeypatch, capsys, data_of):
    monkeypatch.chdir(tmp_path)
    published = tmp_path / "diff_a.json"
    assert main(["diff", "table", str(updates), f"--publish={published}"]) == 0
    assert main(["diff", "page", str(published)]) == 0
    assert "updates.html" in capsys.readouterr().out
    data = data_of(tmp_path / "updates.html")
    assert not data["chains"] and len(data["sets"][0]["rows"]) == 2
    assert main(["diff", "page", str(tmp_path / "none")]) != 0
    assert "no records of updates" in capsys.readouterr().err


# A hand that plays, and an eye for what the page says and draws meanwhile.
HAND = """<script>
const seen = [];
const look = () => {
  const canvas = document.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, 6, 4).data;
  const dark = [...Array(24).keys()].filter((i) => pixels[4 * i + 2] < 9);
  seen.push([$("said").textContent, dark, $("play").textContent]);
};
look();
$("play").click();
const eye = setInterval(() => {
  look();
  if (timer) return;
  clearInterval(eye);
  make(document.body, "pre", JSON.stringify(seen)).id = "out";
}, 100);
</script>"""


def test_in_a_browser_it_plays(page, browse):
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{HAND}</body>"), "utf-8")
    dom = browse(page, "--virtual-time-budget=10000", "--dump-dom")
    (found,) = re.findall('<pre[^>]*id="out"[^>]*>(.*?)</pre>', dom, re.S)
    seen = json.loads(html.unescape(found))
    said, dark, play = zip(*seen)
    assert play[0] == play[-1] == "Play" and "Stop" in play
    shown = list(dict.fromkeys(zip(said, map(tuple, dark))))
    assert [list(cells) for _, cells in shown] == list(TOUCHED)
    assert shown[0][0] == "update 1: 8.3 % of these weights"
    assert shown[1][0].startswith("update 2: 4.2 % of these weights, 100 %")
