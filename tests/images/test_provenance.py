"""What the metadata of a file say, in files made here as the programs write them."""

import datetime
import io
import json
import struct
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthdetect.images import provenance as module
from synthdetect.images.provenance import Provenance, has_manifest, provenance

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def png(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "PNG", pnginfo=info)
    return file.getvalue()


def jpeg(*, xmp: str = "", **exif: object) -> bytes:
    names = {"Make": 0x010F, "Model": 0x0110, "Software": 0x0131, "ImageDescription": 0x010E}
    written = Image.Exif()
    for name, value in exif.items():
        if name == "UserComment":
            written.get_ifd(0x8769)[0x9286] = value
        else:
            written[names[name]] = value
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "JPEG", exif=written, xmp=xmp.encode())
    return file.getvalue()


A1111 = (
    "a lighthouse at dusk\nNegative prompt: people\n"
    "Steps: 28, Sampler: DPM++ 2M, CFG scale: 7, Seed: 12, Size: 512x512, Model: x"
)


@pytest.mark.parametrize(
    ("data", "generator"),
    [
        (png(parameters=A1111), "Stable Diffusion web UI"),
        (jpeg(UserComment=b"UNICODE\0" + A1111.encode("utf-16-be")), "Stable Diffusion web UI"),
        (jpeg(UserComment=b"UNICODE\0" + A1111.encode("utf-16-le")), "Stable Diffusion web UI"),
        (png(prompt='{"3": {"class_type": "KSampler"}}', workflow='{"nodes": []}'), "ComfyUI"),
        (png(invokeai_metadata='{"positive_prompt": "a cat"}'), "InvokeAI"),
        (png(Software="NovelAI", Comment='{"prompt": "a cat"}', Description="a cat"), "NovelAI"),
        (png(Description="a cat --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"), "Midjourney"),
        (jpeg(Software="Adobe Firefly"), "Adobe Firefly"),
    ],
)
def test_generators_are_recognised_by_what_they_write(data: bytes, generator: str) -> None:
    found = provenance(data)
    assert (found.generator, found.says, found.problem) == (generator, "synthetic", "")
    assert any(generator in sentence for sentence in found.words)


def test_the_prompt_is_kept_and_shortened() -> None:
    assert provenance(png(parameters=A1111)).prompt.startswith("a lighthouse at dusk Negative")
    assert len(provenance(png(parameters=A1111 * 500)).prompt) == module.MAX_PROMPT


@pytest.mark.parametrize(
    "caption",
    [
        "Imagen de la playa",
        "A firefly at night",
        "OpenAI headquarters, 2023",
        "a Midjourney poster",
    ],
)
def test_a_caption_is_no_program(caption: str) -> None:
    found = provenance(jpeg(Make="Canon", ImageDescription=caption, xmp=f"<dc:x>{caption}</dc:x>"))
    assert (found.generator, found.says) == ("", "captured")
    assert provenance(png(Description=caption)).says == ""


@pytest.mark.parametrize("text", ["a holiday in spring", "Steps: we took many"])
def test_ordinary_text_is_no_generator(text: str) -> None:
    assert provenance(png(Comment=text, prompt=text)).says == ""


def test_a_camera_and_an_editor() -> None:
    found = provenance(jpeg(Make="Nikon", Model="D90", Software="GIMP 2.10"))
    assert (found.says, found.camera, found.software) == ("captured", "Nikon D90", "GIMP 2.10")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("trainedAlgorithmicMedia", "synthetic"),
        ("digitalCapture", "captured"),
        ("minorHumanEdits", ""),
    ],
)
@pytest.mark.parametrize("form", ['Iptc4xmpExt:DigitalSourceType="{}"', "<x:Y rdf:resource='{}'/>"])
def test_the_digital_source_type_in_xmp(name: str, says: str, form: str) -> None:
    xmp = f"<x:xmpmeta>{form.format(SOURCE_TYPE + name)} xmp:CreatorTool='Painter'</x:xmpmeta>"
    found = provenance(jpeg(xmp=xmp))
    assert (found.source_type, found.says, found.software) == (name, says, "Painter")


