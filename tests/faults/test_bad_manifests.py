"""Tables of images, of predictions and of folds that are wrong, hostile, or no tables."""

import os
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdetect.datasets.folds import read_folds
from synthdetect.datasets.manifest import load, read
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.evaluation.external import read_predictions
from synthdetect.submission.checking import check_submission
from tests.faults.conftest import TINY, Refused, refusal

BAD_SPLITS = {
    "a path": "../../x", "climbing": "a/../b", "absolute": "/abs", "backslashes": "a\\b",
    "a dot": ".", "two dots": "..", "hidden": ".x", "markup": "<script>", "a format": "%s %n",
    "a metric's forbidden signs": "a@b (c),#d", "a terminal's command": "\x1b[31m",
    "right to left": "\u202egpj", "65 letters": "x" * 65, "100,000 letters": "x" * 100_000,
}  # fmt: skip

PROBED = ("bytes", "mtime_ns", "sha256", "width", "height", "format", "mode", "jpeg_quality",
          "exif", "provenance")  # fmt: skip
"""What `synthdetect manifest` finds of each file, and a manifest may claim."""


def table(images: Path, **columns: object) -> pd.DataFrame:
    """The manifest of the images, with columns replaced."""
    files = sorted(images.rglob("*.png"))
    rows = pd.DataFrame({"path": list(map(str, files)), "label": [f.parent.name for f in files]})
    splits = np.array(["train", "train", "val", "val", "test", "test"])
    return rows.assign(**{"split": splits[np.arange(len(rows)) % 6], **columns})


def write(rows: pd.DataFrame, folder: Path, name: str = "m.csv") -> str:
    """Write a table; returns the option that names it."""
    file = folder / name
    if name.endswith(".parquet"):
        rows.to_parquet(file)
    else:
        rows.to_csv(file, index=False)
    return f"--data={name}"


# --- manifests

TEXTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "a semicolon between columns": ("path;label\na;real\n", ("unknown columns", "path,label")),
    "a tab between columns": ("path\tlabel\na\treal\n", ("unknown columns",)),
    "no header": ("a.png,real\nb.png,fake\n", ("unknown columns",)),
    "capital letters": ("Path,Label\na,real\n", ("unknown columns",)),
    "a column twice": ("path,label,label\na,real,fake\n", ("twice", "Rename one")),
    "two columns without names": ("path,label,,\na,real,,\n", ("twice",)),
    "a quote that never ends": ('path,label\n"a,real\n', ("cannot be read as CSV",)),
    "a quote in a field": ('path,label\n"a"b,real\n', ("cannot be read as CSV",)),
    "one comma too many": ("path,label\na,real,\n", ("line 2", "Quote")),
    "one comma too few": ("path,label,split\na,real\n", ("line 2",)),
    "labels of two": ("path,label\na,2\nb,0\n", ("'2' is unknown", "Known names")),
    "labels swapped with paths": ("path,label\nreal,a.png\n", ("'a.png' is unknown",)),
    "a label in Cyrillic": ("path,label\na,реал\n", ("is unknown",)),
    "a label with a NUL": ("path,label\na,real\0\n", ("is unknown",)),
    "no label": ("path,label\na,real\nb,\n", ("'' is unknown",)),
    "a label that commands the terminal": ("path,label\na,\x1b[2J\n", ("is unknown",)),
    "a label of 100,000 letters": ("path,label\na," + "x" * 100_000 + "\n", ("is unknown",)),
    "a path twice": ("path,label\na,real\na,real\n", ("row 2", "twice", "keep one row")),
    "a path twice, but for blanks": ("path,label\na,real\n a ,fake\n", ("row 2", "twice")),
    "a path that climbs": ("path,label\n../../etc/passwd,real\n", ("row 1", "absolute path")),
    "a path that climbs within": ("path,label\na/../../b,real\n", ("row 1", "climbs")),
    "a path that climbs as on Windows": ("path,label\n..\\b,real\n", ("row 1", "climbs")),
    "a blank path": ("path,label\n \t ,real\n", ("row 1", "has no path")),
    "a path with a NUL": ("path,label\na\0b,real\n", ("row 1", "NUL")),
    "a path longer than any": (f"path,label\n{'x' * 5000},real\n", ("cannot be read",)),
    "a path that is a device": ("path,label\n/dev/zero,real\n", ("/dev/zero", "regular file")),
    "a path that is a folder": ("path,label\n/,real\n", ("Is a directory",)),
    "a path that is the memory": ("path,label\n/proc/self/mem,real\n", ("cannot be read",)),
    "a path that is a URI": ("path,label\nhttps://127.0.0.1:9/a.png,real\n",
                             ("https://127.0.0.1:9/a.png: Connect call failed",)),
    "paths to nowhere": ("path,label\na,real\nb,fake\n", ("2 of 2", "--on-bad-image exclude")),
    "a header and nothing else": ("path,label\n", ("holds no images",)),
    "only blank lines": ("\n\n\n\n", ("is empty",)),
    "nothing": ("", ("is empty", "first line")),
    "only a byte order mark": (b"\xef\xbb\xbf", ("is empty",)),
    "UTF-16": ("path,label\na,real\n".encode("utf-16"), ("UTF-8",)),
    "UTF-32": ("path,label\na,real\n".encode("utf-32"), ("UTF-8", "Save it")),
    "Latin-1": ("path,label\nbär,real\n".encode("latin-1"), ("UTF-8",)),
    "a surrogate": (b"path,label\n\xed\xb3\xbf,real\n", ("UTF-8",)),
    "random bytes": (np.random.default_rng(0).bytes(5000), ("m.csv",)),
    "NULs": (bytes(5000), ("m.csv",)),
    "a megabyte without a line's end": (b"x" * 2**20, ("m.csv",)),
    "a thousand columns": (",".join(map(str, range(1000))) + "\n", ("unknown columns", "...")),
    "HTML": ("<!doctype html><html><title>404</title></html>", ("unknown columns",)),
    "JSON": ('[{"path": "a.png", "label": "real"}]', ("m.csv",)),
    "two dialects at once": ("path,label,filename\n,,a\n", ("has no path",)),
    "SPAI with a strange class": ("image,class,split\na,maybe,train\n", ("'maybe' is unknown",)),
    "a foreign list without rows": ("filename,typ\n", ("lists no images",)),
    "a foreign list without a path": ("filename,typ\n,real\n", ("image 1", "no path")),
    "a foreign path twice": ("filename,typ\na,real\n./a,flux\n", ("listed twice",)),
    "two generators": ("file_name,label,model,generator\na,real,,b\n", ("Remove one column",)),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_manifest_is_refused_with_the_place(refused: Refused, case: str) -> None:
    """A manifest that is wrong, hostile, or none."""
    content, named = TEXTS[case]
    data = content if isinstance(content, bytes) else content.encode()
    (refused.folder / "m.csv").write_bytes(data)
    refused("train", *TINY, "--data=m.csv", named=named)


@pytest.mark.parametrize("kind", BAD_SPLITS)
def test_a_split_that_can_be_no_name_is_refused(
    refused: Refused, pictures: Path, kind: str
) -> None:
    """A split that could be no part of a metric's or a file's name."""
    rows = table(pictures)
    rows["split"] = rows["split"].replace("test", BAD_SPLITS[kind])
    data = write(rows, refused.folder)
    refused("train", *TINY, data, named=("m.csv: row", "letters, digits"))


PARQUET: dict[str, dict[str, Any]] = {
    "labels that are lists": {"label": [["real"]] * 24},
    "labels that are objects": {"label": [{"name": "real"}] * 24},
    "labels that are bytes": {"label": [b"real"] * 24},
    "labels that are halves": {"label": [0.5] * 24},
    "labels that are infinite": {"label": [np.inf] * 24},
    "labels that are missing": {"label": [None] * 24},
    "labels that are dates": {"label": pd.to_datetime(["2025-01-01"] * 24)},
    "paths that are missing": {"path": [None] * 24},
    "paths that are numbers": {"path": range(24)},
    "paths that are lists": {"path": [[str(n)] for n in range(24)]},
    "paths with a NUL": {"path": [f"{n}\0" for n in range(24)]},
    "splits that are lists": {"split": [["train"]] * 24},
    "splits for some only": {"split": ["train"] * 12 + [None] * 12},
    "hashes that are numbers": {"sha256": range(24)},
    "hashes that are bytes": {"sha256": [bytes(32)] * 24},
    "hashes of other files": {"sha256": ["0" * 64] * 24},
    "hashes in capital letters": {"sha256": ["A" * 64] * 24},
}


