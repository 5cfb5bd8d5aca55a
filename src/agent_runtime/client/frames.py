"""The frames of a stream, parsed from Server-Sent Events."""

import json
from dataclasses import dataclass
from typing import Any

_LINE = "message"
"""The event of a frame without a name: a log line."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the stream of a task. `event` is `message` for a log line, and `data` is then the line.

    `id` is where to resume. It is empty for progress of models and calls, which is not stored.
    """

    id: str
    event: str
    data: str

    @property
    def is_line(self) -> bool:
        """True for a log line; False for an event or progress, whose `data` is JSON."""
        return self.event == _LINE

    @property
    def seq(self) -> int | None:
        """The number of the event in the journal, or None for progress."""
        return int(self.id.partition(".")[0]) if self.id else None

    def json(self) -> Any:
        """Return the parsed data of an event: `seq`, `task_id`, `type`, `at` and `data`."""
        return json.loads(self.data)

    @property
    def is_end(self) -> bool:
        """True for the frame after the last event of a task. `follow` ends there and does not yield it."""
        return self.is_line and self.data == "[DONE]"


END = Frame("", _LINE, "[DONE]")
"""What a stream that has nothing left to send stands for (204)."""


class FrameReader:
    """Splits the bytes of a stream into frames, by the HTML standard. Bytes may be cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def read(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [frame for line in lines if (frame := self._read_line(line)) is not None]

    def _read_line(self, raw: bytes) -> Frame | None:
        line = raw.decode(errors="replace").removesuffix("\r")
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and name in self._fields:
                value = f"{self._fields[name]}\n{value}"
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:  # a comment
            return None
        return Frame(fields.get("id", ""), fields.get("event", _LINE), fields["data"])
