"""The last step of every script: compute or reuse, judge claims, save, draw."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.paper.claims import Claim, claims_table, save_claims
from retina_codec.storage.trees import open_tree

__all__ = ["run_figure", "run_script"]


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script: what a user can mend is said in one line, with exit status 2.

    Parameters
    ----------
    main : callable
        Reads the command line; what it returns, if anything, is the exit status.
    """
    try:
        status = main()
    except RetinaCodecError as error:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {error}\n")
        sys.exit(2)
    if status:
        sys.exit(status)


def run_figure(
    name: str,
    options: argparse.Namespace,
    compute: Callable[[argparse.Namespace, Path], None],
    claims_of: Callable[[xr.DataTree], Sequence[Claim]],
    draw: Callable[[argparse.Namespace, xr.DataTree], Path | Sequence[Path]],
) -> str:
    """Compute what a figure shows unless it may be reused, judge it, and draw it.

    Parameters
    ----------
    name : str
        Of the script.
    options : argparse.Namespace
        ``out``, the folder, made if missing; ``reuse``, whether saved results are taken.
    compute : callable
        ``(options, path)``: saves the results at ``path``, which is ``<out>/<name>.nc``. Not called
        if ``options.reuse`` and the file is there.
    claims_of : callable
        Saved results to claims, which go to ``<out>/<name>_claims.csv``.
    draw : callable
        ``(options, results)`` to the path of the picture, or several.

    Returns
    -------
    str
        What the script prints: the claims as a table, then the paths, one a line.

    Raises
    ------
    RetinaCodecError
        If the file that may be reused lacks what is drawn now: another version wrote it.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.nc"
    reused = options.reuse and path.exists()
    if not reused:
        compute(options, path)
    tree = open_tree(path, lazy=False)
    try:
        claims = claims_of(tree)
    except KeyError as error:
        if not reused:
            raise
        raise RetinaCodecError(
            f"{path} lacks {error}: another version of this script wrote it. Run without --reuse."
        ) from error
    save_claims(claims, options.out / f"{name}_claims.csv")
    pictures = draw(options, tree)
    several = [pictures] if isinstance(pictures, Path) else pictures
    return "\n".join([claims_table(claims), *map(str, several)])
