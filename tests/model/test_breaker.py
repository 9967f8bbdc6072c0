from gateway.model.breaker import Breaker


def broken(at: float = 0.0) -> Breaker:
    breaker = Breaker(3, 30)
    for _ in range(3):
        assert breaker.wait(at) is None
        breaker.failed(at, "gone")
    return breaker


def test_it_opens_after_several_failures_in_a_row() -> None:
    breaker = Breaker(3, 30)
    breaker.failed(0, "x")
    breaker.failed(0, "x")
    breaker.succeeded()
    breaker.failed(0, "x")
    breaker.failed(0, "x")
    assert breaker.state(0) == "closed"
    breaker.failed(0, "gone")
    assert (breaker.state(0), breaker.reason, breaker.wait(0)) == ("open", "gone", 1)


def test_one_call_tries_when_the_pause_is_over_and_its_success_closes() -> None:
    breaker = broken()
    assert breaker.state(1) == "half-open"
    assert breaker.wait(1) is None
    assert breaker.wait(1) is not None
    breaker.succeeded()
    assert (breaker.state(1), breaker.failures) == ("closed", 0)


def test_its_failure_opens_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now, pauses = broken(), 0.0, []
    for _ in range(7):
        pause = breaker.wait(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
        assert breaker.wait(now) is None
        breaker.failed(now, "still gone")
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_try_whose_caller_left_lets_the_next_one_try() -> None:
    breaker = broken()
    assert breaker.wait(2) is None
    breaker.left()
    assert breaker.wait(2) is None
