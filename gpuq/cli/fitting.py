"""What a narrow terminal has room for: of a table, what is needed least is shortened or left out before the column that
matters most is cut; of a list of facts, long ones take several lines."""

from __future__ import annotations

from gpuq.cli.render import cells_of, cut, printable, table, width, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What the column that matters is worth, in columns of the terminal, before others are given up for it.
LEAST = 30


def fitted(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    matters: str,
    less: Sequence[tuple[str, int]],
    right: Sequence[str] = (),
    limit: int | None = None,
) -> str:
    """As `table`. `matters`: the heading of what has to be seen; `less`: headings and how long their cells may be at
    most (0: the column is left out), in the order in which they are given up. `limit`: columns, the terminal's unless
    given; without one nothing is cut."""
    limit = width() if limit is None else limit
    if limit is None:
        return table(header, rows, right=right)
    needs = {
        name: max(len(name), *(cells_of(row[place]) for row in rows))
        for place, name in enumerate(header)
        if any(row[place] for row in rows)
    }
    enough = min(max(LEAST, limit // 3), needs.pop(matters, 0))
    most: dict[str, int] = {}
    for name, shorter in less:
        if (
            limit - sum(min(need, max(most.get(other, need), len(other))) + 2 for other, need in needs.items())
            >= enough
        ):
            break
        most[name] = shorter
        if shorter == 0:
            needs.pop(name, None)
    kept = [place for place, name in enumerate(header) if most.get(name) != 0]
    short = [[cut(row[place], most.get(header[place])) for place in kept] for row in rows]
    return table([header[place] for place in kept], short, right=right, limit=limit)


def print_facts(facts: list[tuple[str, str]]) -> None:
    """A line for each label and value, more where the terminal has no room for one."""
    widest = max(len(name) for name, _ in facts)
    limit = width()
    for name, value in facts:
        print(wrapped(f"{name.ljust(widest)}  {printable(value)}", widest + 2, limit))
