"""Every fault of a run file is found under its own code, and hostile files never raise."""

import csv
import io
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from synthdetect.submission.checking import check_submission
from synthdetect.submission.faults import FAULTS
from synthdetect.submission.format import EDITIONS
from synthdetect.submission.reading import MAX_BYTES, MAX_LINE_BYTES, MAX_LINES
from synthdetect.system.errors import UserError
from tests.submission.conftest import CORRECT, HEADER, IDS, PROBS, run_text


def zip_bytes(
    members: dict[str, str], method: int = zipfile.ZIP_DEFLATED, patch: tuple[int, bytes] = (0, b"")
) -> bytes:
    """Make an archive. `patch` overwrites bytes at an offset into its last directory entry."""
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
    """Replace the first occurrence of a text that must occur."""

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


# Function that spoils the text of a correct run, expected codes, part of the first message.
TEXT_FAULTS: list[tuple[Callable[[str], str | bytes], list[str], str]] = [
    (lambda text: "", ["header"], "''; no row was checked"),
    (lambda text: f"{HEADER}\n", ["unreadable"], "no predictions"),
    (lambda text: f"{HEADER}\n\n\n", ["unreadable", "blank-lines"], "no predictions"),
    (lambda text: text.encode("utf-16"), ["unreadable"], "line 1, byte 1"),
    (lambda text: text.encode() + b"caf\xe9.jpg", ["unreadable"], "line 12, byte 4"),
    (lambda text: text.encode("utf-8-sig"), ["bom"], "BOM"),
    (lambda text: text + "x" * (MAX_LINE_BYTES + 1), ["unreadable"], "line 12"),
    (lambda text: "\n" + text, ["header"], f"exactly {HEADER}"),
    (sub("image_3.jpg", '"image_3.jpg'), ["unreadable"], "line 11"),
    (sub("image_3.jpg", '"image_3"jpg'), ["unreadable"], "line 5"),
    (lambda text: text.replace("\n", "\r"), ["unreadable"], "new-line character"),
    (lambda text: text.replace(",", ";"), ["header"], "'image_id;prob;label;threshold'"),
    (lambda text: text.replace(",", "\t"), ["header"], "no row was checked"),
    (sub(f"{HEADER}\n", ""), ["header"], "'image_0.jpg,0.05,0,0.5'; no row was checked"),
    (sub("prob", "score"), ["header"], "'image_id,score,label,threshold'; no row was checked"),
    (sub("prob", " Prob"), ["header"], "'image_id, Prob,label,threshold'"),
    (reordered, ["header"], "'image_id,label,prob,threshold'"),
    (lambda text: text.replace("\n", ",\n"), ["header"], "'image_id,prob,label,threshold,'"),
    (sub("image_0", "\nimage_0"), ["blank-lines"], "line 2"),
    (lambda text: text + "\n  \n", ["blank-lines"], "(2): line 12, line 13"),
    (sub("0.05,", "0,05,"), ["field-count"], "line 2 ('image_0.jpg': 5 for 4)"),
    (sub("image_0.jpg", ""), ["id-spelling", "missing-ids"], "line 2 ('')"),
    (sub("image_0.jpg", " image_0.jpg"), ["id-spelling"], "line 2 (' image_0.jpg')"),
    (sub("image_0.jpg", '"image\x1b_0.jpg"'), ["id-spelling", "missing-ids", "extra-ids"], r"\x1b"),
    (sub("image_0.jpg", "test/image_0.jpg"), ["id-spelling"], "line 2 ('test/image_0.jpg')"),
    (sub("image_0.jpg", r"C:\t\image_0.jpg"), ["id-spelling"], r"C:\\t\\image_0.jpg"),
    (sub("image_0.jpg", "image_0"), ["id-spelling"], "line 2 ('image_0')"),
    (sub("image_0.jpg", "test/image_0"), ["id-spelling"], "line 2 ('test/image_0')"),
    (
        sub("image_7.jpg", "image_0.jpg"),
        ["duplicate-ids", "missing-ids"],
        "line 9 ('image_0.jpg': first on line 2)",
    ),
    (sub("image_0.jpg,0.05,0,0.5\n", ""), ["missing-ids"], "'image_0.jpg'"),
    (lambda text: text + "new.jpg,0.9,1,0.5\n", ["extra-ids"], "line 12 ('new.jpg')"),
    (sub("image_0.jpg", "image_0.png"), ["missing-ids", "extra-ids"], "'image_0.jpg'"),
    (sub("0.05", ""), ["prob-value"], "line 2 ('image_0.jpg': '')"),
    (sub("0.05", "low"), ["prob-value"], "line 2 ('image_0.jpg': 'low')"),
    (sub("0.05", " 0.05"), ["prob-value"], "': ' 0.05')"),
    (sub("0.05", "0_0"), ["prob-value"], "'0_0'"),
    (sub("0.05", '"0,05"'), ["prob-value"], "'0,05'"),
    (sub("0.05", "NaN"), ["prob-value"], "line 2 ('image_0.jpg': 'NaN')"),
    (sub("0.05", "-inf"), ["prob-value"], "'-inf'"),
    (sub("0.05", "1e999"), ["prob-value"], "'1e999'"),
    (sub("0.05", "-2.75"), ["prob-value"], "'-2.75'"),
    (sub("0.05", "1.0000001"), ["prob-value"], "'1.0000001'"),
    (sub("0.05,0,", "0.05,0.0,"), ["label-value"], "line 2 ('image_0.jpg': '0.0')"),
    (sub("0.05,0,", "0.05,,"), ["label-value"], "line 2 ('image_0.jpg': '')"),
    (
        sub("0.05,0,", "0.05,1,"),
        ["label-contradicts"],
        "line 2 ('image_0.jpg': label 1, prob 0.05, threshold 0.5)",
    ),
    (sub("0.05,0,", "0.5,0,"), ["label-contradicts"], "prob >= threshold"),
    (sub("0.05,0,0.5", "0.05,0,half"), ["threshold-value"], "'half'"),
    (sub("0.05,0,0.5", "0.05,0,nan"), ["threshold-value"], "line 2"),
    (sub("0.05,0,0.5", "0.05,0,1.5"), ["threshold-value"], "'1.5'"),
    (
        sub("0.05,0,0.5", "0.05,0,0.4"),
        ["threshold-several"],
        "'0.5' in 9 of 10 rows, '0.4' in 1 of 10",
    ),
    (every_row(r"0\.5$", "0.5000000000000001"), ["threshold-noise"], "for 0.5"),
    (every_row(r"0\.5$", "0.50000000000000004"), ["threshold-noise"], "for 0.5"),
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
    spoilt = spoil(CORRECT)
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


# Name, content, edition, expected codes, part of the first message.
CSV = CORRECT.encode()
ONE = {"team_open.csv": CORRECT}
FILE_FAULTS: list[tuple[str, bytes, str | None, list[str], str]] = [
    ("team_open.csv", CSV, "2025", ["edition-mismatch"], "<team>_<run>.zip"),
    ("team_open.zip", zip_bytes(ONE), "2026", ["edition-mismatch"], "<team>_<run>.csv"),
    ("team_Task_A.csv", CSV, None, ["file-name"], "'team_Task_A.csv'"),
    ("team_Open.csv", CSV, None, ["file-name"], "'team_Open.csv'"),
    ("team_open.CSV", CSV, None, ["file-name"], "'team_open.CSV'"),
    ("team_open.txt", CSV, "2026", ["file-name"], "'team_open.txt'"),
    ("run", CSV, None, ["file-name"], "'run'"),
    ("run", zip_bytes({"run.csv": CORRECT}), None, ["file-name"], "'run'"),
    ("my_team_open.csv", CSV, None, ["team-name"], "'my_team'"),
    ("team_open.zip", b"", None, ["unreadable"], "not a ZIP archive"),
    ("team_open.zip", CSV, None, ["unreadable"], "not a ZIP archive"),
    ("team_open.zip", zip_bytes({}), None, ["zip-members"], "empty"),
    (
        "team_open.zip",
        zip_bytes(ONE | {"__MACOSX/._team_open.csv": "x"}),
        None,
        ["zip-members"],
        "2 file(s): 'team_open.csv', '__MACOSX/._team_open.csv'",
    ),
    ("team_open.zip", zip_bytes(ONE | {"b.csv": ""}), None, ["zip-members"], "'b.csv'"),
    ("team_open.zip", zip_bytes({"run.txt": CORRECT}), None, ["zip-members"], "'run.txt'"),
    # The name has no bytes: they are declared a comment.
    ("team_open.zip", zip_bytes(ONE, patch=(28, b"\0\0\0\0\x0d\0")), None, ["zip-members"], "''"),
    ("team_open.zip", zip_bytes(ONE, patch=(8, b"\x01")), None, ["unreadable"], "encrypted"),
    ("team_open.zip", zip_bytes(ONE, zipfile.ZIP_LZMA), None, ["unreadable"], "method 14"),
    (
        "team_open.zip",
        zip_bytes({"submission.csv": CORRECT}),
        None,
        ["inner-name"],
        "'submission.csv', not 'team_open.csv'",
    ),
    (
        "team_open.zip",
        zip_bytes(ONE, patch=(24, struct.pack("<I", MAX_BYTES + 1))),
        None,
        ["unreadable"],
        "1,073,741,825 bytes",
    ),
    ("team_open.zip", zip_bytes(ONE, patch=(16, b"0000")), None, ["unreadable"], "Bad CRC-32"),
    ("team_open.zip", zip_bytes(ONE, patch=(24, b"\x09\0\0\0")), None, ["unreadable"], "at line 1"),
    (
        "team_open.zip",
        zip_bytes(ONE, patch=(42, b"\x01")),
        None,
        ["unreadable"],
        "Bad magic number",
    ),
    (
        "team_open.zip",
        zip_bytes({"team_open.csv": CORRECT + "\n" * MAX_LINES}),
        None,
        ["unreadable", "blank-lines"],
        "more than 2,000,000 lines",
    ),
    ("team_open.csv", zip_bytes(ONE), None, ["unreadable"], "ZIP archive"),
]


@pytest.mark.parametrize(
    ("name", "content", "edition", "codes", "message"),
    FILE_FAULTS,
    ids=[codes[0] for *_, codes, _ in FILE_FAULTS],
)
def test_fault_in_the_file(
    name: str,
    content: bytes,
    edition: str | None,
    codes: list[str],
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    findings = check_submission(path, image_ids=IDS, edition=edition)

    assert [finding.code for finding in findings] == codes
    assert message in findings[0].message


OTHER_FAULTS = [
    (CORRECT, ["same-as-other"], "'team_open.csv', on 10 images"),
    (run_text([prob + 1e-9 for prob in PROBS]), ["same-as-other"], "on 10 images"),
    (run_text(threshold=0.4), ["same-as-other"], "only the threshold differs"),
    ("garbage", ["other-unreadable"], "'team_open.csv'"),
    (f"{HEADER}\nimage_0.jpg,,0,0.5\n", ["other-unreadable"], "'team_open.csv'"),
]


@pytest.mark.parametrize(
    ("text", "codes", "message"), OTHER_FAULTS, ids=[codes[0] for _, codes, _ in OTHER_FAULTS]
)
def test_fault_against_the_other_run(
    text: str, codes: list[str], message: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "team_constrained.csv", tmp_path / "team_open.csv"
    path.write_text(CORRECT)
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
    path.write_text(CORRECT)
    other.write_text(run_text([*PROBS[:-1], 0.96]))
    assert codes_of(path, other=other) == []
    other.write_text(CORRECT.replace(".jpg", ".png"))
    assert codes_of(path, other=other) == []
    # A run without one of the rows and with misspelt ids is still the same run.
    other.write_text(CORRECT.replace(".jpg", "").replace("image_0,0.05,0,0.5\n", ""))
    assert codes_of(path, other=other, image_ids=IDS) == ["same-as-other"]


def test_without_the_test_set_ids_must_end_in_an_image_suffix(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(CORRECT.replace("image_0.jpg", "image_0").replace("image_1.jpg", "1.JPG"))
    (finding,) = check_submission(path)
    assert finding.code == "id-spelling"
    assert "line 2 ('image_0')" in finding.message


def test_ids_of_the_test_set_are_correct_without_a_suffix_too(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(CORRECT.replace(".jpg", ""))
    assert codes_of(path, image_ids=[name.removesuffix(".jpg") for name in IDS]) == []


def test_windows_line_ends_quotes_and_number_spellings_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    text = CORRECT.replace("image_0.jpg,0.05,0,0.5", '"image_0.jpg","+.5e-1",0,0.50')
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert codes_of(path, image_ids=IDS, edition="2026") == []


def test_a_threshold_that_equals_a_score_has_no_noise(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(run_text(threshold=0.41538461538461546))
    assert codes_of(path, image_ids=IDS) == []


def test_messages_give_the_count_and_five_examples_at_most(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(re.sub(r",0\.\d+,", ",nan,", CORRECT))
    (finding,) = check_submission(path)
    shown = ", ".join(f"line {i + 2} ('image_{i}.jpg': 'nan')" for i in range(5))
    assert f" (10): {shown} and more. " in finding.message


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no space
    assert codes_of(path) == ["unreadable"]


def test_a_hostile_number_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    path.write_text(CORRECT.replace("0.05", "1" * 90_000 + "x"))
    assert codes_of(path) == ["prob-value"]


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


def test_an_unknown_edition_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "team_open.csv"
    with pytest.raises(UserError, match="not a file"):
        check_submission(path)
    with pytest.raises(UserError, match="not a file"):
        check_submission(tmp_path)
    path.write_text(CORRECT)
    with pytest.raises(UserError, match=r"--edition: '2024' .*2025, 2026"):
        check_submission(path, edition="2024")
    with pytest.raises(UserError, match=r"gone\.csv: is not a file"):
        check_submission(path, other=tmp_path / "gone.csv")
