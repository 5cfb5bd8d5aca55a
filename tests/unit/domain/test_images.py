"""Images: which bytes are one, which of them a task has room for, and what the text of a result says of each."""

import hashlib

import pytest

from agent_runtime.domain.images import (
    Image,
    ImageReference,
    is_image_digest,
    read_image,
    restore_image,
    select_new,
)
from agent_runtime.domain.kept_results import name_images
from agent_runtime.domain.rerun import Rerun, ReusedResult
from agent_runtime.domain.tools import StoredResult
from pictures import make_image


def image_of(data: bytes) -> Image:
    image = read_image(data)
    assert image
    return image


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFFsizeWEBPVP", "image/webp"),
    ],
)
def test_the_first_bytes_say_what_an_image_is(start: bytes, media_type: str) -> None:
    digest = f"sha256:{hashlib.sha256(start).hexdigest()}"
    image = image_of(start)
    assert image == Image(digest=digest, media_type=media_type, size=len(start), data=start)
    assert image.reference == ImageReference(digest=digest, media_type=media_type, size=len(start))
    assert image.mark == image.reference.mark == f"kept as {digest[:19]}"
    assert image.model_dump() == image.reference.model_dump(), "no event holds the bytes"
    assert "data" not in repr(image)
    assert read_image(b" " + start) is None
    assert read_image(start[:-1]) is None


@pytest.mark.parametrize(
    "data", [b"", b"<svg>", b"<!doctype html>", b"RIFFsizeWAVEfmt ", b"XXXXsizeWEBPVP", b"RIFF", b"BM", b"%PDF-1.7"]
)
def test_anything_else_is_no_image(data: bytes) -> None:
    assert read_image(data) is None


def test_a_stored_image_counts_only_under_its_own_digest() -> None:
    image, other = make_image(1), make_image(2)
    assert restore_image(image.data, image.digest) == image
    assert restore_image(other.data, image.digest) is None
    assert restore_image(b"<svg>", image.digest) is None
    assert restore_image(None, image.digest) is None


def test_a_digest_has_one_form() -> None:
    digest = make_image().digest
    assert is_image_digest(digest)
    for text in ("", digest[:-1], f"{digest}0", digest.upper(), f"{digest}\n", digest.removeprefix("sha256:")):
        assert not is_image_digest(text)


def test_images_are_taken_in_order_while_there_is_room_and_each_once() -> None:
    large, small, exact = make_image(1, 600), make_image(2, 300), make_image(3, 100)
    assert select_new([large, small, large, exact], {}, 1000) == [large, small, exact]
    assert select_new([large, small, exact], {}, 999) == [large, small]
    assert select_new([small, large, exact], {}, 899) == [small, exact], "a smaller one may still find room"
    assert select_new([large, small], {large.digest: 600}, 900) == [small]
    assert select_new([small], {large.digest: 600}, 899) == []


def test_the_text_says_of_each_image_whether_it_is_kept() -> None:
    kept, left = make_image(1), make_image(2)
    text = f"[image, {kept.mark}]\n[image, {left.mark}]\n[image, {left.mark}]"
    result = name_images(StoredResult(text=text, images=(kept, left), is_error=True), {kept.digest}, 70)
    why = "not kept: a task has room for 70 bytes of images (limits.task_image_bytes)"
    assert result.text == f"[image, {kept.mark}]\n[image, {why}]\n[image, {why}]"
    assert result.images == (kept.reference,)
    assert not isinstance(result.images[0], Image)
    assert result.is_error


def test_a_result_without_images_is_written_as_ever() -> None:
    assert "images" not in StoredResult(text="fine").model_dump_json()
    image = make_image()
    written = StoredResult(images=(image,)).model_dump_json()
    assert StoredResult.model_validate_json(written).images == (image.reference,)


def test_a_rerun_names_the_images_of_all_results_that_it_reuses() -> None:
    one, two = make_image(1).reference, make_image(2).reference
    results = {
        name: ReusedResult(step="sha256:0", result=StoredResult(images=images), open_world=False)
        for name, images in (("a", (one, two)), ("b", ()), ("c", (one,)))
    }
    rerun = Rerun(task_id="t", head="sha256:0", start="failed_step", results=results)
    assert rerun.image_digests == [one.digest, two.digest, one.digest]
