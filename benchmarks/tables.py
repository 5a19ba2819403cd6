"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, in columns that a terminal shows straight, too; figures stand to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(head))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    for first, *others in lines:
        figures = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print(f"| {' | '.join([first.ljust(widths[0]), *figures])} |")
