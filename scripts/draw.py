"""Draws what a query of sql/study returns as a small picture in the terminal, at most 80 columns wide.

    filterdb query DB -f sql/study/fig3-shift-task.sql --format json | python3 scripts/draw.py heatmap
    filterdb query DB -f sql/study/fig1-components-all.sql --format json | python3 scripts/draw.py components

Colours where the terminal says that it has all of them (COLORTERM=truecolor), plain text elsewhere: in a pipe, or with
NO_COLOR set. FORCE_COLOR=1 colours a pipe too.
"""

import argparse
import json
import math
import os
import sys

WIDTH = 80

# Colour maps as stops at equal distances, between which colours are interpolated.
VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"]
BLUE_WHITE_RED = [
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
]  # fmt: skip

# The scale of shifts is logarithmic and fixed, so that pictures can be compared; the published shifts lie within it.
SHIFT_TICKS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]

SHADES = " ░▒▓█"
ASCII_SHADES = " .:+#"


class Unusable(Exception):
    """The input is not what the picture is drawn from."""


def main():
    parser = argparse.ArgumentParser(description="Draw the JSON rows of a study query, read from standard input.")
    parser.add_argument("picture", choices=PICTURES, help="what to draw")
    parser.add_argument("--title", help="the line above the picture")
    arguments = parser.parse_args()
    try:
        lines = list(PICTURES[arguments.picture](read_rows(sys.stdin), arguments.title, Pen.of(sys.stdout)))
    except Unusable as error:
        sys.exit(f"draw.py: {error}")
    print("\n".join(line.rstrip() for line in lines))


class Pen:
    """Paints text where colours are to be had, and knows which characters the output can carry."""

    def __init__(self, colours, shades):
        self.colours = colours
        self.shades = shades

    @classmethod
    def of(cls, stream):
        if os.environ.get("NO_COLOR"):
            colours = False
        elif os.environ.get("FORCE_COLOR"):
            colours = True
        else:
            colours = stream.isatty() and os.environ.get("COLORTERM") in ("truecolor", "24bit")
        try:
            SHADES.encode(stream.encoding or "ascii")
            shades = SHADES
        except UnicodeEncodeError:
            shades = ASCII_SHADES
        stream.reconfigure(errors="replace")  # labels are free text
        return cls(colours, shades)

    def paint(self, text, stops, place):
        """The text on the map's colour at a place of 0 to 1, in black or white, whichever reads better."""
        background = colour_at(stops, place)
        bright = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2] > 140
        ink = "0;0;0" if bright else "255;255;255"
        return f"\x1b[48;2;{';'.join(map(str, background))}m\x1b[38;2;{ink}m{text}\x1b[0m"

    def shade(self, place):
        return self.shades[min(int(place * len(self.shades)), len(self.shades) - 1)]


def colour_at(stops, place):
    position = place * (len(stops) - 1)
    left = min(int(position), len(stops) - 2)
    sides = zip(*(bytes.fromhex(stop) for stop in stops[left : left + 2]))
    return [round(a + (b - a) * (position - left)) for a, b in sides]


