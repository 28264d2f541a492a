"""Write results into a copy of the session's NWB file, and read them from there."""

import os
from pathlib import Path

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.extras import plain_attributes
from retina_codec.report.nwb.layout import lay_out
from retina_codec.report.nwb.parts import notes_of, read_node
from retina_codec.report.nwb.session import (
    check_same_session,
    copy_session,
    read_units,
    refuse_neighbours,
    source_hash,
)
from retina_codec.storage.hdf5 import child, hdf5_input, hdf5_output
from retina_codec.storage.results import layers_of
from retina_codec.storage.trees import new_output

__all__ = ["MODULE", "open_results_from_nwb", "save_results_to_nwb"]

MODULE = "contribution_decomposition"


ABOUT = (
    "Modes of the contributions of hidden units to a network's response, their loadings in time, "
    "and the cells that go with them (Melander et al. 2026, arXiv 2603.06557). The table notes "
    "says where the numbers come from and what the columns were."
)


def save_results_to_nwb(
    results: xr.DataTree,
    session: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    other_session: bool = False,
    progress: bool | None = None,
) -> None:
    """Copy a session's NWB file and add the results of its analysis to the copy.

    The copy has one more processing module, ``contribution_decomposition``. For each layer:
    ``<layer>_modes`` (one row per mode: the dictionary, flattened over sign × channel, and
    `mode_statistics`), ``<layer>_features`` (the order of these columns), ``<layer>_loadings`` and
    ``<layer>_active`` (time, mode) on the clock of the session, ``<layer>_parts`` (what was fitted
    and what was held out), ``<layer>_pathways`` (one row per cell, with its row in the units).
    ``layers`` holds the scores; ``hypotheses`` one row per statement, where there are any. The
    table ``notes`` holds the provenance, and what was left out, as JSON.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``, or of ``decompose``. Not modified.
    session : path
        The NWB file (HDF5) that was analyzed. Not modified; links in it are kept as they are.
    path : path
        Where to write; by custom it ends in ``.nwb``.
    overwrite : bool
        Replace an existing file.
    other_session : bool
        True writes even where the hashes say that another recording was analyzed.
    progress : bool, optional
        None shows a bar if the copy takes over 2 s, False never, True at once.

    Raises
    ------
    RetinaCodecError
        No modes in the results; cells that are no units of the session; results of another
        recording; a session that holds results already, or that points to files beside it while
        the copy goes elsewhere; an existing path; a full disk.
    """
    import h5py

    layers = layers_of(results, part="modes")
    if not Path(session).is_file():
        raise RetinaCodecError(
            f"the session must be an NWB file (HDF5) on this machine; there is none at {session}. "
            "Download it first, or correct the path."
        )
    with hdf5_input(session, "an NWB session file (HDF5)") as file:
        units = read_units(file, os.fspath(session))
        if child(file, f"processing/{MODULE}") is not None:
            raise RetinaCodecError(
                f"{session} must be a session without results; it has the module {MODULE}. Take "
                "the file that was analyzed."
            )
        refuse_neighbours(file, Path(session), Path(path))
        noted = source_hash(file)
    builder = lay_out(results, layers, units)
    left_out = sorted(
        f"{node.path}/{name}"
        for node in results.subtree
        for name in node.data_vars
        if name not in builder.nodes.get(node.path, {"variables": {}})["variables"]
    )
    notes = {"provenance": plain_attributes(results.attrs), "left_out": left_out}
    module = builder.module(MODULE, ABOUT, notes)
    with new_output(path, overwrite=overwrite, inputs=[session]) as partial:
        try:
            with hdf5_output(partial) as stream:
                digest = copy_session(session, stream, progress=progress)
                if failure := getattr(stream, "failure", None):
                    raise failure  # HDF5 must not open half a copy
                if not other_session:
                    check_same_session(results.attrs, os.fspath(session), digest, noted)
                with h5py.File(stream, "r+") as file:
                    units.write_module(file, module)
        except (RuntimeError, TypeError, ValueError) as error:  # how HDF5 may say that it failed
            if isinstance(error, RetinaCodecError):
                raise
            raise RetinaCodecError(f"could not write {path}: {str(error)[:200]}") from error


def open_results_from_nwb(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read the results that `export_results` put into an NWB file.

    Parameters
    ----------
    path : path
        An NWB file (HDF5).

    Returns
    -------
    xr.DataTree
        ``/layers/<name>/modes``, ``/layers/<name>/pathways``, ``/pathways`` and ``/hypotheses`` as
        they were, without what was left out (contributions, activations, receptive fields,
        responses); the provenance in the attributes of the root.

    Raises
    ------
    RetinaCodecError
        No NWB file, none with exported results, or one that was changed since.
    """
    with hdf5_input(path, "an NWB file (HDF5)") as file:
        module = child(file, f"processing/{MODULE}")
        if module is None:
            processing = child(file, "processing")
            found = sorted(processing) if processing is not None else []
            raise RetinaCodecError(
                f"{path} must have the processing module {MODULE}; it has "
                f"{', '.join(found) or 'none'}. Export results into a copy of it first."
            )
        notes = notes_of(module, os.fspath(path))
        nodes = {place: read_node(module, node) for place, node in notes["nodes"].items()}
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = notes["provenance"]
    return tree
