"""Tables in Markdown files, which stay those of their results.

A Markdown file holds a table between two lines of their own, the first of
which says which results it is made from:

    <!-- table: an4 from recipes/LibriSpeech/results/an4 -->
    <!-- end -->
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_amnet.files import write

MARKER = re.compile(r"<!-- table: (\S+)(?: from (.+?))? -->")
END = "<!-- end -->"


class Place(NamedTuple):
    """Where a Markdown file holds a table.

    name : of the table.
    sources : the folders of results it is made from, relative to the root.
    start, stop : its lines, without the markers.
    """

    name: str
    sources: list[str]
    start: int
    stop: int


def cell(text: Any) -> str:
    """A name as a table's cell; a bar would begin the next one.

    Example
    -------
    >>> cell("a|b")
    'a\\\\|b'
    """
    return str(text).replace("|", r"\|")


def find_tables(text: str, file: Any = "the text") -> list[Place]:
    """The places for tables in a Markdown text.

    Raises
    ------
    ValueError
        If one is not closed.

    Example
    -------
    >>> find_tables("<!-- table: an4 from a b -->\\n| 1 |\\n<!-- end -->")
    [Place(name='an4', sources=['a', 'b'], start=1, stop=2)]
    """
    places, opened = [], None
    for number, line in enumerate(text.split("\n")):
        line = line.rstrip("\r")
        marker = MARKER.fullmatch(line)
        if marker and opened:
            break
        if marker:
            opened = (marker[1], (marker[2] or "").split(), number + 1)
        elif line == END and opened:
            places.append(Place(*opened, number))
            opened = None
    if opened:
        raise ValueError(f"{file}: table {opened[0]} has no {END} of its own")
    return places


def update_markdown(
    file: str | Path, table: str, name: str, check: bool = False
) -> bool:
    """Put a table between its markers in a Markdown file.

    Arguments
    ---------
    file : str or Path
        The Markdown file.
    table : str
        What is to stand between the markers.
    name : str
        Of the table, as its marker has it.
    check : bool
        Only look; write nothing.

    Returns
    -------
    bool
        Whether something else stood there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has no such table, or one is not closed, or the name has blanks.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no such Markdown file: {file}")
    # As it is, the ends of lines too: only the table is written anew.
    text = file.read_bytes().decode()
    places = [p for p in find_tables(text, file) if p.name == name]
    if not places:
        if re.search(r"\s", name):
            raise ValueError(
                f"the name of a table must be without blanks, got {name!r}"
            )
        raise ValueError(
            f"{file} has no line `<!-- table: {name} -->` for the table"
        )
    end = "\r" if "\r\n" in text else ""
    old = text.split("\n")
    new = list(old)
    for place in reversed(places):
        lines = [line + end for line in table.strip().splitlines()]
        new[place.start : place.stop] = lines
    if new != old and not check:
        write(file, "\n".join(new))
    return new != old
