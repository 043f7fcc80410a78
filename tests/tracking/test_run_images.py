"""Pictures are kept in a run under the names they were given."""

from pathlib import Path

import mlflow
import numpy as np
from PIL import Image

from synthdetect.tracking.run import open_run


def test_a_logged_image_is_an_artifact_by_its_name(workspace: Path) -> None:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    with open_run("images", kind="test", tags={}) as run:
        run.log_image(picture, "explain/test/mistakes/01_p0.97_real.png")
    found = mlflow.artifacts.list_artifacts(run_id=run.id, artifact_path="explain/test/mistakes")
    assert [item.path for item in found] == ["explain/test/mistakes/01_p0.97_real.png"]
    file = mlflow.artifacts.download_artifacts(run_id=run.id, artifact_path=found[0].path)
    assert (np.asarray(Image.open(file)) == np.asarray(picture)).all()
