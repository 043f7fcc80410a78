"""Scoring by Ray: the same journal as in one process, also from where another engine stopped."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.ray_engine import DetectorFile, ray_engine
from synthdetect.detectors.scoring import Engine, Scoring
from synthdetect.models.spec import ModelSpec
from synthdetect.training.devices import Device, deterministic
from tests.detectors.helpers import varied_network

SIZE = 32


class _Stopped(Exception):
    pass


@pytest.mark.long
def test_ray_keeps_the_same_journals(tmp_path: Path) -> None:
    """Two passes, an unreadable image, and a last batch that is smaller than the others."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(7):
        noise = rng.integers(0, 256, (SIZE + 8, SIZE + 2, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "3.png").write_text("no image")
    images = unlabelled(str(tmp_path / "images"))
    detectors = []
    for number, geometry in enumerate(("resize", "center_crop")):
        network = varied_network(ModelSpec.of("mobilenet_v3_large", SIZE), number)
        detector = Detector(network, Card(model=network.spec, geometry=geometry, views="flip"))
        detector.save(tmp_path / f"{number}.safetensors")
        detectors.append(Detector.load(tmp_path / f"{number}.safetensors"))
    files = [DetectorFile(tmp_path / f"{number}.safetensors", "flip") for number in (0, 1)]

    def score(folder: str, engine: Engine | None = None, *, until: int = 14) -> list[bytes]:
        def stop(done: int, total: int) -> None:
            if done >= until < total:
                raise _Stopped

        scoring = Scoring(tmp_path / folder, detectors, images, data="", batch_size=2)
        try:
            with deterministic(0):
                scoring.run(Device("cpu", "fp32", 0), stop, engine)
        except _Stopped:
            pass
        return [file.read_bytes() for file in sorted((tmp_path / folder).glob(".partial-*.csv"))]

    expected = score("local")
    assert len(expected) == 2
    assert b"3,,not an image of a known format\n" in expected[0]
    assert len(score("begun", until=4)) == 1
    with ray_engine(files, 1) as engine:
        import ray  # only now, since Ray reads its settings when it is imported

        assert ray.util.get_node_ip_address() == "127.0.0.1"
        assert score("begun", engine) == expected
    assert not ray.is_initialized()
