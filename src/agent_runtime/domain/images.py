"""Images in the results of calls: which of them are kept beside the journal, and how the journal names them."""

import re
from collections.abc import Iterable, Mapping

from pydantic import Field

from agent_runtime.domain.values import Value, digest_of_bytes

MOST_IMAGES = 50
"""The most images of one result that are kept: the journal names each."""

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""The kinds of images that are kept: pixels, with no code in them."""

_SHOWN_DIGITS = 12
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageReference(Value):
    """An image as the journal names it. `digest`: that of its bytes, of which there are `size`."""

    digest: str
    media_type: str
    size: int

    @property
    def mark(self) -> str:
        """The words in the text of a result that say that the image is kept."""
        return f"kept as {self.digest[: len('sha256:') + _SHOWN_DIGITS]}"

    @property
    def reference(self) -> "ImageReference":
        """The same without bytes."""
        return ImageReference(digest=self.digest, media_type=self.media_type, size=self.size)


class Image(ImageReference):
    """An image with its bytes. No event holds them."""

    data: bytes = Field(exclude=True, repr=False)


def read_image(data: bytes) -> Image | None:
    """Return the image with these bytes; None if their beginning is that of no kind that is kept."""
    kind = _find_type(data)
    if kind is None:
        return None
    return Image(digest=digest_of_bytes(data), media_type=kind, size=len(data), data=data)


def is_image_digest(text: str) -> bool:
    """Return whether an image may have this digest."""
    return _DIGEST.fullmatch(text) is not None


def restore_image(data: bytes | None, digest: str) -> Image | None:
    """Return the image that was stored with this digest; None if there is none, or if it was changed."""
    image = None if data is None else read_image(data)
    return image if image is not None and image.digest == digest else None


def select_new(images: Iterable[Image], known: Mapping[str, int], most_bytes: int) -> list[Image]:
    """Return the images to add to those of a task, of which all may have `most_bytes` together.

    `known`: the sizes of those that it has, by digest.
    """
    room = most_bytes - sum(known.values())
    new: dict[str, Image] = {}
    for image in images:
        if image.size <= room and image.digest not in known and image.digest not in new:
            new[image.digest] = image
            room -= image.size
    return list(new.values())


def _find_type(data: bytes) -> str | None:
    """Return the media type that the first bytes say (https://mimesniff.spec.whatwg.org, section 6.1)."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:14] == b"WEBPVP" else None
