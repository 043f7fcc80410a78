"""What the metadata of an image file say about its origin; the pixels are not looked at.

Metadata are easily removed and easily forged, so what they say is shown beside a detector's score
and never mixed into it. Read are EXIF, the text of PNG files, XMP (IPTC's digital source type) and
the presence of a C2PA manifest, which is verified if `c2pa-python` is installed (the extra
`synthdetect[c2pa]`). Nothing is fetched from a network.
"""

import io
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import ExifTags

from synthdetect.images.reading import (
    AVIF_BRANDS,
    MAX_BYTES,
    BadImage,
    is_heic,
    open_image,
    read_file,
)
from synthdetect.images.video import is_video

MAX_NAME, MAX_PROMPT = 200, 2000
"""Characters that are kept of the name of a program, and of a prompt with its parameters."""

_MAX_XMP = 2**20  # bytes of XMP that are searched
_MAX_STORE = 2**26  # bytes of a file that is given to the C2PA library

Says = Literal["", "synthetic", "captured"]
C2pa = Literal["", "unverified", "invalid", "valid", "trusted"]

SYNTHETIC_SOURCES = frozenset(
    {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"}
)
"""Digital source types of images that a model made, in whole or in part (IPTC NewsCodes,
http://cv.iptc.org/newscodes/digitalsourcetype)."""

CAPTURED_SOURCES = frozenset(
    {"digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print"}
)
"""Digital source types of images that were captured from life."""

_WORDS_OF_C2PA: Mapping[C2pa, str] = {
    "unverified": "a C2PA manifest is present and was not verified",
    "invalid": "a C2PA manifest is present but invalid: it does not belong to this content, or it "
    "was altered",
    "valid": "a C2PA manifest is present; signature and content match, the signer is on no list of "
    "trusted ones",
    "trusted": "a C2PA manifest is present; signature and content match, and the signer is trusted",
}

# Names under which programs store how an image was generated, in PNG text.
_KEYS = {
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "workflow": "ComfyUI",
    "prompt": "ComfyUI",
    "parameters": "Stable Diffusion web UI",
}
_PROMPTS = ("parameters", "prompt", "sd-metadata", "invokeai_metadata", "Dream", "workflow")

# Programs by the names that they give themselves where a program names itself. A caption may name
# one too, or have the same word in another sense. Patterns are linear in the length of the text.
_PROGRAMS = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("NovelAI", r"\bnovelai\b"),
        ("InvokeAI", r"\binvoke-?ai\b"),
        ("ComfyUI", r"\bcomfyui\b"),
        ("Fooocus", r"\bfooocus\b"),
        ("Draw Things", r"\bdraw things\b"),
        ("Midjourney", r"\bmidjourney\b"),
        ("DALL-E", r"\bdall[-·. ]?e\b|\bopenai\b|\bgpt-?4o\b|\bchatgpt\b"),
        ("Adobe Firefly", r"\bfirefly\b"),
        ("Google AI", r"\bimagen\b|\bgoogle (?:generative )?ai\b"),
        ("Bing Image Creator", r"\bbing image creator\b|\bmicrosoft designer\b"),
        ("FLUX", r"\bblack forest labs\b|\bflux\.?1\b"),
        ("Stable Diffusion", r"\bstable ?diffusion\b|\bsdxl\b"),
    )
)

# What programs write into any text, and nobody else does.
_TRACES = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("Midjourney", r"\bJob ID: [0-9a-f]{8}-"),
        ("Google AI", r"\bmade with google ai\b"),
        ("Stable Diffusion web UI", r"\bSteps: \d+, (?:Sampler|Schedule type|CFG scale): "),
    )
)

