"""A network, labelled images, and a folder in which contributions and modes are kept."""

import argparse
import difflib
import hashlib
import os
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.concepts.correlate import activation_tree
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.images.digits import digit_scenes
from retina_codec.images.folders import open_images
from retina_codec.methods.base import Method
from retina_codec.methods.integrated_gradients import IntegratedGradients, Placement
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.networks.adapter import Adapter, adapt
from retina_codec.networks.blocks import find_structure
from retina_codec.networks.pictures.load import ImageNetwork, load_image_network
from retina_codec.storage.provenance import array_text
from retina_codec.storage.trees import open_tree, save_tree
from retina_codec.targets.base import Target
from retina_codec.targets.classification import Probability, TopK

__all__ = [
    "DIGIT_GROUPS",
    "ImageStudy",
    "open_study",
    "short_name",
    "study_arguments",
    "study_of",
]

DIGIT_GROUPS = {
    **dict.fromkeys("0689", "with a loop"),
    **dict.fromkeys("123457", "without a loop"),
}


"""Superclasses of digits by their shape; 4 is written open in most of the collection."""


Quantity = Literal["contributions", "activations"]


@dataclass(frozen=True)
class ImageStudy:
    """What `open_study` opened; contributions and modes are computed when first asked for."""

    network: Adapter
    images: Any  # DataArray (sample, color, y, x) or a data set with coords
    labels: npt.NDArray[np.str_]  # (sample,)
    folder: Path
    hierarchy: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()  # names of the outputs, in order; as labels are, if known
    name: str = ""
    seed: int = 0
    device: str | None = None
    progress: bool | None = None
    grey: float = 0.0  # the input that is mean grey, see `ImageNetwork`
    placement: Placement | None = None  # of the points of paths, see `IntegratedGradients`

    def path_integral(self, steps: int = 10) -> IntegratedGradients:
        """Return integrated gradients from mean grey; with ``placement="uniform"`` the paper's."""
        return IntegratedGradients(steps, baseline=self.grey, placement=self.placement)

    @property
    def target(self) -> Target:
        """The paper's: top probability for transformers, top logit for other networks."""
        return Probability() if "attention" in self.sites else TopK(1)

    @property
    def sites(self) -> tuple[str, ...]:
        """Kinds of places that are explained, in order: blocks, mlp, attention."""
        return tuple(dict.fromkeys(map(self._site, self.network.layers)))

    def _site(self, layer: str) -> str:
        known = self.network.sites.get(layer)
        return "blocks" if known is None else known.site

    def layers_of(self, site: str) -> tuple[str, ...]:
        """Return the layers of one kind of place, from input to output."""
        return tuple(name for name in self.network.layers if self._site(name) == site)

    def contributions(
        self, target: Target | None = None, method: Method | None = None, **options: Any
    ) -> xr.DataTree:
        """Return contributions of all layers, computed or found in the folder.

        Parameters
        ----------
        target : Target, optional
            ``self.target`` when left out.
        method : Method, optional
            `path_integral`, 10 steps from mean grey, when left out.
        **options
            Further ones of `contribute`; they must not change the result.

        Returns
        -------
        xr.DataTree
            See `contribute`, with ``label`` along sample. Lazy, from
            ``<folder>/contributions-<target>-<method>.zarr``.

        Raises
        ------
        RetinaCodecError
            If what lies there was made by another network or of other images.
        """
        target, method = target or self.target, method or self.path_integral()
        path = self.folder / f"contributions-{_slug(repr(target))}-{_slug(repr(method))}.zarr"
        return contribute(
            self.network,
            self.images,
            target=target,
            method=method,
            store=path,
            device=self.device,
            progress=self.progress,
            **options,
        )

    def modes(
        self,
        of: Quantity = "contributions",
        *,
        target: Target | None = None,
        method: Method | None = None,
        decomposition: Any = None,
        layers: Sequence[str] | None = None,
    ) -> xr.DataTree:
        """Return modes of excitatory contributions, or of activations, of the chosen layers.

        Parameters
        ----------
        of : {"contributions", "activations"}
        target, method
            See `contributions`.
        decomposition : optional
            A method of `decompose`. When left out `SparseAutoencoder` with as many modes as
            channels but at most 64, 5 active at a time, and this study's seed.
        layers : sequence of str, optional
            All when left out. Every layer's modes are kept in a file of their own.

        Returns
        -------
        xr.DataTree
            The contributions (or, with activations in their place, `activation_tree`) of these
            layers, and ``/layers/<name>/modes``: read whole from ``<folder>/modes-*.nc``, fitted
            first where missing.
        """
        if of not in ("contributions", "activations"):
            raise RetinaCodecError(f"of must be 'contributions' or 'activations'; got {of!r}.")
        explained = self.contributions(target, method)
        chosen = {
            name: decomposition or self._decomposition(explained, name)
            for name in layers or self.network.layers
        }
        tree = explained if of == "contributions" else activation_tree(explained, list(chosen))
        nodes = {
            node.path: node.to_dataset(inherit=False)
            for node in tree.subtree
            if not node.path.startswith("/layers/") or node.name in chosen
        }
        for name, how in chosen.items():
            nodes[f"/layers/{name}/modes"] = self._modes_of(explained, of, name, how)
        return xr.DataTree.from_dict(nodes)

    def _decomposition(self, explained: xr.DataTree, layer: str) -> SparseAutoencoder:
        channels = explained[f"layers/{layer}"].sizes["channel"]
        return SparseAutoencoder(modes=min(64, channels), active=5, seed=self.seed)

    def _modes_of(
        self, explained: xr.DataTree, of: Quantity, layer: str, method: Any
    ) -> xr.Dataset:
        """Return the modes of one layer, from the file if it was made of the same values."""
        values = explained[f"layers/{layer}"][of.removesuffix("s")]
        made_of = f"{method!r} of {array_text(values.values)}"
        mark = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        path = self.folder / f"modes-{of}-{_slug(layer)}-{mark}.nc"
        if path.exists():
            kept = open_tree(path, lazy=False).to_dataset()
            if kept.attrs.get("made_of") == made_of:
                return kept
        tree = explained if of == "contributions" else activation_tree(explained, [layer])
        fitted = decompose(
            tree,
            method,
            layers=[layer],
            signs="excitatory" if of == "contributions" else None,
            gap=0,
            device=self.device,
            progress=self.progress,
        )
        found = fitted[f"layers/{layer}/modes"].to_dataset().assign_attrs(made_of=made_of)
        save_tree(xr.DataTree(found), path, overwrite=True)
        return found


