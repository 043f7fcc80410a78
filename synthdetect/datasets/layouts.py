"""Published folder layouts, translated into the rows of a manifest.

To add a layout, add an entry to `LAYOUTS`. A layout describes whole folders by their paths alone,
so that 700,000 files cost no more than listing them.
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

from synthdetect.datasets.dialects import read_columns
from synthdetect.datasets.labels import LABELS, REAL, SYNTHETIC, label_of
from synthdetect.datasets.schema import COLUMNS, SPLIT_SPELLINGS
from synthdetect.system.errors import UserError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Suffixes of image files in lower case: those of the formats that `images.reading` decodes."""

FOLDER_LABELS = {
    name: label
    for name, label in LABELS.items()
    if name not in ("0", "1", "0.0", "1.0", "true", "false")
}
"""Names of label folders. 0, 1, true and false are left out: they often name classes or shards."""

_SLASH = re.compile(r"[/\\]")

Parts = tuple[str, ...]
"""The names in a folder's path below the root."""
Tree = dict[Parts, list[str]]
"""The names of the images in each folder that directly holds some."""


class NoImages(UserError):
    """A folder has no image below it."""


class Folder(NamedTuple):
    """What all images of one folder have in common.

    Attributes:
        split: The images' split, or None to derive it from the folder's path.
    """

    label: int
    generator: str = ""
    category: str = ""
    split: str | None = None
    platform: str = ""


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
        name: Name of the data set.
        describe: Describes a folder by its path (and, rarely, by its siblings), or returns None
            if the layout has no such folder.
        applies: Further test of the whole tree, where the names of folders are not enough.
        complete: Fills in what depends on single files.
        ignored: Names of folders whose images are no samples.
    """

    name: str
    describe: Callable[[Parts, Tree], Folder | None]
    applies: Callable[[Path, Tree], bool] = lambda root, tree: True
    complete: Callable[[Path, pd.DataFrame], pd.DataFrame] = lambda root, table: table
    ignored: frozenset[str] = frozenset()


def import_folder(root: Path) -> pd.DataFrame:
    """List the images below a folder in one of `LAYOUTS`.

    Files without an image suffix, hidden files and folders, `__MACOSX`, symbolic links to folders
    and the masks of B-Free are skipped.

    Returns:
        A table sorted by path that begins with `COLUMNS`. `path` is relative to `root`; `label` is
        0 (real) or 1 (synthetic); the other columns are text, empty where unknown. `generator` is
        empty for real images. There is a column `platform` if the layout has platforms.

    Raises:
        UserError: If there are no images, a folder cannot be read, no layout describes every
            folder, or folder names or accompanying files contradict each other.
    """
    return _described(root, walk(root)).sort_values("path", ignore_index=True)


def describe_names(root: Path, names: list[str]) -> tuple[pd.DataFrame, list[int]]:
    """Describe images by names that have folders, such as those of members of archives.

    Args:
        root: What the names are relative to, for messages.
        names: The names, which may occur repeatedly.

    Returns:
        A table as of `import_folder`, and the row of each of its images among the names.

    Raises:
        UserError: As `import_folder`.
    """
    tree: Tree = {}
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        *parts, file = name.split("/")
        tree.setdefault(tuple(parts), []).append(file)
        rows.setdefault(name, []).append(row)
    table = _described(root, tree)
    again = {name: iter(found) for name, found in rows.items()}
    return table, [next(again[path]) for path in table["path"]]


def _described(root: Path, tree: Tree) -> pd.DataFrame:
    layout, folders = _choose(root, tree)
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "platform")}
    for parts, folder in folders.items():
        names = tree[parts]
        columns["path"] += ["/".join((*parts, name)) for name in names]
        common = {
            "label": folder.label,
            "split": _split(parts) if folder.split is None else folder.split,
            "generator": folder.generator if folder.label == SYNTHETIC else "",
            "category": folder.category,
            "source_id": "",
            "platform": folder.platform,
        }
        for column, value in common.items():
            columns[column] += [value] * len(names)
    table = layout.complete(root, pd.DataFrame(columns))
    if not table["platform"].any():
        table = table.drop(columns="platform")
    return table


def walk(root: Path, wanted: Callable[[str], bool] | None = None) -> Tree:
    """Find the images below a folder, or files whose names are wanted otherwise.

    Raises:
        UserError: If there are none, a folder cannot be read, or a name is not UTF-8.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is not a folder.")

    def fail(error: OSError) -> None:  # by default, os.walk silently skips the folder
        raise UserError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error

    tree: Tree = {}
    for folder, subfolders, files in os.walk(root, onerror=fail):
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and n != "__MACOSX"]
        images = [name for name in files if (wanted or is_image)(name)]
        if images:
            parts = Path(folder).relative_to(root).parts
            try:
                "/".join((*parts, *images)).encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"{folder!r}: the name of the folder or of a file in it is not UTF-8. "
                    "Rename it."
                ) from error
            tree[parts] = images
    if not tree:
        raise NoImages(
            f"{root}: holds no images (files that end in {' '.join(sorted(IMAGE_SUFFIXES))}). "
            "Links to folders are not followed."
        )
    return tree


