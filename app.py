"""`python app.py`: CLAS Studio in the browser."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from clas_core.errors import ClasError
from clas_core.ui.behind.disk import keep_within
from clas_core.ui.behind.memory import keep_giving_back
from clas_core.ui.behind.profile import default_profile, read_profile
from clas_core.ui.behind.studio import Studio
from clas_core.ui.tabs.page import build, launch_options


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="default: the profile's")
    parser.add_argument(
        "--profile", default=default_profile(), help="a name in spaces_config, or a .toml"
    )
    parser.add_argument("--mcp", action="store_true", help="serve programs by MCP too")
    args = parser.parse_args()
    try:
        profile = read_profile(args.profile)
        studio = Studio.open(replace(profile, mcp=profile.mcp or args.mcp))
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1
    studio.warm_up()
    keep_giving_back()
    with TemporaryDirectory(prefix="clas-uploads-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # where Gradio puts what visitors bring
        keep_within(Path(uploads), studio.profile.disk_mb * 10**6)
        build(studio).launch(**launch_options(studio, args.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
