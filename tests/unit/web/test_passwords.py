"""Passwords: right ones cost one check, wrong ones neither much time nor anything of others."""

import asyncio
import math
import time

import bcrypt
import pytest

from migscaler.web.passwords import Passwords, TooManyChecks

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
OTHER = bcrypt.hashpw(b"another", bcrypt.gensalt(4))
SLOW = bcrypt.hashpw(b"secret", bcrypt.gensalt(10))
USERS = {"ada": HASH}


def ask(*tries: tuple[str, bytes], users: dict[str, bytes] | None = None) -> list[bool]:
    async def all_of_them() -> list[bool]:
        passwords = Passwords()
        return [await passwords.is_right(users or USERS, n, p, "192.0.2.1") for n, p in tries]

    return asyncio.run(all_of_them())


def test_only_the_very_password_of_that_user_is_right() -> None:
    tries = [("ada", b"secret"), ("ada", b"secret2"), ("ada", b""), ("bob", b"secret"), ("", b"")]

    assert ask(*tries) == [True, False, False, False, False]


def test_hash_of_other_tools_is_taken() -> None:
    assert ask(("ada", b"secret"), users={"ada": b"$2y" + HASH[3:]}) == [True]


def test_password_longer_than_bcrypt_reads_is_no_error() -> None:
    long = b"x" * 100
    hashed = bcrypt.hashpw(long[:72], bcrypt.gensalt(4))

    assert ask(("ada", long), ("ada", b"y" * 5000), users={"ada": hashed}) == [True, False]


def test_password_is_checked_once_and_anew_when_the_hash_changes() -> None:
    async def story() -> tuple[float, bool]:
        passwords = Passwords()
        assert await passwords.is_right({"ada": SLOW}, "ada", b"secret", "a")
        began = time.process_time()
        for _ in range(100):
            assert await passwords.is_right({"ada": SLOW}, "ada", b"secret", "a")
        took = time.process_time() - began
        return took, await passwords.is_right({"ada": OTHER}, "ada", b"secret", "a")

    took, after_change = asyncio.run(story())

    assert took < 0.5  # 100 checks would take 5 s and more
    assert after_change is False


def test_same_try_at_once_is_checked_once() -> None:
    async def story() -> list[bool]:
        passwords = Passwords()
        tries = (passwords.is_right({"ada": SLOW}, "ada", b"secret", "a") for _ in range(50))
        return list(await asyncio.gather(*tries))

    assert asyncio.run(story()) == [True] * 50


def test_flood_of_wrong_passwords_is_bounded_and_stops_no_known_user() -> None:
    async def story() -> tuple[int, tuple[int, int], bool]:
        passwords = Passwords()
        users = {"ada": SLOW}
        assert await passwords.is_right(users, "ada", b"secret", "scraper")
        flood = [
            asyncio.ensure_future(passwords.is_right(users, "ada", b"%d" % n, f"10.0.0.{n % 9}"))
            for n in range(300)
        ]
        await asyncio.sleep(0)
        waiting = len(passwords._running)
        known = await passwords.is_right(users, "ada", b"secret", "scraper")
        still = len(passwords._running)
        answers = await asyncio.gather(*flood, return_exceptions=True)
        refused = sum(isinstance(answer, TooManyChecks) for answer in answers)
        assert True not in answers
        return refused, (waiting, still), known

    refused, queue, known = asyncio.run(story())

    assert refused == 300 - 16
    assert known
    assert queue == (16, 16)  # it did not wait for one of them


def test_one_address_takes_no_more_than_its_share_of_the_queue() -> None:
    async def story() -> bool:
        passwords = Passwords()
        waiting = [
            asyncio.ensure_future(passwords.is_right({"ada": SLOW}, "ada", b"%d" % n, "flood"))
            for n in range(10)
        ]
        await asyncio.sleep(0)
        other = await passwords.is_right({"ada": SLOW}, "ada", b"secret", "scraper")
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(one, TooManyChecks) for one in refused) == 7
        return other

    assert asyncio.run(story()) is True


def test_unknown_user_costs_as_much_as_a_known_one() -> None:
    """Else the time would tell which names exist."""

    async def fastest() -> tuple[float, float]:
        """Try both in turn; longer on a busy machine, which adds to both now and then."""
        passwords = Passwords()
        best = {"ada": math.inf, "nobody": math.inf}
        for number in range(40):
            for name in best:
                began = time.process_time()
                await passwords.is_right({"ada": SLOW}, name, b"wrong%d" % number, "a")
                best[name] = min(best[name], time.process_time() - began)
            if number >= 4 and best["nobody"] == pytest.approx(best["ada"], rel=0.5):
                break
        return best["ada"], best["nobody"]

    known, unknown = asyncio.run(fastest())

    assert unknown == pytest.approx(known, rel=0.5)


def test_what_is_remembered_is_bounded() -> None:
    async def story() -> int:
        passwords = Passwords()
        for number in range(300):
            await passwords.is_right(USERS, "ada", b"%d" % number, "a")
        return len(passwords._wrong)

    assert asyncio.run(story()) == 256
