"""The table of calculations: the form of each sentence, and its action."""

from collections.abc import Callable

from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.values import IT, Row

Op = Callable[..., m.Action]


def show(*values: m.Value) -> m.Action:
    """Return the action that makes exactly these values."""
    return m.Show(values)


def _one(value: m.Value) -> m.Action:
    return m.Show((value,))


def _sum_of(value: m.Formula) -> m.Action | None:
    """Take `sum 3 + 4`. `sum 1-10` may mean all the numbers between, so it is not taken."""
    return _one(value) if "+" in value.text else None


def _calculate(op: str) -> Op:
    """Return the builder for two numbers, `a` and `b` in this order. A missing one is the last result."""
    return lambda a=IT, b=IT: show(m.Operation(op, (a, b)))


def _over_all(op: str) -> Op:
    return lambda values: show(m.Operation(op, values))


def _by(op: str, factor: str) -> Op:
    return lambda value=IT: show(m.Operation(op, (value, m.Number(factor))))


def _percent(sign: str) -> Op:
    """Return the builder of `increase A by B percent`: the change first, then the sum."""

    def build(percent: m.Value, whole: m.Value = IT) -> m.Action:
        share = m.Operation("/", (percent, m.Number("100")))
        return show(m.Operation("*", (whole, m.Operation(sign, (m.Number("1"), share)))))

    return build


def _sum_or_append(what: m.Value, to: m.Value) -> m.Action:
    if isinstance(to, m.Back) and to.sort == "any" and isinstance(what, m.Number):
        return m.AddTo(what, to)
    return show(m.Operation("+", (to, what)))


SUMS: list[Row] = [
    ("$sum <value=formula>", _sum_of),
    ("$sum|total|plus|find_the_sum_of <values=nums> together|up?", _over_all("+")),
    ("$sum <a=num> and|with|plus <b=last> together|up?", _calculate("+")),
    ("add <what=number> more? to <to=last>", _sum_or_append),
    ("$less|take|remove <b=num> away? from <a=last>", _calculate("-")),
    ("multiply <values=nums> together|with_each_other?", _over_all("*")),
    ("multiply <a=num> by|with|times|and <b=last>", _calculate("*")),
    ("divide <a=num> by|through|over <b=last>", _calculate("/")),
    ("increase|raise|grow|bump <whole=num> by <percent=num> percent|%|per_cent", _percent("+")),
    ("decrease|reduce|lower|cut|discount <whole=num> by <percent=num> percent|%|per_cent", _percent("-")),
    ("add <percent=num> percent|%|per_cent to <whole=last>", _percent("+")),
    ("subtract|deduct|take_off|take <percent=num> percent|%|per_cent from <whole=last>", _percent("-")),
    ("double <value=last>", _by("*", "2")),
    ("halve <value=last>", _by("/", "2")),
    ("square <value=last>", _by("**", "2")),
    (
        "round <value=num> to <places=count> decimals|decimal|decimal_places|decimal_place|places|digits",
        lambda value, places: show(m.Operation("round", (value, m.Number(str(places))))),
    ),
    (
        (
            "round <value=num> off|up_or_down|to_the_nearest_integer|to_the_nearest_whole_number|to_an_integer|"
            "to_a_whole_number?"
        ),
        lambda value: show(m.Operation("round", (value,))),
    ),
    # The last result is the other operand.
    ("add|plus <b=lastnumber> more?", lambda b: show(m.Operation("+", (IT, b)))),
    ("$less <b=lastnumber>", _calculate("-")),
    ("multiply|multiplied by|with <b=last>", _calculate("*")),
    ("divide|divided by|through <b=last>", _calculate("/")),
    ("start|begin with|from|at <value=num>", m.Focus),
    ("take|consider|use|have <value=num>", m.Focus),
    ("take|consider|use|pick|choose|select $the? $file? <file>", lambda file: show(m.Contents(file))),
    ("$calculate :|the_following_:? <value=number>", _one),
]