_SOURCE_TYPE = re.compile(rb"digitalsourcetype/([A-Za-z]{1,60})", re.IGNORECASE)
_CREATOR = re.compile(rb"CreatorTool(?:=[\"']|>)([^\"'<]{1,400})")
_EXIF_NAMES = ("ImageDescription", "Make", "Model", "Software", "Artist")
_USER_COMMENT = 0x9286
_BMFF_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_TIFF_C2PA = 0xCD41
_MIMES = {
    "JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp",
    "TIFF": "image/tiff", "AVIF": "image/avif", "HEIF": "image/heif", "GIF": "image/gif",
    "": "video/mp4",
}  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """What the metadata of a file say. All texts are untrusted; an empty one says nothing.

    Attributes:
        generator: A program that generates images, recognised by what it writes.
        prompt: The prompt or parameters that it stored, at most `MAX_PROMPT` characters.
        software: The program that wrote the file, in its own words.
        camera: Maker and model of the camera.
        source_type: IPTC's digital source types, such as `trainedAlgorithmicMedia`, by commas.
        c2pa: Whether there is a C2PA manifest: empty (none), `unverified` (the library is not
            installed, or could not read it), `invalid`, `valid` (signature and content match) or
            `trusted` (the signer is on a list of trusted ones too).
        c2pa_signer: Who signed the manifest, as it says.
        problem: Why metadata could not be read.
    """

    generator: str = ""
    prompt: str = ""
    software: str = ""
    camera: str = ""
    source_type: str = ""
    c2pa: C2pa = ""
    c2pa_signer: str = ""
    problem: str = ""

    @property
    def says(self) -> Says:
        """Whether the metadata call the image synthetic or captured; empty if neither.

        An invalid C2PA manifest is not believed: its source type and program are left out.
        """
        types = set(self.source_type.split(","))
        if self.generator or types & SYNTHETIC_SOURCES:
            return "synthetic"
        return "captured" if self.camera or types & CAPTURED_SOURCES else ""

    @property
    def words(self) -> tuple[str, ...]:
        """What the metadata say in sentences without a full stop; empty if they say nothing."""
        found = []
        if self.generator:
            found.append(f"the metadata name {self.generator}, which generates images")
        if self.source_type:
            found.append(f"the digital source type is {self.source_type}")
        if self.c2pa:
            signer = f" (signed by {self.c2pa_signer})" if self.c2pa_signer else ""
            found.append(_WORDS_OF_C2PA[self.c2pa] + signer)
        if self.camera:
            found.append(f"the metadata name the camera {self.camera}")
        if self.software:
            found.append(f"the file was written by {self.software}")
        return tuple(found)

    @property
    def kind(self) -> str:
        """What the metadata say in one word or two, to count by; empty if they say nothing."""
        types = set(self.source_type.split(","))
        if self.generator:
            return self.generator
        if made := sorted(types & SYNTHETIC_SOURCES):
            return made[0]
        if self.camera or types & CAPTURED_SOURCES:
            return "camera"
        return "C2PA" if self.c2pa else ""

    def columns(self) -> dict[str, str]:
        """Return the facts for a table of images, each column beginning with `metadata_`."""
        names = ("generator", "software", "camera", "source_type", "c2pa")
        facts = {name: getattr(self, name) for name in names}
        return {"metadata_says": self.says} | {f"metadata_{k}": v for k, v in facts.items()}


def provenance(source: bytes | Path) -> Provenance:
    """Read what the metadata of an image, or of an MP4 video, say about its origin.

    Args:
        source: The content of a file, or its path.

    Returns:
        The facts; those that damaged metadata hide are empty, and `problem` says why. No content
        raises an error.

    Raises:
        OSError: If a path cannot be read.
    """
    try:
        if isinstance(source, Path) and source.stat().st_size > MAX_BYTES and is_video(source.name):
            return Provenance(problem="the video is too large for its metadata to be read")
        data = read_file(source) if isinstance(source, Path) else source
        found, kind = (Provenance(), "") if _is_bmff_video(data) else _read(data)
    except BadImage as error:
        return Provenance(problem=str(error))
    except Exception as error:  # Pillow's readers of metadata raise an open set of errors
        return Provenance(problem=str(error) or type(error).__name__)
    return _with_manifest(found, data, kind)


def _read(data: bytes) -> tuple[Provenance, str]:
    """Return what all but C2PA says, and the format."""
    with open_image(data) as image:
        texts = {str(k): _text(v) for k, v in image.info.items() if isinstance(v, str)}
        exif, problem = {}, ""
        try:
            exif = _exif(image.getexif())
        except Exception as error:  # damaged EXIF leaves the other metadata readable
            problem = f"EXIF cannot be read: {error}"[:MAX_NAME]
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        kind = str(image.format)
    packet = (xmp.encode() if isinstance(xmp, str) else bytes(xmp))[:_MAX_XMP]
    texts.pop("XML:com.adobe.xmp", None)
    prompt = next((texts[key] for key in _PROMPTS if key in texts), "")
    creator = _CREATOR.search(packet)
    programs = [exif.get("Software", ""), texts.get("Software", "")]
    programs.append(creator[1].decode(errors="replace") if creator else "")
    generator = _generator(
        {k: v for k, v in texts.items() if k in _KEYS},
        programs,
        [*programs, *texts.values(), *exif.values(), packet.decode(errors="replace")],
    )
    if generator and not prompt:
        described = (exif.get("UserComment"), texts.get("Description"), texts.get("Comment"))
        prompt = next(filter(None, described), "")
    camera = " ".join(filter(None, (exif.get("Make"), exif.get("Model"))))
    return Provenance(
        generator=generator,
        prompt=_clean(prompt, MAX_PROMPT),
        software=_clean(next(filter(None, programs), ""), MAX_NAME),
        camera=_clean(camera, MAX_NAME),
        source_type=_joined(match.decode() for match in _SOURCE_TYPE.findall(packet)),
        problem=problem,
    ), kind


def _generator(stored: Mapping[str, str], programs: list[str], texts: list[str]) -> str:
    """Return the program that names itself, left a trace, or stored how it generated."""
    for patterns, searched in ((_PROGRAMS, programs), (_TRACES, texts)):
        for name, pattern in patterns:
            if any(pattern.search(text) for text in searched if text):
                return name
    for key, name in _KEYS.items():
        # ComfyUI stores JSON; "prompt" and "parameters" of others may mean anything.
        if key in stored and (name != "ComfyUI" or stored[key].lstrip().startswith("{")):
            return name
    return ""


