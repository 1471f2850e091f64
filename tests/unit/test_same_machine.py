"""What is noted of a machine, and what differs between two."""

from remote_trainer.environment import describe_environment, processor, what_differs


def test_the_same_environment_differs_in_nothing() -> None:
    here = describe_environment()
    assert here["processor"] == processor() != ""
    assert what_differs(here, here) is None


def test_what_decides_over_the_last_bits_is_named() -> None:
    before = {"torch": "2.13.0", "cpu_threads": "1", "processor": "A", "python": "3.11.1"}
    now = {"torch": "2.14.0", "cpu_threads": "8", "processor": "A", "python": "3.12.0"}
    assert what_differs(before, now) == (
        "torch 2.13.0 before, 2.14.0 now; CPU threads 1 before, 8 now"
    )


def test_a_key_that_older_versions_did_not_write_is_not_compared() -> None:
    assert what_differs({"torch": "2.13.0"}, {"torch": "2.13.0", "processor": "A"}) is None
