"""Every public name is documented, and loads from YAML by plain hyperpyyaml."""

import functools
import inspect

import pytest
from hyperpyyaml import load_hyperpyyaml

import speechbrain_amnet
from speechbrain_amnet import catalogue

NAMES = catalogue.names()


@pytest.mark.parametrize("name", NAMES)
def test_name_is_found_and_documented(name):
    found = catalogue.find(name)
    text = inspect.getdoc(found) or ""
    assert found.__module__.startswith("speechbrain_amnet.")
    assert text.partition("\n")[0].endswith("."), "first line: one sentence"
    assert "\nExample\n-------\n" in text and ">>> " in text
    arguments = inspect.signature(found).parameters
    if arguments:
        assert "\nArguments\n---------\n" in text
    for argument in arguments:
        assert f"\n{argument} : " in text.replace("*", ""), argument


@pytest.mark.parametrize("name", NAMES)
def test_name_loads_from_its_yaml(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some make folders
    found = catalogue.find(name)
    example = catalogue.EXAMPLES[name]
    assert f":{name}" in example
    for argument in inspect.signature(found).parameters:
        assert f"{argument}:" in example, "the snippet shows each argument"
    values = load_hyperpyyaml(example).values()
    made = [v.func if isinstance(v, functools.partial) else v for v in values]
    assert any(
        v is found or (inspect.isclass(found) and isinstance(v, found))
        for v in made
    ), "no top-level value of the snippet is made by the name"


def test_the_adapted_model_of_a_snippet_has_something_to_learn(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (text,) = [t for n, t in catalogue.EXAMPLES.items() if "DiffLinear" in n]
    parameters = load_hyperpyyaml(text)["adapted"].parameters()
    assert any(parameter.requires_grad for parameter in parameters)


def test_no_snippet_without_a_name():
    assert set(catalogue.EXAMPLES) == set(NAMES)


def test_reference_page_is_up_to_date(root):
    page = root / "docs" / "reference.md"
    assert page.read_text() == catalogue.markdown(), "run `make docs`"


# The functions themselves, on names that are made up


@pytest.fixture
def toy(monkeypatch):
    def toy_search(beam: int, blank: int = 0) -> list:
        """Finds words.

        Arguments
        ---------
        beam : int
        """

    monkeypatch.setattr(speechbrain_amnet, "ToySearch", toy_search, False)
    monkeypatch.setattr(speechbrain_amnet, "__all__", ["ToySearch"], False)
    name = "speechbrain_amnet.ToySearch"
    monkeypatch.setitem(catalogue.EXAMPLES, name, f"a: !name:{name}\n")
    return name


def test_describe_gives_name_signature_and_line(toy):
    assert catalogue.describe() == [(toy, "(beam, blank=0)", "Finds words.")]
    assert catalogue.plain() == f"{toy}  Finds words.\n"


def test_markdown_has_each_part(toy):
    page = catalogue.markdown()
    for part in (
        f"| [`{toy}`](#toysearch) | Finds words. |",
        "## ToySearch",
        f"`{toy}(beam, blank=0)`",
        "beam : int",
        f"```yaml\na: !name:{toy}\n```",
    ):
        assert part in page


def test_missing_name_is_named(monkeypatch):
    monkeypatch.setattr(speechbrain_amnet, "__all__", ["Nothing"], False)
    with pytest.raises(ImportError, match="speechbrain_amnet.Nothing"):
        catalogue.describe()
