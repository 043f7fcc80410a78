"""`synthdetect manifest`."""

from pathlib import Path
from typing import Any

from synthdetect.commands.options import ManifestOptions
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import check_suffix, load, write
from synthdetect.system.console import console, counting, table
from synthdetect.system.files import require_file


def write_manifest(options: ManifestOptions) -> dict[str, Any]:
    """Index the images of a folder or list, and write their manifest."""
    output = Path(options.output)
    check_suffix(output)
    require_file(output, "--output")
    manifest = load(options.folder, option="folder")
    with counting("reading images") as count:
        manifest = index(manifest, progress=count)
    if str(output.resolve().parent) != str(manifest.root):
        paths = [manifest.file(path) for path in manifest.table["path"]]
        manifest = manifest.with_table(manifest.table.assign(path=paths))
    write(manifest, output)
    counts = manifest.counts()
    table(
        f"{output}: {len(manifest):,} images",
        ["split", "label", "generator", "images"],
        [[str(cell) for cell in row] for row in counts.to_numpy()],
    )
    unreadable = manifest.table[manifest.table["error"] != ""]
    if len(unreadable):
        console.print(f"{len(unreadable)} image(s) cannot be read:", style="bold yellow")
        for path, error in unreadable[["path", "error"]].to_numpy():
            console.print(f"  {path}: {error}", style="bold yellow")
    return {
        "file": output,
        "images": len(manifest),
        "counts": counts,
        "unreadable": unreadable[["path", "error"]],
    }
