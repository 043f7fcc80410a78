"""MLServer on a port, with the model of a folder.

python -m benchmarks.servers.mlserver_on FOLDER PORT
"""

import asyncio
import sys

import mlserver
from mlserver.cli.serve import load_settings


async def main(folder: str, port: int) -> None:
    settings, models = await load_settings(folder)
    settings.host, settings.http_port, settings.grpc_port = "127.0.0.1", port, port + 1
    settings.metrics_endpoint, settings.parallel_workers = None, 0
    await mlserver.MLServer(settings).start(models)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