def open_study(
    folder: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    model: str = "digits_cnn",
    layers: str | Sequence[str] | None = None,
    count: int = 1000,
    labels: str | os.PathLike[str] | None = None,
    hierarchy: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
    placement: Placement | None = None,
) -> ImageStudy:
    """Open a network by name and labelled images for it.

    Parameters
    ----------
    folder : path
        Where contributions and modes are kept; made if missing.
    data : path, optional
        Images in class folders, ImageNet or its flat validation set: see `open_images`. Where
        folders have other names than the outputs (WordNet ids), a ``LOC_synset_mapping.txt``
        among them that lists every output's class, in order, says which is which. Scenes of
        digits on photographs that the shipped networks were not trained on when left out.
    model : str
        See `load_image_network`; or ``file.py:name``, a module of one's own: an `nn.Module` that
        takes (b, color, y, x), or a function without parameters that returns one. The file may hold
        ``preprocess`` (a PIL picture to (color, y, x)), ``classes`` (names of the outputs, in
        order) and ``grey`` (the input that is mean grey). It is run.
    layers : str or sequence of str, optional
        See `adapt`; blocks when left out, and for transformers blocks, mlp and attention.
    count : int
        Images: digit scenes, or about as many files, the same number of every class, in random
        order.
    labels, hierarchy : path, optional
        See `open_images`; superclasses of digits are those with and without a loop.
    seed : int
        Of the scenes or the choice and order of files, and of the modes.
    device : str, optional
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.
    placement : {"adaptive", "uniform"}, optional
        Of the points of path integrals, see `IntegratedGradients`: "uniform" as in the paper.

    Returns
    -------
    ImageStudy

    Raises
    ------
    RetinaCodecError
        If model or data cannot be opened, or images have no labels.

    References
    ----------
    Melander et al. 2026, CODEC, sections 2 to 6: blocks of ResNet-50, 50,000 validation images.
    """
    own = model.rpartition(":")[0].endswith(".py")
    network = _own_network(model, device) if own else load_image_network(model, device=device)
    if data is None:
        scenes = digit_scenes("test", count=count, seed=seed, progress=progress)
        images: Any = scenes["image"]
        names = scenes["label"].values.astype(str)
        groups = dict(DIGIT_GROUPS)
    else:
        options: dict[str, Any] = {
            "preprocess": network.preprocess,
            "labels": labels,
            "hierarchy": hierarchy,
            "seed": seed,
        }
        all_names = _names(open_images(data, **options), data)
        each = max(1, round(count / len(set(all_names.tolist()))))
        images = open_images(data, limit_per_class=each, **options)
        # Folders come class by class; modes are judged on the last images, which must be of all.
        images = images.take(np.random.default_rng(seed).permutation(len(images)))
        names = _names(images, data)
        superclass = np.asarray(images.coords.get("superclass", names)).astype(str)
        groups = dict(zip(names.tolist(), superclass.tolist(), strict=True))
    if layers is None:
        transformer = find_structure(network.module).family == "transformer"
        layers = ["blocks", "mlp", "attention"] if transformer else "blocks"
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return ImageStudy(
        adapt(network.module, layers),
        images,
        names,
        path,
        groups,
        _outputs(network, images, names),
        model,
        seed,
        device,
        progress,
        network.grey,
        placement,
    )