@pytest.mark.parametrize("case", PARQUET)
def test_a_parquet_manifest_of_other_types_is_refused(
    refused: Refused, pictures: Path, case: str
) -> None:
    """A Parquet manifest with columns of other types, or claims that do not hold."""
    data = write(table(pictures, **PARQUET[case]), refused.folder, "m.parquet")
    refused("train", *TINY, data, named=("m.parquet",))


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "m.xlsx": lambda file: zipfile.ZipFile(file, "w").writestr("xl/workbook.xml", "<x/>"),
    "m.db": lambda file: sqlite3.connect(file).execute("create table m(path text)"),
    "m.json": lambda file: file.write_text('{"path": ["a"]}'),
    "m.yaml": lambda file: file.write_text("!!python/object/apply:os.system ['true']"),
    "m.pkl": lambda file: file.write_bytes(b"\x80\x04."),
    "m.npy": lambda file: np.save(file, np.array([{"path": 1}], dtype=object), allow_pickle=True),
    "m.png": lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "cut.parquet": lambda file: file.write_bytes(b"PAR1\x15\x00"),
    "link": lambda file: file.symlink_to("nowhere"),
    "loop": lambda file: file.symlink_to(file),
    "pipe.csv": os.mkfifo,
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_another_kind_is_refused_by_name(refused: Refused, name: str) -> None:
    """A file that is no table, in place of a manifest."""
    OTHER_FILES[name](refused.folder / name)
    refused("train", *TINY, f"--data={name}", named=(name,))


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], object], tuple[str, ...]]] = {
    "all of one class": (lambda t: t.assign(label="real"), ("real images only",)),
    "no train split": (lambda t: t.assign(split="test"), ("has no train split",)),
    "one class in val": (
        lambda t: t[(t["split"] != "val") | (t["label"] == "real")], ("the val split holds real",),
    ),
    "one source for all": (lambda t: t.assign(source_id="p1"), ("cross the splits",)),
    "two images, no splits": (lambda t: t.head(2).assign(split=""), ("too few sources",)),
    "one source, no splits": (lambda t: t.assign(split="", source_id="p1"), ("too few sources",)),
    "a split for all but one": (
        lambda t: t.assign(split=["", *t["split"][1:]]), ("1 image(s) have no split", "Fill"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_data_that_cannot_be_trained_on_are_refused(
    refused: Refused, pictures: Path, case: str
) -> None:
    """A sound table of data that no training could use."""
    change, named = FAULTS[case]
    data = write(pd.DataFrame(change(table(pictures))), refused.folder)
    refused("train", *TINY, data, named=("m.csv: ", *named))


@pytest.mark.parametrize("value", ["inf", "-1", "1e300", "\x1b[2J"])
@pytest.mark.parametrize("column", PROBED)
def test_what_a_manifest_claims_of_its_files_is_never_believed_blindly(
    refused: Refused, pictures: Path, column: str, value: str
) -> None:
    """A manifest that claims strange sizes, times, formats or hashes of its files."""
    claims = {**dict.fromkeys(PROBED, "1"), "sha256": "", column: value}
    write(table(pictures, **claims, label="real"), refused.folder)
    claimed = ("differ from the sha256",) if column == "sha256" and value else ()
    refused("train", *TINY, "--data=m.csv", named=claimed or ("m.csv: the train split",))


def test_a_million_rows_of_one_class_are_refused(refused: Refused, pictures: Path) -> None:
    """A million rows of one class, whose images are not there."""
    rows = pd.DataFrame({"path": np.arange(10**6).astype(str), "label": "real", "split": "train"})
    assert len(read_written(rows, refused.folder)) == 10**6
    write(rows.assign(label="maybe"), refused.folder)
    refused("train", *TINY, "--data=m.csv", named=("m.csv: the label 'maybe' is unknown",))


def read_written(rows: pd.DataFrame, folder: Path) -> Any:
    write(rows, folder)
    return read(folder / "m.csv")


# --- tables of predictions

PREDICTIONS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "nothing": ("", ("is empty",)),
    "a header only": ("path,label,logit\n", ("has no rows",)),
    "no score": ("path,label\na,0\n", ("neither 'logit' nor 'probability'", "--columns")),
    "a score that is a word": ("path,label,logit\na,0,high\n", ("row 1", "no finite number")),
    "an infinite score": ("path,label,logit\na,0,inf\n", ("row 1",)),
    "a score beyond floats": ("path,label,logit\na,0,1e999\n", ("row 1",)),
    "no score in a row": ("path,label,logit\na,0,1\nb,1,\n", ("row 2",)),
    "a probability above 1": ("path,label,probability\na,0,1.01\n", ("row 1", "outside 0 to 1")),
    "a negative probability": ("path,label,probability\na,0,-0.01\n", ("row 1",)),
    "percentages": ("path,label,probability\na,0,50%\n", ("row 1",)),
    "a decimal comma": ('path,label,logit\na,0,"1,5"\n', ("row 1",)),
    "an unknown label": ("path,label,logit\na,maybe,1\n", ("'maybe' is unknown",)),
    "a path twice": ("path,label,logit\na,0,1\na,1,2\n", ("row 2", "twice")),
    "a row too short": ("path,label,logit,split\na,0,1\n", ("line 2",)),
    "rows too long": ("path,label,logit\nx,a,0,1\n", ("line 2", "4 fields")),
    "a column twice": ("path,path,label,logit\na,b,0,1\n", ("twice",)),
    "an open quote": ('path,label,logit\na,0,"1\n', ("cannot be read",)),
    "a split that climbs": ("path,label,logit,split\na,0,1,../x\n", ("row 1", "letters, digits")),
    "only a train split": ("path,label,logit,split\na,0,1,train\n", ("only a train split",)),
    "two thresholds": ("path,label,logit,threshold\na,0,1,.5\nb,1,2,.6\n", ("2 values",)),
    "a threshold of 7": ("path,label,logit,threshold\na,0,1,7\nb,1,2,7\n", ("first 7",)),
    "a threshold that is a word": ("path,label,logit,threshold\na,0,1,x\n", ("first x", "Leave")),
    "UTF-16": ("path,label,logit\na,0,1\n".encode("utf-16"), ("UTF-8",)),
    "random bytes": (np.random.default_rng(1).bytes(3000), ("p.csv",)),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_a_table_of_predictions_is_refused_with_the_place(refused: Refused, case: str) -> None:
    """Anybody's table of predictions that is wrong, or none."""
    content, named = PREDICTIONS[case]
    data = content if isinstance(content, bytes) else content.encode()
    (refused.folder / "p.csv").write_bytes(data)
    refused("evaluate", "--predictions=p.csv", named=named)


GOOD = "path,label,logit\n" + "".join(f"{n}.png,{n % 2},{n / 10}\n" for n in range(8))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--columns=label", ("--columns", "pairs")),
        ("--columns=label=", ("pairs",)),
        ("--columns==logit", ("pairs",)),
        ("--columns=label=nope", ("no column 'nope'", "Found")),
        ("--columns=path=label,label=path", ("--columns",)),
        ("--splits=nope", ("--splits", "Found: test")),
        ("--slices=nope", ("--slices", "Found")),
        ("--decide=val", ("--decide val", "no val rows")),
        ("--model=x", ("--predictions", "leave out --model")),
        ("--robustness=all", ("--robustness", "no images")),
        ("--equalised=true", ("--equalised",)),
    ],
)
def test_options_that_a_table_of_predictions_cannot_meet(
    refused: Refused, option: str, named: tuple[str, ...]
) -> None:
    """Options that ask of a table of predictions what it does not have."""
    (refused.folder / "p.csv").write_text(GOOD)
    refused("evaluate", "--predictions=p.csv", option, named=named)


# --- lists of images without labels, and folds

LISTS = {
    "no path": ("file\na.png\n", "no column 'path'"),
    "an empty path": ("path\na.png\n \n", "row 2"),
    "a path that climbs": ("path\n../a.png\n", "row 1"),
    "a path twice": ("path\na.png\na.png\n", "row 2"),
    "nothing": ("", "is empty"),
    "a header only": ("path\n", "holds no images"),
    "too many fields": ("path\na,b\n", "line 2"),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_to_score_is_refused_with_the_place(
    refused: Refused, detector_file: Path, case: str
) -> None:
    """A list of images to score that is wrong."""
    text, place = LISTS[case]
    (refused.folder / "list.csv").write_text(text)
    refused("predict", f"--model={detector_file}", "--data=list.csv", named=("list.csv: ", place))


FOLDS: dict[str, tuple[Callable[[pd.DataFrame], object], str]] = {
    "one fold": (lambda t: t.assign(fold=1), "one fold only"),
    "a source in two folds": (lambda t: t, "one source"),
    "a fold of one class": (
        lambda t: t.assign(source_id="", fold=(t["label"] == "real") + 1), "one class only",
    ),
    "images missing": (lambda t: t.head(5), "are missing"),
    "an image twice": (lambda t: pd.concat([t, t.head(1)]), "other images"),
    "other images": (lambda t: t.assign(path="other/" + t["path"]), "are unknown"),
    "folds that are words": (lambda t: t.assign(fold="first"), "no assignment"),
    "folds that are infinite": (lambda t: t.assign(fold=np.inf), "no assignment"),
    "folds that are missing": (lambda t: t.assign(fold=""), "no assignment"),
    "no held_out": (lambda t: t.drop(columns="held_out"), "no assignment"),
    "no rows": (lambda t: t.head(0), "are missing"),
    "a fold of two generators": (
        lambda t: t.assign(fold=1 + np.arange(len(t)) // 2 % 2, held_out=t["path"]),
        "one held_out generator",
    ),
    "a source in train and val": (
        lambda t: t.assign(fold=1 + np.arange(len(t)) // 2 % 2, held_out="g",
                           val=np.arange(len(t)) % 2),
        "to train and to val",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDS)
def test_an_assignment_of_folds_is_refused(refused: Refused, pictures: Path, case: str) -> None:
    """Folds from a file that would leak a photograph, or that are other data's."""
    change, place = FOLDS[case]
    rows = table(pictures)
    rows["source_id"] = [f"p{n // 2}" for n in range(len(rows))]
    rows["split"] = "train"
    write(rows, refused.folder)
    folds = rows.assign(fold=1 + np.arange(len(rows)) % 2, held_out="")
    pd.DataFrame(change(folds)).drop(
        columns=["label", "split", "source_id"], errors="ignore"
    ).to_csv(refused.folder / "folds.csv", index=False)
    rows = rows.assign(source_id="") if case == "a fold of one class" else rows
    write(rows, refused.folder)
    arguments = ["cv", *TINY, "--data=m.csv", "--folds-from=folds.csv"]
    refused(*arguments, named=("--folds-from", place))


@pytest.mark.parametrize("folds", ["/nowhere.csv", "0123456789abcdef", "."])
def test_folds_that_are_not_there_are_named(refused: Refused, pictures: Path, folds: str) -> None:
    """Folds from a file or run that is not there."""
    arguments = ["cv", *TINY, f"--data={pictures}", f"--folds-from={folds}"]
    refused(*arguments, named=("--folds-from", "neither a file nor"))


def test_more_folds_than_sources_are_refused(refused: Refused, pictures: Path) -> None:
    """More folds than there are photographs."""
    refused("cv", *TINY, f"--data={pictures}", "--folds=90", named=("--folds", "too few sources"))


# --- anything at all

CELL = st.one_of(
    st.sampled_from(["real", "fake", "a.png", "../x", "", "NA", "nan", "1e309", "-1", "train",
                     '"', "\r", "\ufeff", "\0", "\x1b[2J"]),
    st.text(max_size=8),
)  # fmt: skip
HEADER = st.one_of(
    st.sampled_from(["path,label", "path,label,split,source_id,sha256", "path,label,probability",
                     "path,label,logit,threshold,split", "path,fold,held_out", "filename,typ",
                     "image_id,prob,label,threshold"]),
    st.lists(CELL, max_size=5).map(",".join),
)  # fmt: skip
TABLE = st.one_of(
    st.builds(
        lambda header, rows, end: end.join([header, *rows]).encode(),
        HEADER,
        st.lists(st.lists(CELL, max_size=5).map(",".join), max_size=6),
        st.sampled_from(["\n", "\r\n", "\r"]),
    ),
    st.binary(max_size=200),
)
SAMPLE = load("sample")
READERS: dict[str, Callable[[Path], object]] = {
    "manifest": read,
    "list": lambda file: unlabelled(str(file)),
    "predictions": lambda file: read_predictions(file, []),
    "folds": lambda file: read_folds(file, SAMPLE, seed=0, val_share=0.15),
    "submission": lambda file: check_submission(file, edition="2026"),
}


@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_a_table_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, reader: str
) -> None:
    """Anything at all in place of a table: 150 made up by hypothesis for each reader."""
    file = tmp_path_factory.mktemp("any") / "team_open.csv"

    @settings(max_examples=150, derandomize=True, deadline=None, database=None)
    @given(TABLE)
    def tried(content: bytes) -> None:
        file.write_bytes(content)
        message = refusal(lambda: READERS[reader](file))
        assert not message or str(file) in message
        assert len(message) < 2000

    tried()
