"""Numbers as a reader wants them."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def bytes_text(nbytes: float) -> str:
    """Returns bytes with a decimal unit and three digits or so: ``13.8 GB``, ``512 B``."""
    unit = 0
    while nbytes >= 999.95 and unit < len(_UNITS) - 1:
        nbytes /= 1000
        unit += 1
    digits = 0 if not unit else 2 - (nbytes >= 9.995) - (nbytes >= 99.95)
    return f"{nbytes:.{digits}f} {_UNITS[unit]}"


def count_text(count: int, noun: str) -> str:
    """Returns a number of things: ``1 file``, ``3 files``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration_text(seconds: float) -> str:
    """Returns a time as ``7 s``, ``3:05`` or ``2:03:05``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