def read_rows(stream):
    text = stream.read()
    if not text.strip():
        raise Unusable("expected JSON rows on standard input, found nothing: the query before it failed or has no rows")
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unusable(f"expected JSON rows on standard input (--format json): {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Unusable("expected an array of row objects that is not empty")
    return rows


def field(row, name, kind):
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Unusable(f"expected a number in column {name}, found {value!r}; columns: {', '.join(row)}")
    return value


def read_shifts(rows):
    """Shift by pair of groups, and number of filters by group, in the order in which the query returns the groups."""
    shifts, sizes = {}, {}
    for row in rows:
        a, b = (label_of(row.get(side)) for side in "ab")
        sizes[a] = field(row, "n_a", int)
        # A group without a finite filter has no histogram, and no shift.
        shifts[a, b] = None if row.get("shift", 0) is None else field(row, "shift", (int, float))
    for pair in ((a, b) for a in sizes for b in sizes):
        if pair not in shifts:
            raise Unusable(f"expected a row for every ordered pair of groups, found none for {' and '.join(pair)}")
    return shifts, sizes


def heatmap(rows, title, pen):
    """Shifts of every pair of groups."""
    shifts, sizes = read_shifts(rows)
    groups = list(sizes)
    # Cells get what labels and counts leave: four figures, three, or shade alone.
    cell = next((width for width in (5, 4, 2) if width * len(groups) <= WIDTH - 20), None)
    if cell is None:
        raise Unusable(f"expected at most {(WIDTH - 20) // 2} groups, found {len(groups)}")
    roomy = 5 * len(groups) <= WIDTH - 30
    counts = [f"{size:,}" if roomy else short_count(size) for size in sizes.values()]
    count_width = max(map(len, counts))
    # Labels that fit head the columns themselves; longer ones are numbered.
    heads = groups if all(len(group) < cell for group in groups) else [str(i + 1) for i in range(len(groups))]
    labels = groups if heads is groups else [f"{head:>2} {group}" for head, group in zip(heads, groups)]
    label_width = min(WIDTH - cell * len(groups) - count_width - 2, max(map(len, labels)))

    if cell == 2:  # every other number, or they would run together
        row_of_heads = "".join(f"{head:<4}" for head in heads[::2])
    else:
        row_of_heads = "".join(f"{head:>{cell - 1}} " for head in heads)

    yield title or "Shift D between groups of n filters (symmetric KL of their PCA coefficients)"
    yield f"{'':{label_width}} {'n':>{count_width}} {row_of_heads}"
    for a, label, count in zip(groups, labels, counts):
        cells = "".join(shift_cell(shifts[a, b], cell, pen) for b in groups)
        yield f"{shorten(label, label_width)} {count:>{count_width}} {cells}"
    legend = "".join(shift_cell(tick, 5, pen) for tick in SHIFT_TICKS)
    order = "  sorted by mean shift" if len(groups) > 1 and is_sorted(groups, shifts) else ""
    yield ""
    yield f"scale: logarithmic {legend}{order}"


def short_count(count):
    """A count in few characters: 950, 12.3k, 1.6M."""
    for factor, unit in ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")):
        if count < 999.95 * factor:
            break
    return f"{count}" if unit == "" else f"{count / factor:.1f}{unit}"


def is_sorted(groups, shifts):
    """Whether the mean shift, the diagonal included, never falls from one group to the next."""
    sums = [sum(shifts[a, b] or 0.0 for a in groups) for b in groups]
    return all(x <= y * (1 + 1e-9) for x, y in zip(sums, sums[1:]))


def label_of(value):
    return "(none)" if value is None else str(value)


def shorten(text, width):
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "~"


def shift_cell(shift, width, pen):
    """A cell of so many characters: figures on their colour or behind their shade; two characters have no figures."""
    if shift is None:
        return f"{'-':>{width - 1}} "
    low, high = math.log(SHIFT_TICKS[0]), math.log(SHIFT_TICKS[-1])
    place = 0.0 if shift <= 0 else min(max((math.log(shift) - low) / (high - low), 0.0), 1.0)
    figures = short_number(shift, width - 1) if width > 2 else ""
    if pen.colours:
        return pen.paint(f"{figures:>{width - 1}} ", VIRIDIS, place)
    return f"{figures:>{width - 1}}{pen.shade(place)}" if figures else pen.shade(place) * 2


def short_number(value, width):
    """A non-negative number in so many characters: .151, 1.54, 12.3; a plain 0 for nothing at all."""
    if value == 0:
        return "0"
    for decimals in range(width - 1, -1, -1):
        text = f"{value:.{decimals}f}"
        text = text[1:] if text.startswith("0.") else text
        if len(text) <= width:
            return text
    return "9" * width


def components(rows, title, pen):
    """Principal components as 3x3 images on a scale that is fixed at -1 to 1, with explained variance ratio."""
    names = [f"w{i}" for i in range(9)]
    tiles = []
    for row in rows:
        weights = [field(row, name, (int, float)) for name in names]
        tiles.append((field(row, "component", int), field(row, "explained_variance_ratio", (int, float)), weights))

    yield title or "Principal components of the filters as 3x3 images, with explained variance ratio"
    tile, gap, a_line = (6, 2, 9) if pen.colours else (15, 1, 5)
    for start in range(0, len(tiles), a_line):
        line = tiles[start : start + a_line]
        space = " " * gap
        yield ""
        yield space.join(f"v{number}".center(tile) for number, _, _ in line).rstrip()
        for top in (0, 3, 6):
            yield space.join("".join(weight_cell(w, pen) for w in weights[top : top + 3]) for _, _, weights in line)
        yield space.join(f"{ratio:.3f}".center(tile) for _, ratio, _ in line).rstrip()
    if pen.colours:
        steps = "".join(pen.paint("  ", BLUE_WHITE_RED, i / 20) for i in range(21))
        yield ""
        yield f"weight: -1 {steps} +1"


def weight_cell(weight, pen):
    if pen.colours:
        return pen.paint("  ", BLUE_WHITE_RED, (min(max(weight, -1.0), 1.0) + 1) / 2)
    hundredths = round(weight, 2) + 0.0  # no -0.00
    return f"{hundredths:+.2f}".replace("0.", ".", 1).rjust(5)


PICTURES = {"heatmap": heatmap, "components": components}

if __name__ == "__main__":
    main()
