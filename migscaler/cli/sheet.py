"""Tables of which nothing is cut: fitted to the terminal, or a block a row where it is too narrow.

rich alone crops a cell that may not be broken. A strip without its last slices shows a layout that
is not there, so widths are worked out here, and words are kept whole as long as they fit.
"""

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2
# Longer words (paths, addresses) may be broken: they would make every terminal too narrow.
_LONGEST_WHOLE_WORD = 24
# With less beside its header, a cell goes below it.
_LEAST_ROOM = 12


class Sheet:
    """Rows below headers, without frame; the columns named in `right` are numbers."""

    def __init__(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str]
    ) -> None:
        """Keep the cells; those that are not rich texts are taken by their words."""
        self._headers = tuple(headers)
        self._rows = [
            [cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows
        ]
        self._right = frozenset(right)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the terminal allows."""
        gaps = _GAP * (len(self._headers) - 1)
        widths = fitted(
            [self._need(n) for n in range(len(self._headers))], options.max_width - gaps
        )
        if widths is not None:
            yield self._table(widths)
            return
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            yield from self._block(row, options.max_width)

    def _need(self, column: int) -> tuple[int, int]:
        """Return the least and the full width of a column, in characters."""
        header = self._headers[column]
        cells = [row[column] for row in self._rows]
        full = max(cell.cell_len for cell in (Text(header), *cells))
        words = [Text(word).cell_len for word in header.split()]
        for cell in cells:
            if cell.no_wrap or header in self._right:
                words.append(cell.cell_len)
            else:
                found = (Text(word).cell_len for word in cell.plain.split())
                words += (min(length, _LONGEST_WHOLE_WORD) for length in found)
        return max(words, default=0), full

    def _table(self, widths: Sequence[int]) -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for header, width in zip(self._headers, widths, strict=True):
            justify = "right" if header in self._right else "left"
            made.add_column(header, justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]  # a Literal in rich
        for row in self._rows:
            made.add_row(*row)
        return made

    def _block(self, row: Sequence[Text], width: int) -> Iterable[Table | Text]:
        """Return one row as lines of header and cell; what does not fit beside it goes below."""
        labels = max(len(header) for header in self._headers)
        room = max(width - labels - _GAP, 1)
        for header, cell in zip(self._headers, row, strict=True):
            if room < _LEAST_ROOM or (cell.no_wrap and cell.cell_len > room):
                yield Text(header, style="bold", overflow="fold")
                lone = cell.copy()
                lone.no_wrap, lone.overflow = cell.no_wrap and cell.cell_len <= width, "fold"
                yield lone
                continue
            line = Table.grid(padding=(0, _GAP, 0, 0))
            line.add_column(width=labels, style="bold", no_wrap=True)
            line.add_column(width=room, overflow="fold")
            line.add_row(header, cell)
            yield line


def fitted(needs: Sequence[tuple[int, int]], room: int) -> list[int] | None:
    """Return a width for each (least, full) so that all fit; None if even the least do not.

    What is left beyond the least goes first to the columns that lack little.
    """
    extra = room - sum(least for least, _ in needs)
    if extra < 0:
        return None
    widths = [least for least, _ in needs]
    by_lack = sorted(range(len(needs)), key=lambda n: needs[n][1] - needs[n][0])
    for rank, column in enumerate(by_lack):
        least, full = needs[column]
        given = min(full - least, extra // (len(by_lack) - rank))
        widths[column] += given
        extra -= given
    return widths