def _exif(exif: Any) -> dict[str, str]:
    found = {name: _text(exif.get(int(ExifTags.Base[name]), "")) for name in _EXIF_NAMES}
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT, exif.get(_USER_COMMENT, ""))
    found["UserComment"] = _comment(comment) if isinstance(comment, bytes) else _text(comment)
    return {name: text for name, text in found.items() if text}


def _comment(data: bytes) -> str:
    """Decode a UserComment, whose first eight bytes name its encoding (EXIF 3.0, 4.6.5)."""
    head, body = data[:8], data[8 : 8 + 4 * _MAX_XMP]
    if head.startswith(b"UNICODE"):
        # Programs differ in the byte order; text of Latin letters has its zeros first or last.
        little = body[1::2].count(0) > body[0::2].count(0)
        return _text(body.decode("utf-16-le" if little else "utf-16-be", errors="replace"))
    return _text((body if head.startswith((b"ASCII", b"\0")) else data).decode(errors="replace"))


def _text(value: object) -> str:
    return value.strip("\0 \n\r\t")[: 4 * _MAX_XMP] if isinstance(value, str) else ""


def _clean(text: str, most: int) -> str:
    """Return text of at most so many characters, on one line."""
    return " ".join(text[: 4 * most].split())[:most]


def _joined(names: Iterator[str]) -> str:
    return ",".join(dict.fromkeys(names))[:MAX_NAME]


# --- C2PA


def _with_manifest(found: Provenance, data: bytes, kind: str) -> Provenance:
    if not has_manifest(data):
        return found
    unverified = replace(found, c2pa="unverified")
    if find_spec("c2pa") is None or len(data) > _MAX_STORE or kind not in _MIMES:
        return unverified
    import c2pa  # 0.2 s, and only the files that have a manifest need it

    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    try:
        with (
            c2pa.Context.from_dict(offline) as context,
            c2pa.Reader(_MIMES[kind], io.BytesIO(data), context=context) as reader,
        ):
            state = (reader.get_validation_state() or "").lower()
            manifest = json.loads(reader.json())
    except Exception as error:  # the library's errors and those of its JSON are an open set
        reason = _clean(str(error) or type(error).__name__, MAX_NAME)
        return replace(unverified, problem=f"the C2PA manifest cannot be read: {reason}")
    if state not in ("valid", "trusted"):
        return replace(found, c2pa="invalid")
    active = manifest.get("manifests", {}).get(manifest.get("active_manifest", ""), {})
    signer = str((active.get("signature_info") or {}).get("issuer") or "")
    programs = [str(part.get("name", "")) for part in active.get("claim_generator_info") or []]
    types = _SOURCE_TYPE.findall(json.dumps(active.get("assertions", [])).encode())
    return replace(
        found,
        c2pa="trusted" if state == "trusted" else "valid",
        c2pa_signer=_clean(signer, MAX_NAME),
        generator=found.generator or _generator({}, programs, []),
        software=found.software or _clean(", ".join(filter(None, programs)), MAX_NAME),
        source_type=_joined(filter(None, (found.source_type, *(t.decode() for t in types)))),
    )


def has_manifest(data: bytes) -> bool:
    """Return whether a file has an embedded C2PA manifest (C2PA 2.1, appendix A), unverified.

    Args:
        data: Content of a JPEG, PNG, WebP, TIFF, AVIF, HEIC or MP4 file.
    """
    try:
        return any(_stores(data))
    except (struct.error, IndexError, ValueError):  # damaged
        return False


def _stores(data: bytes) -> Iterator[bool]:
    """Yield for each part of a file whether it is where its format keeps a manifest."""
    if data.startswith(b"\xff\xd8"):
        place = 2
        while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
            (length,) = struct.unpack_from(">H", data, place + 2)
            segment = data[place + 4 : place + 2 + length]
            yield data[place + 1] == 0xEB and b"jumb" in segment[:20] and b"c2pa" in segment[:64]
            place += 2 + max(length, 2)
    elif data.startswith(b"\x89PNG"):
        place = 8
        while place + 8 <= len(data):
            length, name = struct.unpack_from(">I4s", data, place)
            yield name == b"caBX"
            place += 12 + length
    elif data.startswith(b"RIFF"):
        place = 12
        while place + 8 <= len(data):
            name, length = struct.unpack_from("<4sI", data, place)
            yield name == b"C2PA"
            place += 8 + length + length % 2
    elif data[4:8] == b"ftyp":
        place = 0
        while place + 8 <= len(data):
            length, name = struct.unpack_from(">I4s", data, place)
            header = 8
            if length == 1:
                (length,), header = struct.unpack_from(">Q", data, place + 8), 16
            yield name == b"uuid" and data[place + header : place + header + 16] == _BMFF_C2PA
            place += length if length >= header else len(data)  # 0: to the end of the file
    elif data.startswith((b"II*\0", b"MM\0*")):
        order = "<" if data[0] == 0x49 else ">"
        (place,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, place)
        for number in range(entries):
            (tag,) = struct.unpack_from(order + "H", data, place + 2 + 12 * number)
            yield tag == _TIFF_C2PA


def _is_bmff_video(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and not (is_heic(data) or data[8:12] in AVIF_BRANDS)
