"""The page: all in one file, and drawn where there is a browser."""

import html
import json
import re
import shutil

import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.report.page import write_page


@pytest.fixture
def page(runs):
    """`amnet` and `full` beside each other."""
    both = runs.make("amnet", errors=(0, 1, 0, 0, 1)), runs.make("full")
    return write_page(both, runs.folder / "new" / "page.html", count=3)


def test_what_the_page_holds(page, runs, data_of):
    data = data_of(page)
    assert [run["name"] for run in data["runs"]] == [
        "amnet, toy test, r = 2, seed 1",
        "full, toy test, r = 2, seed 1",
    ]
    assert data["runs"][0]["branches"] == ["dense", "cheap"]
    assert [one["seconds"] for one in data["utterances"]] == [1.0, 3.0, 5.0]
    for one in data["utterances"]:
        assert one["audio"].startswith("data:audio/wav;base64,")
        assert max(map(abs, one["wave"])) == 1
        amnet, full = one["runs"]
        assert set(amnet["branch"]) == {"0", "1"}
        assert set(full["branch"]) == {"0"}
        for run in (amnet, full):
            frames = {len(run[k]) for k in ("branch", "backlog", "wait")}
            assert frames == {round(one["seconds"] / 0.04)}
        late, early = full["words"][-1][1], amnet["words"][0][1]
        assert late > one["seconds"] > early
    assert [p["name"] for p in data["points"]] == ["full", "amnet"]
    assert not list(page.parent.glob("*.part"))


def test_the_page_asks_no_network(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"""(?:src|href)=["'](?!data:)|https?://|@import""", text
    )


def test_data_cannot_end_their_element(runs, data_of):
    run = runs.make("</script><b>", errors=(0,))
    page = write_page([run], runs.folder / "page.html", count=1)
    assert data_of(page)["runs"][0]["name"].startswith("</script>")
    assert page.read_text().count("</script>") == 2


def test_any_name_may_stand_in_the_title(runs, data_of):
    run = runs.make("amnet", data="MY DATA TITLE")
    page = write_page([run], runs.folder / "page.html", count=1)
    assert (
        "<title>amnet, MY DATA TITLE test, r = 2, seed 1</title>"
        in page.read_text()
    )
    assert data_of(page)["points"][0]["name"] == "amnet"


def test_another_device_is_another_point(runs, data_of):
    run = runs.make("amnet")
    slow = {"load": 4.0, "flops_per_second": 2e7}
    other = runs.make("amnet", published=True, device=slow)
    out = runs.folder / "page.html"
    page = write_page([run], out, count=1, others=[other])
    names = [point["name"] for point in data_of(page)["points"]]
    assert names == ["amnet, r = 2", "amnet, r = 4"]
    with pytest.raises(ValueError, match="no further results of toy test in"):
        write_page([run], out, others=[run])
    with pytest.raises(ValueError, match="at least one utterance, got 0"):
        write_page([run], out, count=0)


def test_runs_of_other_utterances_are_refused(runs):
    one, other = runs.make("amnet", errors=(0,)), runs.make("full", errors=(0,))
    for name in ("frames_test.jsonl", "utterances_test.csv"):
        file = other / name
        file.write_text(file.read_text().replace("u0", "v0"))
    with pytest.raises(ValueError, match="no utterances of test in common"):
        write_page([one, other], runs.folder / "page.html")
    with pytest.raises(FileNotFoundError, match="frames_dev.jsonl|results_dev"):
        write_page([one], runs.folder / "page.html", split="dev")


def test_noise_tells_runs_apart(runs, data_of):
    both = runs.make("amnet"), runs.make("amnet", seed=2, noise_db=12.0)
    page = write_page(both, runs.folder / "page.html", count=1)
    assert [run["name"] for run in data_of(page)["runs"]] == [
        "amnet, toy test, r = 2, seed 1",
        "amnet, toy, noise 12 dB test, r = 2, seed 2",
    ]
    names = [point["name"] for point in data_of(page)["points"]]
    assert names == ["amnet, toy", "amnet, toy, noise 12 dB"]


