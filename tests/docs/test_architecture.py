"""docs/architecture.md names what there is, and its code runs."""

import ast
import re
from pathlib import Path

import pytest
import torch

from speechbrain_amnet import AmortizedEncoder, Arbitrator, Dense

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "speechbrain_amnet"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
HOUSE, ARROWS = (text for language, text in CODE if not language)


def named_files():
    """Files and folders of the page's picture of the house."""
    folder, found = "", set()
    for line in HOUSE.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        parts = folder.split("/")[: len(indent) // 2]
        path = "/".join([*parts, name.rstrip("/")])
        found.add(path)
        if name.endswith("/"):
            folder = path
    return found


def modules():
    """The package's Python files, as paths from the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" and "recipes" not in path.parts
    }


def test_every_module_is_named():
    missing = modules() - named_files()
    assert not missing, f"docs/architecture.md does not name {missing}"


def test_every_named_file_exists():
    gone = [name for name in named_files() if not (ROOT / name).exists()]
    assert not gone, f"docs/architecture.md names {gone}"


def imports(file):
    """What a module imports of the package, by the first name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = (node.module or "").split(".")
        if not node.level:
            if parts.pop(0) != PACKAGE.name:
                continue
        found.update(parts[:1] if any(parts) else [a.name for a in node.names])
    return {f for f in found if f and not f.startswith("__")}


def test_arrows_are_those_of_the_code():
    said = {}
    for line in ARROWS.splitlines():
        name, _, targets = line.partition("->")
        said[name.strip()] = set(re.findall(r"\w+", targets))
    found = {}
    for module in modules() | {"speechbrain_amnet/corpus/__init__.py"}:
        name = Path(module).relative_to(PACKAGE.name).parts[0]
        name = name.removesuffix(".py")
        others = imports(ROOT / module) - {name}
        if others:
            found.setdefault(name, set()).update(others)
    assert said == found


def test_arrows_point_one_way():
    order = []
    for line in ARROWS.splitlines():
        order.append(line.split()[0])
        targets = re.findall(r"\w+", line.partition("->")[2])
        back = [name for name in targets if name in order]
        assert not back, f"{order[-1]} -> {back}"


@pytest.fixture
def sparse():
    """The page's example of a new weight form."""
    names = {}
    (text,) = (text for language, text in CODE if language == "python")
    exec(compile(text, "docs/architecture.md", "exec"), names)
    return lambda rows, columns: names["PrunedOnce"](rows, columns, density=0.1)


def test_a_new_form_needs_no_change_elsewhere(sparse):
    encoder = AmortizedEncoder(
        input_size=12,
        hidden_size=16,
        layers=2,
        branches=[Dense, sparse],
        router=Arbitrator(12, branches=2),
    )
    encoder.start_routing()
    dense, few = (form.weight for form in encoder.layers[0].recurrent)
    kept = encoder.layers[0].recurrent[1].factors()[0]
    assert torch.equal(dense, few)
    assert (kept != 0).sum() == round(0.1 * kept.numel())

    x = torch.randn(2, 7, 12)
    encoded, _ = encoder(x)
    encoded.square().sum().backward()
    mask = encoder.layers[0].recurrent[1].mask
    assert (few.grad[mask == 0] == 0).all() and few.grad.abs().sum() > 0

    encoder.eval()
    whole, routing = encoder(x)
    context = encoder.make_streaming_context(batch=2)
    parts = [encoder.forward_streaming(c, context) for c in x.split(2, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert routing.flops.max() == max(encoder.branch_flops)
