"""Images in the answers of servers: decoded and checked, so that only those are kept that can be shown safely."""

import base64
import re

from agent_runtime.domain.images import IMAGE_TYPES, MOST_IMAGES, Image, read_image
from agent_runtime.domain.values import JsonValue
from agent_runtime.text.redaction import Redactor

_ALIASES = {"image/jpg": "image/jpeg"}
_OTHER_KIND = "not kept: only PNG, JPEG, GIF and WebP are kept"
_DATA_URL = re.compile(r"\Adata:[^,]{0,100};base64,", re.IGNORECASE)
"""The beginning of a data URL, which some servers write before the base64."""

_BASE64_BYTES, _BASE64_CHARACTERS = 3, 4


class ImageReader:
    """Reads the images of one result (G11, G12). Each may have `most_bytes`; with 0, none is kept."""

    def __init__(self, most_bytes: int, redactor: Redactor) -> None:
        self._most_bytes = most_bytes
        self._redactor = redactor
        self._found: dict[str, Image] = {}

    @property
    def images(self) -> tuple[Image, ...]:
        """The images to keep, each once, in the order of the result."""
        return tuple(self._found.values())

    def read(self, kind: str, claimed: JsonValue, data: str) -> str:
        """Return the text that stands for data in base64. `claimed` is its media type, as the server has it."""
        said = claimed if isinstance(claimed, str) else ""
        data = _DATA_URL.sub("", "".join(data.split()))
        size = len(data.rstrip("=")) * _BASE64_BYTES // _BASE64_CHARACTERS
        is_image = kind == "image" or said.lower().startswith("image/")
        fate = self._keep(said, data, size) if is_image else "not kept"
        return f"[{kind}{said and ', '}{said}, {size} bytes, {fate}]"

    def _keep(self, said: str, data: str, size: int) -> str:
        """Keep an image, if it can be shown safely. Return whether it is kept, and why not."""
        claimed = said.partition(";")[0].strip().lower()
        claimed = _ALIASES.get(claimed, claimed)
        if claimed and claimed not in IMAGE_TYPES:
            return _OTHER_KIND
        if size > self._most_bytes:
            return f"not kept: it is over the limit of {self._most_bytes} bytes (limits.image_bytes)"
        content = _decode(data)
        if content is None:
            return "not kept: it is not valid base64"
        image = read_image(content)
        if image is None or claimed not in {"", image.media_type}:
            return f"not kept: its content is not {claimed}" if claimed else _OTHER_KIND
        text = content.decode(errors="replace")
        if self._redactor.redact(text) != text:
            return "not kept: it holds a secret of the configuration"
        if len(self._found) == MOST_IMAGES and image.digest not in self._found:
            return f"not kept: of one result {MOST_IMAGES} images are"
        self._found[image.digest] = image
        return image.mark


def _decode(data: str) -> bytes | None:
    """Return the bytes; None if it is not base64. Padding may be missing."""
    try:
        return base64.b64decode(data + "=" * (-len(data) % _BASE64_CHARACTERS), validate=True)
    except ValueError:
        return None
