"""Run files: what is written reads back exactly, and every fault is found under its own code."""

import csv
import io
import math
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthdetect.submission.runfile import (
    COLUMNS,
    EDITIONS,
    FAULTS,
    MAX_BYTES,
    MAX_LINE_BYTES,
    MAX_LINES,
    check_submission,
    image_ids_of,
    write_submission,
)
from synthdetect.system.errors import UserError

IDS = [f"image_{i}.jpg" for i in range(10)]
PROBS = [0.05 + i / 10 for i in range(10)]
HEADER = ",".join(COLUMNS)


def run_text(probs: list[float] = PROBS, threshold: float = 0.5) -> str:
    rows = [
        f"{name},{prob!r},{int(prob >= threshold)},{threshold!r}\n"
        for name, prob in zip(IDS, probs, strict=True)
    ]
    return f"{HEADER}\n{''.join(rows)}"


GOOD = run_text()


def zip_bytes(
    members: dict[str, str], method: int = zipfile.ZIP_DEFLATED, patch: tuple[int, bytes] = (0, b"")
) -> bytes:
    """An archive; ``patch`` overwrites bytes at an offset into its (last) directory entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    content = bytearray(buffer.getvalue())
    offset, new = patch
    start = content.rfind(b"PK\x01\x02") + offset
    if new:
        content[start : start + len(new)] = new
    return bytes(content)


def codes_of(path: Path, **options: object) -> list[str]:
    return [finding.code for finding in check_submission(path, **options)]  # type: ignore[arg-type]


def sub(old: str, new: str) -> Callable[[str], str]:
    """Replace the first occurrence; the text must be there."""

    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def every_row(pattern: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        header, rows = text.split("\n", 1)
        changed = re.sub(pattern, new, rows, flags=re.MULTILINE)
        assert changed != rows
        return f"{header}\n{changed}"

    return edit


def reordered(text: str) -> str:
    rows = csv.reader(text.splitlines())
    return "".join(f"{image_id},{label},{prob},{t}\n" for image_id, prob, label, t in rows)


# How to spoil the text of a good run; the codes it must give; a part of the first one's message.
TEXT_FAULTS: list[tuple[Callable[[str], str | bytes], list[str], str]] = [
    (lambda text: "", ["no-rows"], "the file is empty"),
    (lambda text: f"{HEADER}\n", ["no-rows"], "one row per test image"),
    (lambda text: f"{HEADER}\n\n\n", ["no-rows", "blank-lines"], "one row"),
    (lambda text: text.encode("utf-16"), ["not-utf8"], "line 1, byte 1"),
    (lambda text: text.encode() + b"caf\xe9.jpg", ["not-utf8"], "line 12, byte 4"),
    (lambda text: text.encode("utf-8-sig"), ["bom"], "without BOM"),
    (lambda text: text + "x" * (MAX_LINE_BYTES + 1), ["line-too-long"], "line 12"),
    (lambda text: "\n" + text, ["header"], "exactly image_id,prob"),
    (sub("image_3.jpg", '"image_3.jpg'), ["csv-syntax"], "the rest was not checked: line"),
    (sub("image_3.jpg", '"image_3"jpg'), ["csv-syntax"], "line 5: "),
    (lambda text: text.replace("\n", "\r"), ["csv-syntax"], "new-line character"),
    (lambda text: text.replace(",", ";"), ["separator"], "Use commas"),
    (lambda text: text.replace(",", "\t"), ["separator"], "no row was checked"),
    (sub(f"{HEADER}\n", ""), ["header-missing"], f"Begin the file with {HEADER}"),
    (sub("prob", "score"), ["header"], "'image_id,score,label,threshold'; no row was checked"),
    (sub("prob", " Prob"), ["header"], "'image_id, Prob,label,threshold'"),
    (reordered, ["column-order"], "'image_id,label,prob,threshold'"),
    (lambda text: text.replace("\n", ",\n"), ["extra-columns"], "''. Leave only image_id,prob"),
    (sub("image_0", "\nimage_0"), ["blank-lines"], "line 2. Remove"),
    (lambda text: text + "\n  \n", ["blank-lines"], "(2): line 12, line 13"),
    (sub("0.05,", "0,05,"), ["field-count"], "line 2 ('image_0.jpg': 5 for 4)"),
    (sub("image_0.jpg", ""), ["id-empty", "missing-ids"], "line 2 ('')"),
    (sub("image_0.jpg", " image_0.jpg"), ["id-characters"], "line 2 (' image_0.jpg')"),
    (
        sub("image_0.jpg", '"image\x1b_0.jpg"'),
        ["id-characters", "missing-ids", "extra-ids"],
        "\\x1b",
    ),
    (sub("image_0.jpg", "test/image_0.jpg"), ["id-folder"], "line 2 ('test/image_0.jpg')"),
    (sub("image_0.jpg", r"C:\t\image_0.jpg"), ["id-folder"], "without its folder"),
    (sub("image_0.jpg", "image_0"), ["id-no-extension"], "('image_0': is 'image_0.jpg' in the"),
    (
        sub("image_0.jpg", "test/image_0"),
        ["id-folder", "id-no-extension"],
        "line 2 ('test/image_0')",
    ),
    (
        sub("image_7.jpg", "image_0.jpg"),
        ["duplicate-ids", "missing-ids"],
        "line 9 ('image_0.jpg': first on line 2)",
    ),
    (sub("image_0.jpg,0.05,0,0.5\n", ""), ["missing-ids"], "'image_0.jpg'. Give one row"),
    (lambda text: text + "new.jpg,0.9,1,0.5\n", ["extra-ids"], "line 12 ('new.jpg')"),
    (sub("image_0.jpg", "image_0.png"), ["missing-ids", "extra-ids"], "'image_0.jpg'"),
    (sub("0.05", ""), ["prob-empty"], "line 2 ('image_0.jpg': '')"),
    (sub("0.05", "low"), ["prob-not-number"], "line 2 ('image_0.jpg': 'low')"),
    (sub("0.05", " 0.05"), ["prob-not-number"], "': ' 0.05')"),
    (sub("0.05", "0_0"), ["prob-not-number"], "'0_0'"),
    (sub("0.05", '"0,05"'), ["prob-not-number"], "'0,05'"),
    (sub("0.05", "NaN"), ["prob-nan"], "line 2 ('image_0.jpg': 'NaN')"),
    (sub("0.05", "-inf"), ["prob-infinite"], "'-inf'"),
    (sub("0.05", "1e999"), ["prob-infinite"], "'1e999'"),
    (sub("0.05", "-2.75"), ["prob-range"], "not a logit"),
    (sub("0.05", "1.0000001"), ["prob-range"], "'1.0000001'"),
    (sub("0.05,0,", "0.05,0.0,"), ["label-value"], "line 2 ('image_0.jpg': '0.0')"),
    (sub("0.05,0,", "0.05,,"), ["label-value"], "nothing else"),
    (
        sub("0.05,0,", "0.05,1,"),
        ["label-contradicts"],
        "line 2 ('image_0.jpg': label 1, prob 0.05, threshold 0.5)",
    ),
    (sub("0.05,0,", "0.5,0,"), ["label-contradicts"], "prob >= threshold"),
    (sub("0.05,0,0.5", "0.05,0,half"), ["threshold-not-number"], "'half'"),
    (sub("0.05,0,0.5", "0.05,0,nan"), ["threshold-not-number"], "line 2"),
    (sub("0.05,0,0.5", "0.05,0,1.5"), ["threshold-range"], "'1.5'"),
    (
        sub("0.05,0,0.5", "0.05,0,0.4"),
        ["threshold-several"],
        "'0.5' in 9 of 10 rows, '0.4' in 1 of 10",
    ),
    (every_row(r"0\.5$", "0.5000000000000001"), ["threshold-noise"], "for 0.5. Round it"),
    (every_row(r"0\.5$", "0.50000000000000004"), ["threshold-noise"], "for 0.5."),
    (lambda text: run_text(threshold=0.01), ["positive-share"], "100.0% of 10 rows"),
    (lambda text: run_text(threshold=0.99), ["positive-share"], "0.0% of 10 rows"),
    (lambda text: run_text([0.7] * 10), ["positive-share", "constant-prob"], "100.0%"),
]


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    ("spoil", "codes", "message"), TEXT_FAULTS, ids=[codes[0] for _, codes, _ in TEXT_FAULTS]
)
def test_fault_in_the_text(
    spoil: Callable[[str], str | bytes],
    codes: list[str],
    message: str,
    edition: str,
    tmp_path: Path,
) -> None:
    spoilt = spoil(GOOD)
    content = spoilt if isinstance(spoilt, bytes) else spoilt.encode()
    path = tmp_path / EDITIONS[edition].file_name("team", "open")
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("team_open.csv", content)
    else:
        path.write_bytes(content)

    findings = check_submission(path, image_ids=IDS, edition=edition)

    assert [finding.code for finding in findings] == codes
    assert message in findings[0].message


# Faults of the file itself: name, content, options, codes, a part of the first one's message.
ONE = {"team_open.csv": GOOD}
FILE_FAULTS: list[tuple[str, bytes, dict[str, str], list[str], str]] = [
    ("team_open.csv", GOOD.encode(), {"edition": "2025"}, ["edition-mismatch"], "<team>_<run>.zip"),
    (
        "team_open.zip",
        zip_bytes(ONE),
        {"edition": "2026"},
        ["edition-mismatch"],
        "<team>_<run>.csv",
    ),
    ("team_Task_A.csv", GOOD.encode(), {}, ["file-name"], "'team_Task_A.csv'. Rename it"),
    ("team_Open.csv", GOOD.encode(), {}, ["file-name"], "exactly this spelling"),
    ("team_open.CSV", GOOD.encode(), {}, ["file-name"], "'team_open.CSV'"),
    ("team_open.txt", GOOD.encode(), {"edition": "2026"}, ["file-name"], "'team_open.txt'"),
    ("run", GOOD.encode(), {}, ["file-name"], "'run'"),
    ("run", zip_bytes({"run.csv": GOOD}), {}, ["file-name"], "'run'"),
    ("my_team_open.csv", GOOD.encode(), {}, ["team-name"], "'my_team'"),
    ("team_open.zip", b"", {}, ["not-zip"], "not a ZIP archive"),
    ("team_open.zip", GOOD.encode(), {}, ["not-zip"], "real ZIP archive"),
    ("team_open.zip", zip_bytes({}), {}, ["zip-empty"], "Put the CSV in it"),
    (
        "team_open.zip",
        zip_bytes(ONE | {"__MACOSX/._team_open.csv": "x"}),
        {},
        ["zip-several"],
        "(2): 'team_open.csv', '__MACOSX/._team_open.csv'. Leave only",
    ),
    ("team_open.zip", zip_bytes(ONE | {"b.csv": ""}), {}, ["zip-several"], "'b.csv'"),
    ("team_open.zip", zip_bytes({"run.txt": GOOD}), {}, ["member-not-csv"], "'run.txt'"),
    # The name has no bytes: they are declared a comment.
    (
        "team_open.zip",
        zip_bytes(ONE, patch=(28, b"\0\0\0\0\x0d\0")),
        {},
        ["member-not-csv"],
        "''. Put the run's CSV",
    ),
    ("team_open.zip", zip_bytes(ONE, patch=(8, b"\x01")), {}, ["zip-encrypted"], "password"),
    ("team_open.zip", zip_bytes(ONE, zipfile.ZIP_LZMA), {}, ["zip-method"], "number 14"),
    (
        "team_open.zip",
        zip_bytes({"submission.csv": GOOD}),
        {},
        ["inner-name"],
        "'submission.csv', not 'team_open.csv'",
    ),
    (
        "team_open.zip",
        zip_bytes(ONE, patch=(24, struct.pack("<I", MAX_BYTES + 1))),
        {},
        ["too-large"],
        "1,073,741,825 bytes, more than 1,073,741,824",
    ),
    ("team_open.zip", zip_bytes(ONE, patch=(16, b"0000")), {}, ["damaged"], "Bad CRC-32"),
    ("team_open.zip", zip_bytes(ONE, patch=(24, b"\x09\0\0\0")), {}, ["damaged"], "at line 1"),
    ("team_open.zip", zip_bytes(ONE, patch=(42, b"\x01")), {}, ["damaged"], "Bad magic number"),
    (
        "team_open.zip",
        zip_bytes({"team_open.csv": GOOD + "\n" * MAX_LINES}),
        {},
        ["too-many-lines", "blank-lines"],
        "more than 2,000,000 lines; the rest was not checked",
    ),
    ("team_open.csv", zip_bytes(ONE), {}, ["not-csv"], "name the file .zip"),
]


@pytest.mark.parametrize(
    ("name", "content", "options", "codes", "message"),
    FILE_FAULTS,
    ids=[codes[0] for *_, codes, _ in FILE_FAULTS],
)
def test_fault_in_the_file(
    name: str,
    content: bytes,
    options: dict[str, str],
    codes: list[str],
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    findings = check_submission(path, image_ids=IDS, edition=options.get("edition"))

    assert [finding.code for finding in findings] == codes
    assert message in findings[0].message


OTHER_FAULTS = [
    (GOOD, ["same-as-other"], "'team_open.csv', on 10 images"),
    (run_text([prob + 1e-9 for prob in PROBS]), ["same-as-other"], "different models"),
    (run_text(threshold=0.4), ["only-threshold-differs"], "different models"),
    ("garbage", ["other-unreadable"], "'team_open.csv'"),
    (f"{HEADER}\nimage_0.jpg,,0,0.5\n", ["other-unreadable"], "mend it first"),
]


@pytest.mark.parametrize(
    ("text", "codes", "message"), OTHER_FAULTS, ids=[codes[0] for _, codes, _ in OTHER_FAULTS]
)
def test_fault_against_the_other_run(
    text: str, codes: list[str], message: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "team_constrained.csv", tmp_path / "team_open.csv"
    path.write_text(GOOD)
    other.write_text(text)

    findings = check_submission(path, image_ids=IDS, other=other)

    assert [finding.code for finding in findings] == codes
    assert message in findings[0].message


def test_every_code_has_a_case() -> None:
    expected = [codes for _, codes, _ in TEXT_FAULTS + OTHER_FAULTS]
    expected += [codes for *_, codes, _ in FILE_FAULTS]
    assert {code for codes in expected for code in codes} == set(FAULTS)


def test_runs_that_differ_are_compared_on_shared_images_only(tmp_path: Path) -> None:
    path, other = tmp_path / "team_constrained.csv", tmp_path / "team_open.csv"
    path.write_text(GOOD)
    other.write_text(run_text([*PROBS[:-1], 0.96]))
    assert codes_of(path, other=other) == []
    other.write_text(GOOD.replace(".jpg", ".png"))
    assert codes_of(path, other=other) == []
    # The same run without a row, and with ids misspelt, is still the same run.
    other.write_text(GOOD.replace(".jpg", "").replace("image_0,0.05,0,0.5\n", ""))
    assert codes_of(path, other=other, image_ids=IDS) == ["same-as-other"]


def test_without_the_test_set_ids_must_end_in_an_image_suffix(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(GOOD.replace("image_0.jpg", "image_0").replace("image_1.jpg", "1.JPG"))
    (finding,) = check_submission(path)
    assert finding.code == "id-no-extension"
    assert "line 2 ('image_0')" in finding.message


def test_ids_of_the_test_set_are_right_whatever_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(GOOD.replace(".jpg", ""))
    assert codes_of(path, image_ids=[name.removesuffix(".jpg") for name in IDS]) == []


def test_windows_line_ends_quotes_and_number_spellings_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    text = GOOD.replace("image_0.jpg,0.05,0,0.5", '"image_0.jpg","+.5e-1",0,0.50')
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert codes_of(path, image_ids=IDS, edition="2026") == []


def test_a_threshold_read_off_a_score_is_no_noise(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(run_text(threshold=0.41538461538461546))
    assert codes_of(path, image_ids=IDS) == []


def test_messages_give_the_count_and_five_examples_at_most(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(re.sub(r",0\.\d+,", ",nan,", GOOD))
    (finding,) = check_submission(path)
    assert finding.message == (
        "prob is nan (10): line 2 ('image_0.jpg': 'nan'), line 3 ('image_1.jpg': 'nan'), "
        "line 4 ('image_2.jpg': 'nan'), line 5 ('image_3.jpg': 'nan'), "
        "line 6 ('image_4.jpg': 'nan') and more. Give every image a probability."
    )


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no space
    assert codes_of(path) == ["too-large"]


def test_a_hostile_number_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(GOOD.replace("0.05", "1" * 90_000 + "x"))
    assert codes_of(path) == ["prob-not-number"]


@pytest.mark.parametrize("name", ["team_open.zip", "team_open.csv", "team_open"])
def test_garbage_gives_findings(name: str, tmp_path: Path) -> None:
    chance = random.Random(0)
    path = tmp_path / name
    for size in (0, 1, 3, 4, 22, 100, 5000):
        for start in (b"", b"PK\x03\x04", b"PK\x05\x06", b"\xff\xfe", f"{HEADER}\n".encode()):
            path.write_bytes(start + chance.randbytes(size))
            assert codes_of(path, image_ids=IDS, other=path)


def test_damaged_archives_never_raise(tmp_path: Path) -> None:
    chance = random.Random(0)
    path = tmp_path / "team_open.zip"
    good = zip_bytes(ONE)
    for _ in range(2000):
        content = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        check_submission(path, image_ids=IDS)


def test_unknown_edition_and_missing_files_are_the_users(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    with pytest.raises(UserError, match="is not a file"):
        check_submission(path)
    with pytest.raises(UserError, match="is not a file"):
        check_submission(tmp_path)
    path.write_text(GOOD)
    with pytest.raises(UserError, match="edition: unknown '2024'; use one of 2025, 2026"):
        check_submission(path, edition="2024")
    with pytest.raises(UserError, match=r"gone\.csv: is not a file"):
        check_submission(path, other=tmp_path / "gone.csv")


# ------------------------------------------------------------------------------------- writing


def frame(ids: list[str] = IDS, probs: object = PROBS) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, "prob": probs})


def written_rows(path: Path) -> list[list[str]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (name,) = archive.namelist()
            assert name == f"{path.stem}.csv"
            text = archive.read(name).decode()
    else:
        text = path.read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def write(predictions: pd.DataFrame, directory: Path, **changes: object) -> Path:
    options = {"team": "my-team1", "run": "open", "edition": "2026", "threshold": 0.5} | changes
    return write_submission(predictions, directory, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("run", ["constrained", "open"])
@pytest.mark.parametrize("edition", EDITIONS)
def test_round_trip(edition: str, run: str, tmp_path: Path) -> None:
    ids = ['a,"b".jpg', "é ü.PNG", *reversed(IDS)]
    probs = [0.65, math.nextafter(0.65, 0), *PROBS]
    path = write(
        frame(ids, probs), tmp_path / "new" / "folder", run=run, edition=edition, threshold=0.65
    )

    assert path == tmp_path / "new" / "folder" / f"my-team1_{run}{EDITIONS[edition].suffix}"
    header, *rows = written_rows(path)
    assert tuple(header) == COLUMNS
    assert [row[0] for row in rows] == ids
    assert [float(row[1]) for row in rows] == probs
    assert [row[2] for row in rows] == [str(int(prob >= 0.65)) for prob in probs]
    assert {row[3] for row in rows} == {"0.65"}
    assert check_submission(path, image_ids=ids, edition=edition) == []
    assert list(path.parent.iterdir()) == [path]


def test_any_float64_reads_back_exactly(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    tiny = [5e-324, 1e-300, 2**-1074 * 3, 0.1 + 0.2, 1 - 2**-53, 0.0, 1.0]
    probs = np.concatenate([chance.random(993), tiny])
    path = write(frame([f"{i}.jpg" for i in range(1000)], probs), tmp_path)
    assert np.array([float(row[1]) for row in written_rows(path)[1:]]).tobytes() == probs.tobytes()


def test_float32_is_compared_as_it_is_written(tmp_path: Path) -> None:
    probs = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    probs[0] = np.float32(0.65)  # 0.6499999761581421: not 0.65, and below it
    rows = written_rows(write(frame(probs=probs), tmp_path, threshold=np.float64(0.65)))
    assert rows[1] == ["image_0.jpg", "0.6499999761581421", "0", "0.65"]


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_same_input_gives_the_same_bytes(edition: str, tmp_path: Path) -> None:
    first = write(frame(), tmp_path / "a", edition=edition).read_bytes()
    second = write(frame(), tmp_path / "b", edition=edition).read_bytes()
    assert first == second
    if edition == "2025":
        with zipfile.ZipFile(io.BytesIO(first)) as archive:
            assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"team": "my_team"}, "team: 'my_team'"),
        ({"team": ""}, "team: ''"),
        ({"team": "../x"}, "team: '../x'"),
        ({"team": "x\n"}, r"team: 'x\n'"),
        ({"run": "Open"}, "run: unknown 'Open'; use one of constrained, open"),
        ({"edition": "2024"}, "edition: unknown '2024'"),
        ({"threshold": 1.5}, "threshold: 1.5"),
        ({"threshold": float("nan")}, "threshold: nan"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        write(frame(), tmp_path, **changes)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (frame(probs=[*PROBS[:-1], math.nan]), "prob is nan: line 11 ('image_9.jpg'"),
        (frame(probs=[*PROBS[:-1], None]), "prob is nan: line 11 ('image_9.jpg'"),
        (frame(probs=[-math.inf, *PROBS[1:]]), "prob is infinite: line 2 ('image_0.jpg'"),
        (frame(probs=[1.5, *PROBS[1:]]), "prob is outside 0 to 1: line 2 ('image_0.jpg'"),
        (frame(probs=["0.5"] * 10), "prob must hold numbers"),
        (frame([*IDS[:-1], IDS[0]]), "line 11 ('image_0.jpg': first on line 2)"),
        (frame([*IDS[:-1], "9"]), "row 9: image_id lacks an image's extension: '9'"),
        (frame([*IDS[:-1], "a/9.jpg"]), "row 9: image_id holds a folder: 'a/9.jpg'"),
        (frame([*IDS[:-1], "a\n9.jpg"]), "row 9: image_id holds control characters"),
        (
            pd.DataFrame({"image_id": pd.Series(["\udc80.jpg"], dtype=object), "prob": [0.5]}),
            "cannot be written as UTF-8",
        ),
        (pd.DataFrame({"image_id": [1], "prob": [0.5]}), "row 0: image_id 1 is not text"),
        (frame([], np.array([], dtype=float)), "There are no predictions"),
        (frame().drop(columns="prob"), "one column named prob"),
    ],
)
def test_bad_predictions_are_refused_and_leave_nothing(
    predictions: pd.DataFrame, message: str, tmp_path: Path
) -> None:
    before = write(frame(), tmp_path)
    content = before.read_bytes()
    with pytest.raises(UserError, match=re.escape(message)):
        write(predictions, tmp_path)
    assert list(tmp_path.iterdir()) == [before]
    assert before.read_bytes() == content


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write(frame(), tmp_path / "file")


# ---------------------------------------------------------------------------- ids of a test set


FILES = ["b.JPG", "sub/a.png", "sub/deep/c.d.webp", "notes.txt", "._b.jpg", "__MACOSX/x.jpg", "jpg"]


def image_folder(path: Path, files: list[str] = FILES) -> Path:
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def archive_of(folder: Path, name: str) -> Path:
    path = folder.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(folder, ".")
    return path


def test_image_ids_of_a_folder_and_of_archives(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images")
    expected = ["a.png", "b.JPG", "c.d.webp"]
    assert image_ids_of(folder) == expected
    for name in ("t.tar", "t.tar.gz", "t.tgz", "t.zip"):
        assert image_ids_of(archive_of(folder, name)) == expected


@pytest.mark.parametrize("name", ["images", "t.tar", "t.zip"])
def test_two_images_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    path = image_folder(tmp_path / "images", ["0_real/a.jpg", "1_fake/a.jpg"])
    if name != "images":
        path = archive_of(path, name)
    with pytest.raises(UserError, match=r"two images are named a\.jpg: .*0_real/a.* and .*1_fake"):
        image_ids_of(path)


def test_what_holds_no_image_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a file"):
        image_ids_of(tmp_path / "gone.tar")
    with pytest.raises(UserError, match="holds no image"):
        image_ids_of(image_folder(tmp_path / "texts", ["a.txt"]))
    for name in ("bad.tar", "bad.tar.gz", "bad.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b garbage")
        with pytest.raises(UserError, match="cannot be listed"):
            image_ids_of(tmp_path / name)
    (tmp_path / "images.rar").touch()
    with pytest.raises(UserError, match=r"give a folder, or a \.tar"):
        image_ids_of(tmp_path / "images.rar")
