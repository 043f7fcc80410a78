"""Images without labels, from a folder, an archive or a list."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from synthdetect.datasets.archives import ARCHIVE_SUFFIXES, open_archive
from synthdetect.datasets.dialects import read_table
from synthdetect.datasets.layouts import NoImages, is_image, walk
from synthdetect.datasets.manifest import SAMPLE, check_paths, load
from synthdetect.datasets.parquet_list import ParquetList
from synthdetect.datasets.shards import find_shards, has_images, is_range, list_members
from synthdetect.images.batches import Images
from synthdetect.images.buckets import is_url
from synthdetect.images.contents import located, read_content
from synthdetect.images.reading import BadImage
from synthdetect.images.video import VIDEO_SUFFIXES, frame_times, is_video, read_frame
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra


def unlabelled(data: str, *, option: str = "--data", frames: int = 0) -> Images:
    """List images that need no labels. `Images.seen_by` then sets how they are preprocessed.

    Args:
        data: A folder (searched with its subfolders, sorted by path), an archive (`.zip`, `.tar`,
            `.tar.gz`, `.tgz`; in its order), a manifest (`.csv`, `.parquet`) with a column `path`
            (in its order), shards (see `shards.find_shards`; in their order), or `sample`.
        option: The option that named `data`, for messages.
        frames: Frames of each video that are images, evenly spaced; 0 takes no videos.

    Raises:
        UserError: If packages for videos are missing, or `data` does not exist, is damaged or of
            another kind, or holds no images.
    """
    if data == SAMPLE:
        manifest = load(SAMPLE)
        return ListedFiles(manifest.root, list(manifest.table["path"]))
    if is_url(data) or is_range(data):
        address = data if is_url(data) else str(Path(data).expanduser().absolute())
        try:
            return _from_shards(address)
        except UserError as error:
            raise UserError(f"{option}: {error}") from error
    path = Path(data).expanduser()
    suffix = path.name.lower()
    if path.is_dir():
        try:
            tree = walk(path, (lambda name: is_image(name) or is_video(name)) if frames else None)
        except NoImages:
            root = str(path.resolve())
            shards, _ = find_shards(root)
            if not shards:
                raise
            return ListedFiles(root, list_members(shards, root))
        names = ["/".join((*parts, name)) for parts, found in tree.items() for name in found]
        return _with_frames(path.resolve(), sorted(names), frames)
    if not path.is_file():
        raise UserError(f"{option}: {data!r} is neither '{SAMPLE}' nor a folder nor a file.")
    if suffix.endswith(ARCHIVE_SUFFIXES):
        return open_archive(path)
    if suffix.endswith(".parquet") and has_images(str(path)):
        root = str(path.resolve().parent)
        return ListedFiles(root, list_members([str(path.resolve())], root))
    if suffix.endswith(".parquet"):
        listed = ParquetList(path)
        if not listed.has_videos:
            return listed
    if suffix.endswith((".csv", ".parquet")):
        return _with_frames(path.resolve().parent, _listed_paths(path), frames)
    if frames and is_video(suffix):
        return _with_frames(path.resolve().parent, [path.name], frames)
    video = f", a video ({', '.join(VIDEO_SUFFIXES)})" if frames else ""
    raise UserError(
        f"{option}: {data}: give a folder{video}, a {', '.join(ARCHIVE_SUFFIXES)}, .csv or "
        ".parquet file."
    )


def _from_shards(address: str) -> "ListedFiles":
    shards, _ = find_shards(address)
    if not shards:
        raise UserError(f"{address}: holds no shards (.tar or .parquet). Give another address.")
    root = address.rpartition("/")[0]
    return ListedFiles(root, list_members(shards, root))


def _with_frames(root: Path, names: Sequence[str], frames: int) -> "ListedFiles":
    """List files, each video as its frames.

    A video that cannot be opened is listed once, and is then an unreadable image.
    """
    if not frames or not any(map(is_video, names)):
        return ListedFiles(root, names)
    require_extra("video", "videos among the images")
    listed: list[str] = []
    times: dict[int, tuple[str, float]] = {}
    for name in names:
        if not is_video(name):
            listed.append(name)
            continue
        try:
            found = frame_times(root / name, frames)
        except BadImage:
            listed.append(name)
            continue
        for seconds in found:
            times[len(listed)] = name, seconds
            listed.append(f"{name}#{seconds:.3f}s")
    return ListedFiles(root, listed, times)


class ListedFiles(Images):
    """Image files by their names, which are absolute or relative to a folder, and frames of videos.

    Args:
        root: The folder, or its URL.
        names: The names.
        times: The file and the time in seconds of each row that is a frame of a video.
    """

    def __init__(
        self,
        root: Path | str,
        names: Sequence[str],
        times: Mapping[int, tuple[str, float]] | None = None,
    ) -> None:
        self.root = root
        self.names = pa.array(names, pa.large_string())
        self.times = times or {}

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """The name as listed."""
        return str(self.names[row].as_py())

    def read(self, row: int) -> bytes:
        """Read the file, or decode the frame."""
        if row in self.times:
            name, seconds = self.times[row]
            return read_frame(Path(self.root) / name, seconds)
        if is_video(self.name(row)):
            raise BadImage(_reason(Path(self.root) / self.name(row)))
        return read_content(located(self.root, self.name(row)))

    def file(self, row: int) -> tuple[str, bytes | Path]:
        """Return the name and the file of an image, which is that of all frames of a video."""
        if row in self.times:
            name, _ = self.times[row]
            return name, Path(self.root) / name
        return super().file(row)


def _reason(video: Path) -> str:
    """Return why the frames of a video could not be listed."""
    try:
        frame_times(video, 1)
    except BadImage as error:
        return str(error)
    return "the video could not be opened when the images were listed, and now it can; run again"


def _listed_paths(path: Path) -> list[str]:
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of images: {error}") from error
    if "path" not in table:
        raise UserError(f"{path}: has no column 'path'; it has {', '.join(map(str, table))}.")
    names = table["path"].astype(object).fillna("").astype(str).str.strip()
    if names.empty:
        raise UserError(f"{path}: holds no images.")
    check_paths(names, str(path))
    return list(names)
