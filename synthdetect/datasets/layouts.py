"""Published folder layouts, turned into the rows of a manifest.

A layout is an entry of `LAYOUTS`; adding one is adding an entry. What it says of an image it says
of the whole folder, from the folder's path alone: 700,000 files cost no more than listing them.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from synthdetect.datasets.dialects import COLUMNS, SPLITS, import_csv, read_columns
from synthdetect.datasets.labels import LABELS, REAL, SYNTHETIC, label_of
from synthdetect.system.errors import UserError

__all__ = [
    "COLUMNS", "IMAGE_SUFFIXES", "LAYOUTS", "import_csv", "import_folder", "is_image", "walk",
]  # fmt: skip

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
"""What counts as an image, in lower case: the formats that `images.FORMATS` reads."""

FOLDER_LABELS = {
    name: label
    for name, label in LABELS.items()
    if name not in ("0", "1", "0.0", "1.0", "true", "false")
}
"""Label names that a folder may have. A folder called 0 or 1 is as likely a class or a shard."""

_SLASH = re.compile(r"[/\\]")

Parts = tuple[str, ...]
"""A folder's path below the root, one name an item."""
Tree = dict[Parts, list[str]]
"""The folders that directly hold images, each with their names."""


class Folder(NamedTuple):
    """What a layout says of every image in one folder; `split` None: take it from the path."""

    label: int
    generator: str = ""
    category: str = ""
    split: str | None = None
    platform: str = ""


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
        name: what to call it.
        describe: says what a folder holds, from its path (and, rarely, its siblings); None where
            the layout has no such folder, and then it is not this layout.
        applies: a further test on the whole tree, where the names of folders are not enough.
        complete: fills in what single files say.
        ignored: folders whose images are no samples.
    """

    name: str
    describe: Callable[[Parts, Tree], Folder | None]
    applies: Callable[[Path, Tree], bool] = lambda root, tree: True
    complete: Callable[[Path, pd.DataFrame], pd.DataFrame] = lambda root, table: table
    ignored: frozenset[str] = frozenset()


def import_folder(root: Path) -> pd.DataFrame:
    """List the images below a folder in one of `LAYOUTS`.

    Everything that is no image by its suffix is passed over, as are hidden files and folders,
    `__MACOSX`, symbolic links to folders, and the masks of B-Free.

    Returns:
        A table with `COLUMNS` first, sorted by path: `path` is relative to `root`, `label` is 0
        (real) or 1 (synthetic), the others are text, empty where the layout says nothing;
        `generator` is empty for real images. `platform` is there where the layout knows it.

    Raises:
        UserError: no images, a folder that cannot be read, no layout that explains every folder,
            or folder names or accompanying files that contradict each other.
    """
    tree = walk(root)
    layout, folders = _choose(root, tree)
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "platform")}
    for parts, folder in folders.items():
        names = tree[parts]
        columns["path"] += ["/".join((*parts, name)) for name in names]
        same = {
            "label": folder.label,
            "split": _split(parts) if folder.split is None else folder.split,
            "generator": folder.generator if folder.label == SYNTHETIC else "",
            "category": folder.category,
            "source_id": "",
            "platform": folder.platform,
        }
        for column, value in same.items():
            columns[column] += [value] * len(names)
    table = layout.complete(root, pd.DataFrame(columns))
    if not table["platform"].any():
        table = table.drop(columns="platform")
    return table.sort_values("path", ignore_index=True)


def walk(root: Path) -> Tree:
    """Find the images below a folder.

    Raises:
        UserError: there are none, or a folder that cannot be read, or a name that is not UTF-8.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is not a folder.")

    def fail(error: OSError) -> None:  # os.walk would silently leave the folder out
        raise UserError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error

    tree: Tree = {}
    for folder, subfolders, files in os.walk(root, onerror=fail):
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and n != "__MACOSX"]
        images = [name for name in files if is_image(name)]
        if images:
            parts = Path(folder).relative_to(root).parts
            try:
                "/".join((*parts, *images)).encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{folder!r}: a name is not UTF-8; rename it.") from error
            tree[parts] = images
    if not tree:
        raise UserError(
            f"{root}: holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}). "
            "Links to folders are not followed."
        )
    return tree


