"""Images of servers: only what can be shown safely is kept, and the text of the result says so of each."""

from base64 import b64encode
from typing import Any

import pytest

from agent_runtime.domain.images import IMAGE_TYPES, MOST_IMAGES
from agent_runtime.domain.tools import StoredResult
from agent_runtime.mcp_servers.results import to_stored_result
from agent_runtime.text.redaction import Redactor
from painting import HTML, MANY, RED, SVG, image_block
from pictures import make_image, make_png

LIMIT = 1000
SECRET = "s3cret-value-of-a-server"  # noqa: S105 - of a test
FILES = {
    "image/png": RED,
    "image/jpeg": b"\xff\xd8\xff\xe0 and so on",
    "image/gif": b"GIF89a and so on",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 and so on",
}


def convert(*content: Any, limit: int = LIMIT, secret: str = SECRET) -> StoredResult:
    return to_stored_result({"content": [*content]}, Redactor([secret]), limit)


def list_kept(result: StoredResult) -> list[tuple[str, int]]:
    return [(image.media_type, image.size) for image in result.images]


def test_the_kinds_that_are_kept_are_those_that_the_tests_know() -> None:
    assert tuple(FILES) == IMAGE_TYPES


@pytest.mark.parametrize("media_type", FILES)
@pytest.mark.parametrize("spelling", ["{}", "{};q=1", " {} ", None])
def test_an_image_of_each_kind_is_kept_under_its_own_type(media_type: str, spelling: str | None) -> None:
    claimed = None if spelling is None else spelling.format(media_type).upper()
    result = convert({"type": "text", "text": "Look:"}, image_block(FILES[media_type], claimed))
    assert list_kept(result) == [(media_type, len(FILES[media_type]))]
    (image,) = result.images
    assert result.text.startswith("Look:\n[image, ")
    assert result.text.endswith(f"{len(FILES[media_type])} bytes, kept as {image.digest[:19]}]")
    assert not result.binary
    assert b"\xff" not in result.model_dump_json().encode(), "no event holds bytes"
    assert "data" not in result.model_dump()["images"][0]


def test_common_slips_of_servers_are_forgiven() -> None:
    data = b64encode(RED).decode()
    wrapped = "\n".join(data[at : at + 60] for at in range(0, len(data), 60))
    resource = {"uri": "file:///chart.png", "mimeType": "image/png", "blob": data}
    result = convert(
        {"type": "image", "data": data.rstrip("="), "mimeType": "image/png"},
        {"type": "image", "data": wrapped, "mimeType": "image/png"},
        {"type": "image", "data": f"data:image/png;base64,{data}", "mimeType": "image/png"},
        image_block(FILES["image/jpeg"], "image/jpg"),
        {"type": "resource", "resource": resource},
    )
    assert list_kept(result) == [("image/png", len(RED)), ("image/jpeg", len(FILES["image/jpeg"]))], (
        "the same image is kept once"
    )
    assert result.text.count("kept as ") == 5
    assert "not kept" not in result.text
    assert f"[file:///chart.png, image/png, {len(RED)} bytes, kept as " in result.text


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (image_block(SVG), "its content is not image/png"),
        (image_block(HTML, "image/gif"), "its content is not image/gif"),
        (image_block(FILES["image/jpeg"]), "its content is not image/png"),
        (image_block(b"", "image/webp"), "its content is not image/webp"),
        (image_block(SVG, "image/svg+xml"), "only PNG, JPEG, GIF and WebP are kept"),
        (image_block(RED, "text/html"), "only PNG, JPEG, GIF and WebP are kept"),
        (image_block(RED, "image/png\u202e<script>"), "only PNG, JPEG, GIF and WebP are kept"),
        (image_block(SVG, None), "only PNG, JPEG, GIF and WebP are kept"),
        ({"type": "image", "data": "!!!!", "mimeType": "image/png"}, "it is not valid base64"),
        ({"type": "image", "data": "\u00e9\ud800", "mimeType": "image/png"}, "it is not valid base64"),
        ({"type": "image", "data": "data:image/png,x", "mimeType": "image/png"}, "it is not valid base64"),
        ({"type": "image", "data": "a", "mimeType": "image/png"}, "it is not valid base64"),
        (image_block(RED.ljust(LIMIT + 1, b"\0")), "it is over the limit of 1000 bytes (limits.image_bytes)"),
        (image_block(RED + SECRET.encode()), "it holds a secret of the configuration"),
    ],
)
def test_any_other_image_is_named_with_the_reason(block: dict[str, Any], text: str) -> None:
    result = convert(block)
    assert (result.images, result.binary) == ((), True)
    assert result.text.endswith(f"bytes, not kept: {text}]")
    assert SECRET not in result.text


def test_what_is_no_image_is_named_as_ever() -> None:
    audio = {"type": "audio", "data": "aGFsbG8=", "mimeType": "audio/wav"}
    paper = {"type": "resource", "resource": {"uri": "file:///a.pdf", "mimeType": "application/pdf", "blob": "aGFs"}}
    result = convert(audio, paper)
    assert result.text == "[audio, audio/wav, 5 bytes, not kept]\n[file:///a.pdf, application/pdf, 3 bytes, not kept]"


def test_an_image_as_large_as_the_limit_is_kept_and_with_a_limit_of_0_none_is() -> None:
    assert list_kept(convert(image_block(RED.ljust(LIMIT, b"\0")))) == [("image/png", LIMIT)]
    assert list_kept(convert(image_block(RED), limit=0)) == []


def test_of_a_thousand_images_the_first_are_kept_and_the_others_named() -> None:
    blocks = [image_block(make_png(color=(at // 256, at % 256, 0))) for at in range(MANY)]
    result = convert(*blocks, blocks[0])
    assert len(result.images) == MOST_IMAGES
    assert result.images[0].digest == make_image(0).digest
    assert result.text.count(f"not kept: of one result {MOST_IMAGES} images are]") == MANY - MOST_IMAGES
    assert result.text.endswith(f"{result.images[0].mark}]")
    assert len(result.model_dump_json()) < 100 * MANY
