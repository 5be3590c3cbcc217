"""Print which test guards which check: `python -m tests.attacks`."""

from pathlib import Path

from .deletions import DELETIONS

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Print check, what it says, where it stands, and the test that fails without it."""
    for deletion in DELETIONS:
        before, _, _ = (ROOT / deletion.file).read_text("utf-8").partition(deletion.find)
        place = f"{deletion.file}:{before.count(chr(10)) + 1}"
        print(f"{deletion.check:4} {deletion.what:45} {place:55} tests/{deletion.killer}")


if __name__ == "__main__":
    main()
