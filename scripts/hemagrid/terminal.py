"""Text for people at a terminal."""


def aligned(header, rows, left=1):
    """Return rows of text as one table: the first `left` columns to the left, others right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count):
    """Spell a number of bytes: "48 kB", "1.2 GB", in powers of 1000."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:,.1f} {units[0]}" if units[0] in ("GB", "TB") else f"{count:.0f} {units[0]}"
