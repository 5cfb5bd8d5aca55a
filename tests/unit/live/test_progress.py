"""Live progress for listeners: text of models, and the newest report of each call."""

from agent_runtime.domain.patience import Report
from agent_runtime.live.progress import Piece, Progress, Reported


def make_report(step_id: str, progress: float) -> Reported:
    return Reported(step_id, f"{progress:g}", Report(progress))


async def test_neighbouring_pieces_of_a_text_come_joined_and_of_reports_the_newest() -> None:
    progress = Progress()
    with progress.listen("task_1") as listener:
        for piece in (Piece("s1", "a"), Piece("s1", "b"), make_report("s2", 1), make_report("s2", 2), Piece("s1", "c")):
            progress.say("task_1", piece)
        assert await listener.take() == [Piece("s1", "ab"), make_report("s2", 2), Piece("s1", "c")]


async def test_reports_of_different_steps_do_not_replace_each_other() -> None:
    progress = Progress()
    with progress.listen("task_1") as listener:
        progress.say("task_1", make_report("s1", 1))
        progress.say("task_1", make_report("s2", 2))
        progress.say("task_2", make_report("s3", 3))
        assert await listener.take() == [make_report("s1", 1), make_report("s2", 2)]
