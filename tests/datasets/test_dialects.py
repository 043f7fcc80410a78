"""CSV lists of images become the rows of a manifest."""

from pathlib import Path

import pytest

from synthdetect.datasets.dialects import DIALECTS, import_csv, read_columns, read_table
from synthdetect.datasets.schema import COLUMNS
from synthdetect.system.errors import UserError
from tests.datasets.conftest import rows, write_csv

PUBLISHED: dict[str, tuple[str, str, list[str], list[tuple[object, ...]]]] = {
    "SPAI": (
        "image,class,split",
        "sd3/b_7.webp,1,test\nRAISE\\a.tif,0,valid\n",
        [],
        [("RAISE/a.tif", 0, "val"), ("sd3/b_7.webp", 1, "test")],
    ),
    "ClipDet": (
        "filename,typ",
        "b.png,dalle2\na.png,REAL\nc.png,nature\nd.png,fake\n",
        [],
        [("a.png", 0), ("b.png", 1, "", "dalle2"), ("c.png", 0), ("d.png", 1)],
    ),
    "SynthWildX": (
        "url,filename,typ",
        "https://x/1,dalle3/F.jpg,dalle3\nhttps://x/2,real/G.jpg,real\n",
        ["url"],
        [
            ("dalle3/F.jpg", 1, "", "dalle3", "", "", "https://x/1"),
            ("real/G.jpg", 0, "", "", "", "", "https://x/2"),
        ],
    ),
    "B-Free": (
        "filename,label",
        "a.png,0\nb.png,1\nc.png,REAL\nd.png,FAKE\n",
        [],
        [("a.png", 0), ("b.png", 1), ("c.png", 0), ("d.png", 1)],
    ),
    "B-Free viral": (
        "filename,label,source_id,date,days_since_1st_post,w,h,md5,url",
        "REAL/Ed7/1.jpg,REAL,Ed7,2020-07-26,0.0,940.0,580.0,75eb,http://k/1.JPG\n",
        ["date", "days_since_1st_post", "w", "h", "md5", "url"],
        [
            (
                *("REAL/Ed7/1.jpg", 0, "", "", "", "Ed7"),
                *("2020-07-26", "0.0", "940.0", "580.0", "75eb", "http://k/1.JPG"),
            )
        ],
    ),
    "QuAD ReWIND": (
        "filename,src_dataset,src,label,format,estimated_QF",
        "R/2.jpg,FOSID,Gaza2,FAKE,JPEG,85\nR/1.png,ammeba,Gaza2,FAKE,PNG,200\n",
        ["src_dataset", "format", "estimated_QF"],
        [
            ("R/1.png", 1, "", "", "", "Gaza2", "ammeba", "PNG", "200"),
            ("R/2.jpg", 1, "", "", "", "Gaza2", "FOSID", "JPEG", "85"),
        ],
    ),
    "QuAD AncesTree": (
        "filename,parent,src,level,type,label,split",
        "T/1.jpg,s/r0.png,s/r0.png,1,dalle2,FAKE,dev\n"
        "T/2.jpg,s/r1.png,s/r1.png,1,raise,REAL,test\n",
        ["parent", "level"],
        [
            ("T/1.jpg", 1, "dev", "dalle2", "", "s/r0.png", "s/r0.png", "1"),
            ("T/2.jpg", 0, "test", "", "", "s/r1.png", "s/r1.png", "1"),
        ],
    ),
    "ITW-SM": (
        "file_name,label,target,platform",
        "1_fake/x_8.jpg,fake,1,x\n0_real/a.jpg,real,0,x\n",
        ["target", "platform"],
        [
            ("0_real/a.jpg", 0, "", "", "", "", "0", "x"),
            ("1_fake/x_8.jpg", 1, "", "", "", "", "1", "x"),
        ],
    ),
    "OpenFake": (
        "file_name,prompt,label,model,type,release_date",
        '1.png,"a cat, asleep",fake,flux.1-dev,lora,2024-08\n2.jpg,,real,imagenet,,\n',
        ["prompt", "type", "release_date"],
        [
            ("1.png", 1, "", "flux.1-dev", "", "", "a cat, asleep", "lora", "2024-08"),
            ("2.jpg", 0),
        ],
    ),
    "UnbiasedGenImage": (
        "path,generator,mode,width,height,compression_rate",
        "w/ai/1.png,wukong,train,512,512,\nw/nature/2.JPEG,nature,val,500,375,96\n",
        ["width", "height", "compression_rate"],
        [
            ("w/ai/1.png", 1, "train", "wukong", "", "", "512", "512"),
            ("w/nature/2.JPEG", 0, "val", "", "", "", "500", "375", "96"),
        ],
    ),
}
"""Header and rows as published, the further columns, and the expected rows."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_list_is_translated(tmp_path: Path, name: str) -> None:
    header, text, further, expected = PUBLISHED[name]
    table = import_csv(write_csv(tmp_path, f"{header}\n{text}"))
    assert list(table.columns) == [*COLUMNS, *further]
    assert rows(table) == expected


def test_every_dialect_is_reachable() -> None:
    """No dialect is hidden behind an earlier one that needs fewer columns."""
    for dialect in DIALECTS:
        first = next(d for d in DIALECTS if set(d.needs) <= set(dialect.needs))
        assert first is dialect, f"{dialect.name} is hidden by {first.name}"


def test_manifest_columns_of_another_list_are_kept(tmp_path: Path) -> None:
    text = "filename,label,generator,split\na.png,fake,sdxl,extra\nb.png,real,sdxl,VAL\n"
    assert rows(import_csv(write_csv(tmp_path, text))) == [
        ("a.png", 1, "extra", "sdxl"),
        ("b.png", 0, "val"),
    ]


def test_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes("\ufefffilename,label\r\n\r\né.png,real\r\n".encode())
    assert rows(import_csv(file)) == [("é.png", 0)]


def test_values_that_look_like_missing_ones(tmp_path: Path) -> None:
    text = "filename,label,source_id,w\nNA.png,fake,null,NaN\n"
    table = import_csv(write_csv(tmp_path, text))
    assert rows(table) == [("NA.png", 1, "", "", "", "null", "NaN")]


def test_paths_are_made_uniform(tmp_path: Path) -> None:
    text = "filename,label\n.\\b\\1.png,fake\na//2.png,fake\n/data/3.png,fake\n"
    paths = import_csv(write_csv(tmp_path, text))["path"].tolist()
    assert paths == ["/data/3.png", "a/2.png", "b/1.png"]


def test_unknown_columns_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        import_csv(write_csv(tmp_path, "img,y\na.png,1\n"))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'list.csv'}: ")
    assert "img, y" in message
    assert "path,label" in message
    assert "SPAI (image,class,split)" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("filename,label\n", "no images"),
        ("filename,label\na\\b.png,0\na/b.png,1\n", r"'a/b\.png' is listed twice"),
        ("filename,label\na.png,0\n ,1\n", "image 2 .* has no path"),
        ("filename,label\na.png,maybe\n", "'maybe'"),
        ("filename,typ\na.png,\n", "label ''"),
        ("image,class,split\na.png,2,test\n", "'2'"),
        ("filename,label\na.png,0\nb,c.png,1\n", "line 3 has 3 fields, .* 2"),
        ("filename,label,label\na.png,0,1\n", "twice"),
        ('filename,label\n"a.png,0\n', "cannot be read as CSV"),
        ("image,class,split,label\na.png,1,test,real\n", "'class' and 'label'"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"list\.csv: .*{message}"):
        import_csv(write_csv(tmp_path, text))


def test_a_list_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes("filename,label\ncafé.png,0\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.csv: .*UTF-8"):
        import_csv(file)


def test_a_list_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read"):
        import_csv(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label\na,real\n",
        b"path,label\r\n007,0\r\n\r\nNA,null\r\n,\r\n",
        b"path,label\ra,b\r",
        b" path , label \n a , b\n",
        b'path,label\n"a,b","c\nd"\n',
        b'path,label\n"a""b",c\n',
        b"path,label\n" + b"1,2\n" * 300_000 + b"x,y\n",
    ],
)
def test_arrow_and_csv_read_the_same_table(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    assert read_table(file).to_dict("list") == read_columns(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na,b\nc\n", "line 3 has 1 fields"),
        (b"path,label\na,b,c\n", "line 2 has 3 fields"),
        (b'path,label\n"a"b,c\n', "cannot be read as CSV"),
        (b"path,path\na,b\n", "twice"),
        (b"path,label\n\xe9,b\n", "not UTF-8"),
        (b"", "empty"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(file)
