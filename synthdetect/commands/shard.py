"""`synthdetect shard`."""

from typing import Any

from synthdetect.commands.options import ShardOptions
from synthdetect.datasets.manifest import load
from synthdetect.datasets.packing import pack
from synthdetect.datasets.prepare import index_readable
from synthdetect.system.console import console, counting


def write_shards(options: ShardOptions) -> dict[str, Any]:
    """Pack the images of a folder, a manifest or shards into tar shards."""
    manifest = load(options.data, option="data")
    with counting("reading images") as count:
        manifest, excluded = index_readable(manifest, options.on_bad_image, count)
    with counting("packing images") as count:
        packed = pack(
            manifest, options.output, shard_bytes=options.shard_mib * 2**20, progress=count
        )
    shards = packed.table["path"].str.partition("#")[0].nunique()
    console.print(f"{options.output}: {len(packed):,} images in {shards:,} shard(s)")
    for path, error in excluded.to_numpy():
        console.print(f"  {path}: left out: {error}", style="bold yellow")
    return {
        "folder": options.output,
        "images": len(packed),
        "shards": shards,
        "excluded": excluded,
    }
