"""Who is let in next: fair, within the room there is, and foretold."""

import random

from clas_core.running.waiting import Line, Load, Room

ROOM = Room(rows=8, rows_each=4, tokens=1000)


def load(owner, rows=2, tokens=100, steps=10):
    return Load(owner, rows, tokens, steps)


def let_in(line, running=()):
    """Who comes until there is nobody or no room, by name of owner."""
    running, names = list(running), []
    while (one := line.pop(running)) is not None:
        running.append(one)
        names.append(one.owner)
    return names


def fill(*loads, room=ROOM):
    line = Line(room)
    for one in loads:
        line.push(one)
    return line


def test_owners_take_turns():
    """Four rows for the first to come, but none before every other has some."""
    line = fill(*[load("a") for _ in range(9)], load("b"), load("c"))
    assert let_in(line) == ["a", "b", "c", "a"]
    assert len(line) == 7


def test_an_owner_s_own_keep_their_order():
    first, second = load("a", rows=1), load("a", rows=2)
    line = fill(first, second)
    assert line.pop([]) is first
    assert line.pop([first]) is second


def test_who_has_fewest_rows_under_way_comes_next():
    line = fill(load("a"), load("b"))
    assert let_in(line, [load("a")]) == ["b", "a"]


def test_nobody_has_more_than_their_share_even_alone():
    assert let_in(fill(*[load("a") for _ in range(9)])) == ["a", "a"]


def test_whose_share_is_full_holds_up_nobody():
    line = fill(load("a", rows=4), load("b"))
    assert let_in(line, [load("a"), load("b"), load("b")]) == []  # all shares are full
    line = fill(load("a", rows=4), load("c"))
    assert let_in(line, [load("a")]) == ["c"]


def test_large_requests_are_waited_for():
    """Small ones that would fit don't pass by for ever."""
    line = fill(load("a", rows=4), load("b", rows=1))
    assert let_in(line, [load("c"), load("c"), load("d")]) == []


def test_tokens_are_room_too():
    line = fill(load("a", tokens=600), load("b", tokens=600))
    assert let_in(line) == ["a"]


def test_those_who_leave_are_taken_out():
    a, b, other = load("a"), load("b"), load("a")
    line = fill(a, b, other)
    assert line.drop(lambda one: one.owner == "a") == [a, other]
    assert let_in(line) == ["b"]


def test_starts_are_foretold():
    running = [(load(name, rows=4), steps) for name, steps in (("x", 3), ("y", 7))]
    first, second, third = load("a", rows=4), load("b", rows=4, steps=2), load("c", rows=4)
    line = fill(first, second, third)
    assert list(line.starts(running).items()) == [(first, 3), (second, 7), (third, 9)]
    assert len(line) == 3


def test_what_is_foretold_comes_true():
    """Against a plain simulation, step by step, of random requests."""
    rng = random.Random(0)
    for _ in range(30):
        loads = [
            load(rng.choice("abcd"), rng.randint(1, 4), rng.randint(1, 500), rng.randint(1, 9))
            for _ in range(rng.randint(1, 12))
        ]
        line = fill(*loads)
        foretold = line.starts([])
        found, running, now = {}, {}, 0
        while len(line):
            while (one := line.pop(list(running))) is not None:
                found[one], running[one] = now, now + one.steps
            now += 1
            running = {one: end for one, end in running.items() if end > now}
        assert foretold == found
        assert list(foretold) == list(found)
