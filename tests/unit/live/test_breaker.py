from agent_runtime.live.breaker import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def open_circuit(clock: Clock) -> CircuitBreaker:
    circuit = CircuitBreaker(clock, failures=3, open_s=30)
    for _ in range(3):
        assert circuit.admit() is None
        circuit.record_failure()
    return circuit


def test_it_opens_after_so_many_failures_in_a_row_and_says_when_to_ask_again() -> None:
    clock = Clock()
    circuit = open_circuit(clock)
    assert circuit.state == "open"
    clock.now += 10
    assert circuit.admit() == 20.0


def test_an_answer_in_between_starts_the_count_again() -> None:
    circuit = CircuitBreaker(Clock(), failures=2)
    for _ in range(3):
        circuit.record_failure()
        circuit.record_success()
    assert circuit.state == "closed"


def test_after_its_time_it_lets_one_request_through_at_a_time() -> None:
    clock = Clock()
    circuit = open_circuit(clock)
    clock.now += 30
    assert circuit.admit() is None
    assert circuit.state == "half_open"
    assert circuit.admit() == 0.0
    circuit.record_success()
    assert (circuit.state, circuit.admit()) == ("closed", None)


def test_a_trial_that_fails_opens_it_for_as_long_again() -> None:
    clock = Clock()
    circuit = open_circuit(clock)
    clock.now += 31
    assert circuit.admit() is None
    circuit.record_failure()
    assert (circuit.state, circuit.admit()) == ("open", 30.0)


def test_a_trial_that_was_given_up_leaves_room_for_the_next() -> None:
    clock = Clock()
    circuit = open_circuit(clock)
    clock.now += 31
    assert circuit.admit() is None
    circuit.record_cancellation()
    assert circuit.state == "open"
    assert circuit.admit() is None


def test_late_failures_do_not_keep_it_open_longer() -> None:
    clock = Clock()
    circuit = open_circuit(clock)
    clock.now += 29
    circuit.record_failure()
    assert circuit.admit() == 1.0
