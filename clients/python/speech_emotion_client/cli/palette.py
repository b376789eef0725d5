"""The colour of each emotion, the same in the terminal and in plots."""

COLOURS = {
    "angry": "#e5484d",
    "disgusted": "#7c9a3d",
    "fearful": "#8e6ad8",
    "happy": "#f2b134",
    "neutral": "#8b98a5",
    "other": "#a18072",
    "sad": "#3e7bd6",
    "surprised": "#22b3a6",
    "unknown": "#5b6570",
}
SPARE = ("#d6409f", "#46a758", "#0091ff", "#f76b15", "#978365")


def short(label: str) -> str:
    """The last part of a label in two languages, such as FunASR's "name/angry"."""
    return label.rpartition("/")[2].strip("<>")


def colour(label: str) -> str:
    """The same label has the same colour in every run, also one that is not listed."""
    name = short(label)
    return COLOURS.get(name) or SPARE[sum(name.encode()) % len(SPARE)]