def is_image(path: str) -> bool:
    """Whether a path in a folder or an archive has an image suffix and is not hidden.

    Names that begin with a dot (macOS adds such copies) and everything in `__MACOSX` are hidden.
    """
    parts = _SLASH.split(path)
    hidden = any(p == "__MACOSX" or (p.startswith(".") and p not in (".", "..")) for p in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in IMAGE_SUFFIXES


def _choose(root: Path, tree: Tree) -> tuple[Layout, dict[Parts, Folder]]:
    """Return the first layout that describes every folder, and its descriptions."""
    unknown = list(tree)
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
        unknown = min(rest, unknown, key=len)
    shown = sorted("/".join(parts) or "(the folder itself)" for parts in unknown)
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    manifests = [root / name for name in ("manifest.csv", "manifest.parquet")]
    hint = "".join(f" Perhaps you meant {file}." for file in manifests if file.is_file())
    raise UserError(
        f"{root}: no known layout tells whether these folders hold real or synthetic images: "
        f"{', '.join(shown[:20])}{more}. Rename them (known names, in any case: "
        f"{', '.join(sorted(FOLDER_LABELS))}), move them away, or list the images in a manifest "
        f"CSV (path,label).{hint}"
    )


def _check_agreement(root: Path, parts: Parts, label: int, tree: Tree) -> None:
    for name in parts:
        if FOLDER_LABELS.get(name.lower(), label) != label:
            file = "/".join((*parts, tree[parts][0]))
            raise UserError(
                f"{root}: the folders of {file!r} mean both real and synthetic. Rename one, "
                "or list the images in a manifest CSV (path,label)."
            )


def _split(parts: Parts) -> str:
    splits = {SPLIT_SPELLINGS[name.lower()] for name in parts if _is_split(name)}
    if len(splits) > 1:
        raise UserError(f"{'/'.join(parts)}: the folder is in several splits. Rename a folder.")
    return next(iter(splits), "")


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_SPELLINGS


def _last_index(parts: Parts, names: Collection[str]) -> int | None:
    """Return the index of the deepest part that is, in lower case, one of the names."""
    return next((i for i in reversed(range(len(parts))) if parts[i].lower() in names), None)


# --- 0_real and 1_fake: CNNDetection, ForenSynths, UniversalFakeDetect, SIDBench, AIGIBench

_PROGAN_CLASSES = frozenset({
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
})  # fmt: skip
_CLASSES = _PROGAN_CLASSES | {"apple", "bedroom", "church", "orange", "summer", "winter", "zebra"}
_GROUPS = ("diffusion_datasets",)  # holds folders of generators


def _zero_one(parts: Parts, tree: Tree) -> Folder | None:
    """`[<split>/][<generator>/][<class>/]{0_real,1_fake}/[<generator>/]`.

    A name of `_CLASSES` directly above the label is the class, and the name above it the generator.
    Otherwise, the first name below a split is the generator and the rest the class; without a
    split, the name above the label is the generator. A class directly below a train or val folder
    at the root belongs to CNNDetection's training set, whose generator is ProGAN.
    """
    label_at = _last_index(parts, ("0_real", "1_fake"))
    if label_at is None:
        return None
    above, below = parts[:label_at], parts[label_at + 1 :]
    category = ""
    if above and _is_class(above, tree):
        above, category = above[:-1], above[-1]
    split_at = _last_index(above, SPLIT_SPELLINGS)
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

    `train` is both a split and one of CNNDetection's classes. It is the class if it lies inside a
    split or beside other classes.
    """
    *parents, name = above
    if name != "train":
        return name in _CLASSES
    return any(map(_is_split, parents)) or any(
        (*parents, other, label) in tree
        for other in _CLASSES - {"train"}
        for label in ("0_real", "1_fake")
    )


# --- ITW-SM: 0_real and 1_fake, with the platform in metadata.csv or in the file name

_PLATFORMS = {"facebook": "Facebook", "instagram": "Instagram", "linkedin": "LinkedIn", "x": "X"}


def _itw_sm(parts: Parts, tree: Tree) -> Folder | None:
    if parts[-1:] not in (("0_real",), ("1_fake",)):
        return None
    return Folder(LABELS[parts[-1]])


def _is_itw_sm(root: Path, tree: Tree) -> bool:
    parents = {parts[:-1] for parts in tree}
    if len(parents) > 1:
        return False
    metadata = root.joinpath(*parents.pop(), "metadata.csv")
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
        raise UserError(f"{metadata}: lists a file twice. Keep one row.")
    rows = dict(zip(names, zip(given["label"], given["platform"], strict=True), strict=True))
    platforms = []
    for image, label in zip(images, table["label"], strict=True):
        row = rows.get(f"{image.parent.name}/{image.name}") or rows.get(image.name)
        if row is None:
            raise UserError(f"{metadata}: does not list {image}. Add it, or remove the file.")
        if label_of(row[0], where=str(metadata)) != label:
            raise UserError(
                f"{metadata}: the label {row[0]!r} of {image} contradicts its folder. "
                "Correct the row or the folder."
            )
        platforms.append(row[1])
    return table.assign(platform=platforms)


# --- TrueFake: <platform>/{Fake,Real}/<generator or source of the photographs>/<subset>/

_TRUEFAKE_PLATFORMS = ("PreSocial", "Facebook", "Telegram", "Twitter")


def _truefake(parts: Parts, tree: Tree) -> Folder | None:
    start = _platform_index(parts)
    if start is None:
        return None
    platform, label, generator, *subset = parts[start:]
    return Folder(LABELS[label.lower()], generator, "/".join(subset), split="", platform=platform)


def _platform_index(parts: Parts) -> int | None:
    for i in range(len(parts) - 2):
        if parts[i] in _TRUEFAKE_PLATFORMS and parts[i + 1] in ("Fake", "Real"):
            return i
    return None


def _truefake_splits(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Fill in the splits of split.json beside the platforms, and `generator/subset/stem` as source.

    Every platform has a version of the same image; the common source keeps them together.
    """
    sources, parents = [], set()
    for path in table["path"]:
        *folders, name = path.split("/")
        start = _platform_index(tuple(folders)) or 0
        sources.append("/".join((*folders[start + 2 : start + 4], os.path.splitext(name)[0])))
        parents.add(tuple(folders[:start]))
    splits: dict[str, str] = {}
    for parent in parents:
        file = root.joinpath(*parent, "split.json")
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
        splits = {key: SPLIT_SPELLINGS[name] for name, keys in lists.items() for key in keys}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise problem from error
    if len(splits) < sum(len(set(keys)) for keys in lists.values()):
        raise problem
    return splits


# --- Layouts with folder names of their own

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

    Everything below `DR` is a reconstruction and synthetic, even below `DR/MSCOCO`.
    """
    start = _last_index(parts, ("drct-2m", "mscoco"))
    if start is None or parts[-1] not in _COCO_SPLITS:
        return None
    model = "/".join(parts[start + 1 : -1])
    reconstructed = "DR" in parts[:start]
    real = parts[start].lower() == "mscoco" and not reconstructed
    if real == bool(model):  # photographs have no folder of a model, synthetic images have one
        return None
    return Folder(REAL if real else SYNTHETIC, model, split=_COCO_SPLITS[parts[-1]])


def _synthbuster(parts: Parts, tree: Tree) -> Folder | None:
    """`<generator>/`, and photographs of RAISE with the same file names in `real_RAISE_1k/`."""
    if parts[-1:] == ("real_RAISE_1k",):
        return Folder(REAL)
    return Folder(SYNTHETIC, parts[-1]) if parts and parts[-1] in _SYNTHBUSTER else None


def _b_free(parts: Parts, tree: Tree) -> Folder | None:
    """`COCO_real_512/`, and `SD2.1_*/` with the same file names."""
    if parts[-1:] == ("COCO_real_512",):
        return Folder(REAL)
    return Folder(SYNTHETIC, parts[-1]) if parts and parts[-1].startswith("SD2.1_") else None


def _corvi_training(parts: Parts, tree: Tree) -> Folder | None:
    """`{train,valid}/latent_diffusion_<conditioning>/`, and added photographs in `real_*/`."""
    if len(parts) < 2 or not _is_split(parts[-2]):
        return None
    if parts[-1].startswith("real_"):
        return Folder(REAL)
    prefix = "latent_diffusion_"
    if not parts[-1].startswith(prefix):
        return None
    return Folder(SYNTHETIC, "latent_diffusion", parts[-1].removeprefix(prefix))


def _corvi_test(parts: Parts, tree: Tree) -> Folder | None:
    """`<generator>[_<subset>]/` and `real_<source>/`, side by side."""
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
    """`<generator>/fake/` or `fake/<generator>/`, where the deepest name of a label counts."""
    label_at = _last_index(parts, FOLDER_LABELS)
    if label_at is None or "DR" in parts:  # DRCT keeps reconstructions in DR/.../nature
        return None
    below = [name for name in parts[label_at + 1 :] if not _is_split(name)]
    above = parts[label_at - 1] if label_at else ""
    if _is_split(above) or above.lower() in FOLDER_LABELS:
        above = ""
    generator = "" if len(below) > 1 else (below or [above])[0]
    return Folder(FOLDER_LABELS[parts[label_at].lower()], generator)


def _stem_is_source(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Fill in the source: an image and what was generated from it have the same file stem."""
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
"""The known layouts. The first one that describes every folder is used."""