def test_two_trainings_of_one_seed_are_not_averaged(runs, data_of, tmp_path):
    one = runs.make("amnet")
    other = shutil.copytree(one, tmp_path / "again")
    page = write_page([one, other], runs.folder / "page.html", count=1)
    points = data_of(page)["points"]
    assert [point["name"] for point in points] == [
        f"amnet, {folder}" for folder in sorted(map(str, (one, other)))
    ]
    assert all("seeds: 1" in point["about"] for point in points)


def test_other_recordings_of_the_same_names_are_refused(runs):
    one, other = runs.make("amnet"), runs.make("full")
    file = other / "utterances_test.csv"
    file.write_text(file.read_text().replace("LIGHTS", "NIGHTS"))
    with pytest.raises(
        ValueError, match="of different recordings: u0 is 'LIGHTS"
    ):
        write_page([one, other], runs.folder / "page.html")


def test_command(runs, capsys, data_of):
    run = runs.make("amnet")
    runs.make("small", published=True)
    others = runs.folder / "published"
    assert (
        cli.main(["page", str(run), "--count=1", "--others", str(others)]) == 0
    )
    page = run / "page_test.html"
    assert str(page) in capsys.readouterr().out
    names = [point["name"] for point in data_of(page)["points"]]
    assert names == ["small", "amnet"]


def test_a_browser_draws_it(page, tmp_path, browse, picture, has_color):
    shot = tmp_path / "shot.png"
    browse(page, "--virtual-time-budget=2000", f"--screenshot={shot}")
    pixels = picture(shot)
    for color in ("#0072B2", "#F2B134"):  # the key of the branches
        assert has_color(pixels, color)
    for color in ("#BFDCEC", "#FCEBCC"):  # the frames, pale before they play
        assert has_color(pixels, color, least=1000)
    assert has_color(pixels, "#4B5563", least=1000)  # the sound
    assert has_color(pixels, "#DDDFE0", least=300)  # the backlog


# A hand on the page: it plays, looks, and points at a dot of the plot. A clock
# stands in for sound and frames, which do not pass in a browser's virtual time.
HAND = """<script>
let from = 0, began = null;
const heard = () => began === null ? from
  : Math.min(chosen.seconds, from + (performance.now() - began) / 1000);
Object.defineProperty(audio, "currentTime",
  { get: heard, set: (seconds) => { from = seconds; } });
audio.pause = () => { from = heard(); began = null; };
audio.play = () => {
  began = performance.now();
  setTimeout(() => audio.dispatchEvent(new Event("ended")),
    1000 * (chosen.seconds - from));
};
window.requestAnimationFrame = (next) => setTimeout(next, 16);
move(0);
const seen = [], shown = () => sections.map(({ words }) =>
  [...words.children].map((word) => word.textContent.trim()));
const look = () => seen.push([now, $("play").textContent, shown()]);
look();
$("play").click();
const eye = setInterval(() => {
  look();
  if (playing) return;
  clearInterval(eye);
  const dot = document.querySelector("circle");
  const tip = () => [getComputedStyle($("tip")).display, $("tip").textContent];
  dot.dispatchEvent(new PointerEvent("pointermove", {clientX: 9, clientY: 9}));
  const over = tip();
  dot.dispatchEvent(new PointerEvent("pointerleave"));
  const out = { seen, limit: limit(), over, left: tip(), said: chosen.runs };
  make(document.body, "pre", JSON.stringify(out)).id = "out";
}, 50);
</script>"""


def test_in_a_browser_it_plays_and_tells(page, browse):
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{HAND}</body>"), "utf-8")
    dom = browse(page, "--virtual-time-budget=30000", "--dump-dom")
    (found,) = re.findall('<pre[^>]*id="out"[^>]*>(.*?)</pre>', dom, re.S)
    out = json.loads(html.unescape(found))
    times, plays, words = zip(*out["seen"])
    assert times[0] == 0 and not any(words[0])
    assert plays[0] == plays[-1] == "Play" and "Stop" in plays
    assert list(times) == sorted(times) and len(set(times)) > 5
    assert times[-1] == pytest.approx(out["limit"])
    for r, one in enumerate(out["said"]):
        said = [word for word, _ in one["words"]]
        assert words[-1][r] == said and said
        for time, _, shown in out["seen"]:  # none before it is ready
            ready = [w for w, when in one["words"] if when <= time + 1e-9]
            assert shown[r] == ready
    assert out["over"][0] == "block" and "WER" in out["over"][1]
    assert out["left"][0] == "none"
