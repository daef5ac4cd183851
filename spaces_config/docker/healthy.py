"""Whether the page answers: 0 if it does, else 1. `python healthy.py [ADDRESS]`."""

import sys
import urllib.request

ADDRESS = "http://127.0.0.1:7860/"


def main() -> int:
    """Ask for the page."""
    address = sys.argv[1] if len(sys.argv) > 1 else ADDRESS
    try:
        with urllib.request.urlopen(address, timeout=8) as answer:
            return 0 if answer.status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
