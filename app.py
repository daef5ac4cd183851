"""`python app.py`: CLAS Studio in the browser."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from clas_core.errors import ClasError
from clas_core.ui.behind.profile import Profile, default_profile, read_profile


def options() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="default: the profile's")
    parser.add_argument(
        "--profile", default=default_profile(), help="a name in spaces_config, or a .toml"
    )
    parser.add_argument(
        "--model", help="opens with this instead: smollm2, a hub id, a directory or a GGUF file"
    )
    parser.add_argument(
        "--endpoints",
        nargs=2,
        metavar=("UNSTEERED", "BAKED"),
        help="two OpenAI-compatible servers that write the Steer tab's texts, such as "
        "http://127.0.0.1:8080/v1, or .../v1#MODEL where one serves several",
    )
    parser.add_argument("--mcp", action="store_true", help="serve programs by MCP too")
    return parser


def main() -> int:
    args = options().parse_args()
    try:
        profile = read_profile(args.profile)
        if args.model:
            text = "village" if args.model == "village" else "everyday"
            profile = replace(profile, model=args.model, corpus=text)
        if args.endpoints:
            profile = replace(profile, endpoints=tuple(args.endpoints))
        serve(replace(profile, mcp=profile.mcp or args.mcp), args.port)
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the page is there
        return 130
    return 0


def serve(profile: Profile, port: int | None = None) -> None:
    """Open the page and serve it until the process ends. Raises ClasError if it can't be."""
    gpu = lent_gpu() if profile.gpu else None  # before anything imports torch
    from clas_core.shell.options import bar
    from clas_core.ui.behind.disk import keep_within
    from clas_core.ui.behind.lent import open_lent
    from clas_core.ui.behind.memory import keep_giving_back
    from clas_core.ui.behind.studio import Studio
    from clas_core.ui.tabs.page import build, launch_options

    # A container's stop ends the page as Ctrl+C does, so that scratch files don't stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bar("measuring", "sentence") as progress:
        studio = Studio.open(profile, progress=progress) if gpu is None else open_lent(profile, gpu)
    # The thread that writes answers lets go of the interpreter at every operation of the model, and
    # would wait for the usual 5 ms each time that another one has something to do.
    sys.setswitchinterval(0.0005)
    studio.warm_up()
    studio.find_marks()
    keep_giving_back()
    # What is still under way at the end may write into it while it is being deleted.
    with TemporaryDirectory(prefix="clas-uploads-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # where Gradio puts what visitors bring
        keep_within(Path(uploads), profile.disk_mb * 10**6)
        build(studio).launch(**launch_options(studio, port))


def lent_gpu():  # type: ignore[no-untyped-def]
    """`spaces.GPU`, which does nothing where there is no ZeroGPU. Raises ClasError without it."""
    if "torch" in sys.modules:
        raise ClasError("torch was imported first: spaces must be, to take the place of its GPU.")
    try:
        import spaces
    except ImportError as error:
        raise ClasError("The profile needs the package spaces: pip install spaces.") from error
    return spaces.GPU


if __name__ == "__main__":
    sys.exit(main())