def test_hostile_metadata_raise_nothing(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "cc">]>' + "<a>&b;</a>" * 10_000
    assert provenance(jpeg(xmp=bomb[:60_000])).says == ""
    whole = png(parameters=A1111)
    for length in range(0, len(whole), 7):
        provenance(whole[:length])
    assert provenance(b"").problem
    assert provenance(b"\xff\xd8\xff\xeb\x00\x00").problem
    named = jpeg(Software="\x1b[31mred")
    assert provenance(named).software
    file = tmp_path / "a.png"
    file.write_bytes(whole)
    assert provenance(file) == provenance(whole)


def test_a_compressed_text_that_unpacks_to_much_is_refused() -> None:
    info = PngInfo()
    info.add_text("parameters", "a" * 3_000_000, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=info)
    assert "too large" in provenance(file.getvalue()).problem


# --- C2PA


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + b"\0\0\0\0"


JUMBF = struct.pack(">I4s", 200, b"jumb") + struct.pack(">I4s", 40, b"jumd") + b"c2pa" + b"\0" * 60


def with_jpeg_manifest() -> bytes:
    body = b"JP\0\1\0\0\0\1" + JUMBF
    return jpeg()[:2] + b"\xff\xeb" + struct.pack(">H", 2 + len(body)) + body + jpeg()[2:]


def test_a_manifest_is_found_where_each_format_keeps_it() -> None:
    plain = png()
    assert not has_manifest(plain)
    assert has_manifest(plain[:33] + chunk(b"caBX", JUMBF) + plain[33:])
    assert not has_manifest(jpeg())
    assert has_manifest(with_jpeg_manifest())
    video = struct.pack(">I4s4s", 12, b"ftyp", b"isom")
    box = struct.pack(">I4s", 24, b"uuid") + bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    assert has_manifest(video + box)
    assert not has_manifest(video)
    assert provenance(video + box).c2pa == "unverified"
    assert has_manifest(b"RIFF\0\0\0\0WEBP" + b"C2PA\4\0\0\0abcd")
    assert not has_manifest(b"RIFF\0\0\0\0WEBP" + b"VP8 \4\0\0\0abcd")
    assert has_manifest(b"II*\0\x08\0\0\0\1\0\x41\xcd" + b"\0" * 10)


def test_a_manifest_that_cannot_be_read_is_called_unverified() -> None:
    found = provenance(with_jpeg_manifest())
    assert (found.c2pa, found.says) == ("unverified", "")
    assert "was not verified" in " ".join(found.words)


def certificates() -> tuple[bytes, bytes]:
    """A chain that a test authority issued, and its private key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        pairs = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, f"{text} Ltd"))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])

    def build(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("Authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
        )

    def usage(**given: bool) -> x509.KeyUsage:
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                 "key_agreement", "key_cert_sign", "crl_sign", "encipher_only",
                 "decipher_only")  # fmt: skip
        return x509.KeyUsage(**{name: given.get(name, False) for name in names})

    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        build("Authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), True)
        .sign(root, hashes.SHA256())
    )
    signer = (
        build("Signer", key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage(digital_signature=True), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .sign(root, hashes.SHA256())
    )
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (signer, authority))
    return chain, key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signed() -> bytes:
    """A JPEG with a manifest that says that a model made it."""
    import c2pa

    chain, key = certificates()
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE + "trainedAlgorithmicMedia",
    }
    manifest = {
        "claim_generator_info": [{"name": "Painter", "version": "1"}],
        "format": "image/jpeg",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None)
    result = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
        builder.sign(signer, "image/jpeg", io.BytesIO(jpeg()), result)
    return result.getvalue()


def test_a_signed_manifest_is_verified_and_an_altered_image_is_not_believed() -> None:
    data = signed()
    found = provenance(data)
    assert (found.c2pa, found.source_type) == ("valid", "trainedAlgorithmicMedia")
    assert (found.says, found.software, found.problem) == ("synthetic", "Painter", "")
    assert found.c2pa_signer
    altered = bytearray(data)
    altered[-20] ^= 0xFF
    found = provenance(bytes(altered))
    assert (found.c2pa, found.source_type, found.says) == ("invalid", "", "")


def test_without_the_library_a_manifest_is_present_and_unverified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    found = provenance(signed())
    assert found == Provenance(c2pa="unverified")
