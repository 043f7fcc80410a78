"""The load that a run's own processes put on the machine, among MLflow's system metrics.

MLflow measures the machine as a whole, which others may use too.
"""

import time
from collections.abc import Iterator

import psutil
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor


class ProcessMonitor(BaseMetricsMonitor):
    """Measures this process and those that it has started, such as the workers that read images.

    `processes/count` is their number, `processes/memory_megabytes` the sum of their resident
    memory, in which pages that they share count several times, and `processes/cpu_percent` the time
    on all cores since the last measurement, where 100 is one core.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._process = psutil.Process()
        self._before, self._then = dict(self._seconds()), time.monotonic()

    def collect_metrics(self) -> None:
        """Measure once."""
        now = time.monotonic()
        seconds = dict(self._seconds())
        used = sum(value - self._before.get(pid, 0.0) for pid, value in seconds.items())
        resident = []
        for process in self._all():
            try:
                resident.append(process.memory_info().rss)
            except psutil.Error:
                continue  # it has ended
        if now > self._then:
            self._metrics["processes/cpu_percent"].append(100 * used / (now - self._then))
        self._metrics["processes/count"].append(len(resident))
        self._metrics["processes/memory_megabytes"].append(sum(resident) / 1e6)
        self._before, self._then = seconds, now

    def aggregate_metrics(self) -> dict[str, float]:
        """Return the mean of each metric since the last call of `clear_metrics`."""
        return {name: round(sum(found) / len(found), 1) for name, found in self._metrics.items()}

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _seconds(self) -> Iterator[tuple[int, float]]:
        for process in self._all():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            yield process.pid, times.user + times.system