def is_image(path: str) -> bool:
    """Whether a path in a folder or an archive is an image's, by its suffix; hidden ones are not.

    Hidden are names that begin with a dot, as the copies that macOS adds, and all of `__MACOSX`.
    """
    parts = _SLASH.split(path)
    hidden = any(p == "__MACOSX" or (p.startswith(".") and p not in (".", "..")) for p in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in IMAGE_SUFFIXES


def _choose(root: Path, tree: Tree) -> tuple[Layout, dict[Parts, Folder]]:
    """The first layout that explains every folder, and what it says of each."""
    unexplained = list(tree)
    for layout in LAYOUTS:
        samples = [parts for parts in tree if not layout.ignored.intersection(parts)]
        described = {parts: layout.describe(parts, tree) for parts in samples}
        folders = {parts: folder for parts, folder in described.items() if folder is not None}
        if not folders or not layout.applies(root, tree):
            continue
        if len(folders) == len(described):
            for parts, folder in folders.items():
                _check_agreement(root, parts, folder.label, tree)
            return layout, folders
        rest = [parts for parts in samples if parts not in folders]
        unexplained = min(rest, unexplained, key=len)
    shown = sorted("/".join(parts) or "(the folder itself)" for parts in unexplained)
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    lists = [root / name for name in ("manifest.csv", "manifest.parquet")]
    meant = "".join(f" Perhaps {file} is meant." for file in lists if file.is_file())
    raise UserError(
        f"{root}: no known layout says whether these folders hold real or synthetic images: "
        f"{', '.join(shown[:20])}{more}. Rename them (known: {', '.join(sorted(FOLDER_LABELS))}; "
        f"any case), move them away, or list the images in a manifest CSV (path,label).{meant}"
    )


def _check_agreement(root: Path, parts: Parts, label: int, tree: Tree) -> None:
    for name in parts:
        if FOLDER_LABELS.get(name.lower(), label) != label:
            file = "/".join((*parts, tree[parts][0]))
            raise UserError(
                f"{root}: the path {file!r} says both real and synthetic. Rename a folder, "
                "or list the images in a manifest CSV (path,label)."
            )


def _split(parts: Parts) -> str:
    splits = {SPLITS[name.lower()] for name in parts if _is_split(name)}
    if len(splits) > 1:
        raise UserError(f"{'/'.join(parts)}: the folder is in several splits. Rename a folder.")
    return next(iter(splits), "")


def _is_split(name: str) -> bool:
    return name.lower() in SPLITS


def _last(parts: Parts, names: Collection[str]) -> int | None:
    """Where the last of these names (in lower case) is in a path."""
    return next((i for i in reversed(range(len(parts))) if parts[i].lower() in names), None)


# --- 0_real and 1_fake: CNNDetection, ForenSynths, UniversalFakeDetect, SIDBench, AIGIBench

_PROGAN_CLASSES = frozenset({
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
})  # fmt: skip
_CLASSES = _PROGAN_CLASSES | {"apple", "bedroom", "church", "orange", "summer", "winter", "zebra"}
_GROUPS = ("diffusion_datasets",)  # holds generators and is none itself


def _zero_one(parts: Parts, tree: Tree) -> Folder | None:
    """`[<split>/][<generator>/][<class>/]{0_real,1_fake}/[<generator>/]`.

    Just above the label, a name of `_CLASSES` is the class, and what lies above it the generator.
    Otherwise the first name below a split is the generator and the rest the class; without a split
    only the name above the label counts, as the generator. A class directly below a train or val at
    the top is of CNNDetection's training set: ProGAN.
    """
    label_at = _last(parts, ("0_real", "1_fake"))
    if label_at is None:
        return None
    above, below = parts[:label_at], parts[label_at + 1 :]
    category = ""
    if above and _is_class(above, tree):
        above, category = above[:-1], above[-1]
    split_at = _last(above, SPLITS)
    inside = above if split_at is None else above[split_at + 1 :]
    inside = tuple(name for name in inside if name.lower() not in _GROUPS)
    generator = ""
    if inside and split_at is not None and not category:
        generator, category = inside[0], "/".join(inside[1:])
    elif inside:
        generator = inside[-1]
    elif category in _PROGAN_CLASSES and split_at == 0 and _split(above) in ("train", "val"):
        generator = "progan"
    elif not category:
        generator = next((name for name in below if not _is_split(name)), "")
    label = LABELS[parts[label_at].lower()]
    return Folder(label, generator, category, split=_split(above + below))


def _is_class(above: Parts, tree: Tree) -> bool:
    """Whether the last name is a class.

    `train` is a split and one of CNNDetection's classes: the class if it lies inside a split or
    beside other classes.
    """
    *parents, name = above
    if name != "train":
        return name in _CLASSES
    return any(map(_is_split, parents)) or any(
        (*parents, other, label) in tree
        for other in _CLASSES - {"train"}
        for label in ("0_real", "1_fake")
    )


# --- ITW-SM: 0_real and 1_fake with the platform in metadata.csv or in the file's name

_PLATFORMS = {"facebook": "Facebook", "instagram": "Instagram", "linkedin": "LinkedIn", "x": "X"}


def _itw_sm(parts: Parts, tree: Tree) -> Folder | None:
    if parts[-1:] not in (("0_real",), ("1_fake",)):
        return None
    return Folder(LABELS[parts[-1]])


def _is_itw_sm(root: Path, tree: Tree) -> bool:
    homes = {parts[:-1] for parts in tree}
    if len(homes) > 1:
        return False
    metadata = root.joinpath(*homes.pop(), "metadata.csv")
    if metadata.is_file():
        with metadata.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return {"file_name", "label", "platform"} <= set(next(csv.reader(file), []))
    return all(_platform(name) for names in tree.values() for name in names)


def _platform(name: str) -> str:
    prefix, underscore, _ = name.partition("_")
    return _PLATFORMS.get(prefix.lower(), "") if underscore else ""


def _itw_sm_platforms(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    images = [Path(path) for path in table["path"]]
    metadata = root / images[0].parent.parent / "metadata.csv"
    if not metadata.is_file():
        return table.assign(platform=[_platform(image.name) for image in images])
    given = read_columns(metadata)
    names = [name.replace("\\", "/").removeprefix("./") for name in given["file_name"]]
    if len(set(names)) < len(names):
        raise UserError(f"{metadata}: lists a file twice; keep one row.")
    rows = dict(zip(names, zip(given["label"], given["platform"], strict=True), strict=True))
    platforms = []
    for image, label in zip(images, table["label"], strict=True):
        row = rows.get(f"{image.parent.name}/{image.name}") or rows.get(image.name)
        if row is None:
            raise UserError(f"{metadata}: does not list {image}. Add it, or remove the file.")
        if label_of(row[0], where=str(metadata)) != label:
            raise UserError(
                f"{metadata}: labels {image} {row[0]!r}. Correct the row or the folder."
            )
        platforms.append(row[1])
    return table.assign(platform=platforms)


# --- TrueFake: <platform>/{Fake,Real}/<generator or source of reals>/<subset>/

_TRUEFAKE_PLATFORMS = ("PreSocial", "Facebook", "Telegram", "Twitter")


def _truefake(parts: Parts, tree: Tree) -> Folder | None:
    at = _truefake_at(parts)
    if at is None:
        return None
    platform, label, generator, *subset = parts[at:]
    return Folder(LABELS[label.lower()], generator, "/".join(subset), split="", platform=platform)


def _truefake_at(parts: Parts) -> int | None:
    for at in range(len(parts) - 2):
        if parts[at] in _TRUEFAKE_PLATFORMS and parts[at + 1] in ("Fake", "Real"):
            return at
    return None


def _truefake_splits(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The splits of split.json beside the platforms, and `generator/subset/stem` as source.

    The same image lies below every platform: the source keeps its versions together.
    """
    sources, homes = [], set()
    for path in table["path"]:
        *folders, name = path.split("/")
        at = _truefake_at(tuple(folders)) or 0
        sources.append("/".join((*folders[at + 2 : at + 4], os.path.splitext(name)[0])))
        homes.add(tuple(folders[:at]))
    splits: dict[str, str] = {}
    for home in homes:
        file = root.joinpath(*home, "split.json")
        if file.is_file():
            splits |= _read_splits(file)
    split = [splits.get(source, "") for source in sources]
    return table.assign(source_id=sources, split=split)


def _read_splits(file: Path) -> dict[str, str]:
    problem = UserError(
        f"{file}: must be a JSON object with the lists train, val and test of "
        "generator/subset/stem, without overlap."
    )
    try:
        lists = json.loads(file.read_bytes())
        splits = {key: SPLITS[name] for name, keys in lists.items() for key in keys}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise problem from error
    if len(splits) < sum(len(set(keys)) for keys in lists.values()):
        raise problem
    return splits


# --- Layouts with names of their own

_COCO_SPLITS = {"train2017": "train", "val2017": "val"}
_SYNTHBUSTER = (
    "dalle2", "dalle3", "firefly", "glide", "midjourney-v5", "stable-diffusion-1-3",
    "stable-diffusion-1-4", "stable-diffusion-2", "stable-diffusion-xl",
)  # fmt: skip
_CORVI_GENERATORS = (
    "adm", "biggan", "dalle", "ddpm", "eg3d", "gaugan", "gigagan", "glide", "guided-diffusion",
    "latent-diffusion", "progan", "stable-diffusion", "stable_diffusion", "stargan", "stylegan2",
    "stylegan3", "taming-transformers",
)  # fmt: skip
_CORVI_TEST = re.compile(f"(?:{'|'.join(_CORVI_GENERATORS)})(?![a-z])")


def _genimage(parts: Parts, tree: Tree) -> Folder | None:
    """`<generator>/imagenet_*/{train,val}/{ai,nature}/`."""
    if len(parts) < 4 or not parts[-3].startswith("imagenet") or not _is_split(parts[-2]):
        return None
    label = {"ai": SYNTHETIC, "nature": REAL}.get(parts[-1])
    return None if label is None else Folder(label, parts[-4], split=_split(parts[-2:-1]))


def _drct(parts: Parts, tree: Tree) -> Folder | None:
    """`DRCT-2M/<model>/{train2017,val2017}/` and `MSCOCO/{train2017,val2017}/`.

    Below `DR` lie reconstructions, of `MSCOCO` too: all synthetic.
    """
    at = _last(parts, ("drct-2m", "mscoco"))
    if at is None or parts[-1] not in _COCO_SPLITS:
        return None
    model = "/".join(parts[at + 1 : -1])
    rebuilt = "DR" in parts[:at]
    real = parts[at].lower() == "mscoco" and not rebuilt
    if real == bool(model):  # a folder too many for the photographs, or one too few for a model
        return None
    return Folder(REAL if real else SYNTHETIC, model, split=_COCO_SPLITS[parts[-1]])


def _synthbuster(parts: Parts, tree: Tree) -> Folder | None:
    """`<generator>/`, and RAISE's photographs of the same names in `real_RAISE_1k/`."""
    if parts[-1:] == ("real_RAISE_1k",):
        return Folder(REAL)
    return Folder(SYNTHETIC, parts[-1]) if parts and parts[-1] in _SYNTHBUSTER else None


def _b_free(parts: Parts, tree: Tree) -> Folder | None:
    """`COCO_real_512/` and, of the same names, `SD2.1_*/`."""
    if parts[-1:] == ("COCO_real_512",):
        return Folder(REAL)
    return Folder(SYNTHETIC, parts[-1]) if parts and parts[-1].startswith("SD2.1_") else None


def _corvi_training(parts: Parts, tree: Tree) -> Folder | None:
    """`{train,valid}/latent_diffusion_<conditioning>/`, and reals, if added, in `real_*/`."""
    if len(parts) < 2 or not _is_split(parts[-2]):
        return None
    if parts[-1].startswith("real_"):
        return Folder(REAL)
    prefix = "latent_diffusion_"
    if not parts[-1].startswith(prefix):
        return None
    return Folder(SYNTHETIC, "latent_diffusion", parts[-1].removeprefix(prefix))


def _corvi_test(parts: Parts, tree: Tree) -> Folder | None:
    """`<generator>[_<what>]/` and `real_<source>/`, side by side."""
    if not parts:
        return None
    if parts[-1].startswith("real_"):
        return Folder(REAL)
    return Folder(SYNTHETIC, parts[-1]) if _CORVI_TEST.match(parts[-1]) else None


def _any_real(root: Path, tree: Tree) -> bool:
    return any(parts and parts[-1].startswith("real_") for parts in tree)


def _any_latent_diffusion(root: Path, tree: Tree) -> bool:
    return any(parts and parts[-1].startswith("latent_diffusion_") for parts in tree)


def _generic(parts: Parts, tree: Tree) -> Folder | None:
    """A label's name anywhere; the deepest counts. `<generator>/fake/` or `fake/<generator>/`."""
    at = _last(parts, FOLDER_LABELS)
    if at is None or "DR" in parts:  # DRCT's reconstructions of photographs lie in DR/.../nature
        return None
    below = [name for name in parts[at + 1 :] if not _is_split(name)]
    above = parts[at - 1] if at else ""
    if _is_split(above) or above.lower() in FOLDER_LABELS:
        above = ""
    generator = "" if len(below) > 1 else (below or [above])[0]
    return Folder(FOLDER_LABELS[parts[at].lower()], generator)


def _stem_is_source(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """An image and what was generated from it have the same name up to the suffix."""
    stems = [os.path.splitext(path.rsplit("/", 1)[-1])[0] for path in table["path"]]
    return table.assign(source_id=stems)


LAYOUTS = (
    Layout("GenImage", _genimage),
    Layout("TrueFake", _truefake, complete=_truefake_splits),
    Layout("DRCT-2M", _drct, complete=_stem_is_source),
    Layout("ITW-SM", _itw_sm, applies=_is_itw_sm, complete=_itw_sm_platforms),
    Layout("Synthbuster", _synthbuster, complete=_stem_is_source),
    Layout(
        "B-Free training set",
        _b_free,
        complete=_stem_is_source,
        ignored=frozenset({"mask", "masks", "bbox"}),
    ),
    Layout("Corvi training set", _corvi_training, applies=_any_latent_diffusion),
    Layout("Corvi test set", _corvi_test, applies=_any_real),
    Layout("0_real/1_fake", _zero_one),
    Layout("label names", _generic),
)
"""Tried in this order; the first that explains every folder is taken."""
