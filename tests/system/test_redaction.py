"""Tests that secrets are neither shown nor recorded."""

import mlflow
import pytest

from synthdetect.cli import main
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.opening import open_run


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://anna:hunter2@db.example/mlflow",
        "at postgresql+psycopg2://anna:hunter2@db:5432/x?sslmode=require, and more",
        "https://hunter2@tracking.example/api",
        "mysql://anna:hun@ter2/hunter2@db/x",
        "HTTPS://anna:hunter2@host",
        "(s3://AKIA:hunter2@bucket/key)",
        "https://h/x.csv?X-Amz-Signature=hunter2&y=1",
        "https://h/x?sv=1&sig=hunter2",
        "postgresql://db/x?user=anna&password=hunter2",
        "https://h/x?access_token=hunter2#part",
        "wasbs://h/x;AccountKey=hunter2",
        "postgresql://db/x?password=a;hunter2&user=b",
        "postgresql://db/x?password=a#hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BA%7D%3BUID%3Danna%3A%3BPWD%3Dhunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER=A;PWD=hun;hunter2",
    ],
)
def test_secrets_are_removed_from_uris(uri: str) -> None:
    cleaned = without_secrets(uri)
    assert "hunter2" not in cleaned
    assert "anna:" not in cleaned
    assert "***" in cleaned


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/key@v2/x.csv", "models:/m-1@champion", "https://host/path?page=2", "a@b.example",
     "C:/images/real", "10:30 @ noon", "keys=5"],
)  # fmt: skip
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert without_secrets(text) == text


def test_other_parts_of_a_query_are_unchanged() -> None:
    cleaned = without_secrets("postgresql://db/x?password=a;b#c&sslmode=require --lr=1")
    assert cleaned == "postgresql://db/x?password=***&sslmode=require --lr=1"


def test_a_run_records_no_secret(workspace: object) -> None:
    uri = "postgresql://anna:hunter2@db.example/optuna"

    def fail() -> None:
        with open_run("r", kind="train", tags={"command": uri}) as run:
            run.log_params({"storage": uri})
            run.set_tags({"later": f"--storage={uri}"})
            raise RuntimeError(f"cannot reach {uri}")

    with pytest.raises(RuntimeError):
        fail()
    data = mlflow.last_active_run().data
    shown = {**data.params, **data.tags}
    assert not [name for name, value in shown.items() if "hunter2" in value]
    assert data.params["storage"] == "postgresql://***@db.example/optuna"
    assert data.tags["synthdetect.error"] == "cannot reach postgresql://***@db.example/optuna"


@pytest.mark.parametrize("traceback", ["", "1"])
def test_a_message_shows_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, traceback: str
) -> None:
    monkeypatch.setenv("SYNTHDETECT_TRACEBACK", traceback)
    assert main(["train", "--data=https://anna:hunter2@host/images"]) == 2
    assert "https://***@host/images" in (shown := capsys.readouterr().err)
    assert "hunter2" not in shown
