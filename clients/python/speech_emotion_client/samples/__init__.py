"""Bundled clips of synthesised speech; README.md beside them says how they were made."""

from pathlib import Path


def samples() -> list[Path]:
    """Paths of the bundled clips, in a stable order."""
    return sorted(Path(__file__).parent.glob("*.flac"))