def short_name(model: str) -> str:
    """Return what a network is called: its folder, or its name without the file of its weights.

    "models/vit" is "vit", "cifar_resnet56:FILE" is "cifar_resnet56".
    """
    return model.partition(":")[0] if model.startswith("cifar_resnet") else Path(model).name


def study_arguments(parser: argparse.ArgumentParser, *, count: int = 1000) -> None:
    """Add the arguments that every script about image networks has; see `open_study`."""
    parser.add_argument("--out", type=Path, required=True, help="folder; one per model and images")
    parser.add_argument(
        "--data", type=Path, help="images in class folders; digit scenes if left out"
    )
    parser.add_argument(
        "--model", default="digits_cnn", help="folder, name of a network, or file.py:name"
    )
    parser.add_argument("--count", type=int, default=count, help="images (default %(default)s)")
    parser.add_argument("--labels", type=Path, help="file with the labels of flat folders")
    parser.add_argument("--hierarchy", type=Path, help="file with the superclasses of classes")
    parser.add_argument("--seed", type=int, default=0, help="of images, modes and intervals")
    parser.add_argument("--device", help="cpu or cuda; the CPU if left out")
    parser.add_argument(
        "--placement",
        choices=get_args(Placement),
        help="points of path integrals; the paper's are uniform (adaptive if left out)",
    )
    parser.add_argument("--reuse", action="store_true", help="draw again from saved results")


def study_of(options: argparse.Namespace, folder: Path | None = None) -> ImageStudy:
    """Open what `study_arguments` read, in ``--out`` or another folder.

    Raises
    ------
    RetinaCodecError
        See `open_study`; also if ``--early`` or ``--late`` is no layer, before any work on it.
    """
    study = open_study(
        folder or options.out,
        data=options.data,
        model=options.model,
        count=options.count,
        labels=options.labels,
        hierarchy=options.hierarchy,
        seed=options.seed,
        device=options.device,
        placement=options.placement,
    )
    for name in ("early", "late"):
        layer, layers = getattr(options, name, None), list(study.network.layers)
        if layer is not None and layer not in layers:
            near = difflib.get_close_matches(layer, layers, n=1)
            raise RetinaCodecError(
                f"--{name} must be a layer that is explained; got {layer!r}. Did you mean "
                f"{near[0] if near else layers[-1]!r}? The layers are {', '.join(layers)}."
            )
    return study


def _own_network(model: str, device: str | None) -> ImageNetwork:
    """Load ``file.py:name``."""
    file, _, name = model.rpartition(":")
    if not Path(file).is_file():
        raise RetinaCodecError(f"--model must name a file.py:name; there is no file {file}.")
    try:
        code = runpy.run_path(file, run_name=Path(file).stem)
        found = code[name]
        module = found if isinstance(found, torch.nn.Module) else found()
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise RetinaCodecError(
            f"--model {model} cannot be loaded: {type(error).__name__}: {words}. Name an nn.Module "
            "of the file, or a function without parameters that returns one."
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise RetinaCodecError(
            f"--model {model} must be an nn.Module or return one; got {type(module).__name__}. "
            "Name another object of the file."
        )
    classes = code.get("classes")
    return ImageNetwork(
        module.to(device or "cpu").eval(),
        code.get("preprocess", _no_preprocess),
        None if classes is None else tuple(map(str, classes)),
        name,
        Path(file).name,
        float(code.get("grey", 0.0)),
    )


def _no_preprocess(_picture: Any) -> torch.Tensor:
    raise RetinaCodecError(
        "pictures need a function that makes inputs of them; the file of --model has none. Define "
        "preprocess(picture), a PIL picture to a tensor (color, y, x), in it."
    )


def _outputs(network: ImageNetwork, images: Any, names: npt.NDArray[np.str_]) -> tuple[str, ...]:
    """Name the outputs as labels are written, where the folder of images numbers its classes."""
    classes, labels = network.classes or (), set(names.tolist())
    ids = tuple(getattr(images, "classes", ()))
    if labels <= set(classes) or not labels <= set(ids):
        return classes
    count = len(classes)
    if not count:
        with torch.no_grad():
            device = next((p.device for p in network.module.parameters()), None)
            found = network.module(torch.as_tensor(images.picture(0))[None].to(device))
        count = getattr(found, "logits", found).shape[-1]
    return ids if len(ids) == count else classes


def _names(images: Any, data: Any) -> npt.NDArray[np.str_]:
    """Return the label of every image."""
    if "label" not in images.coords:
        raise RetinaCodecError(
            f"the images in {data} must have labels; found none. Sort them into one folder per "
            "class, or give labels=file."
        )
    return np.asarray(images.coords["label"]).astype(str)


def _slug(text: str) -> str:
    """Return a setting in a form that may be part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")
