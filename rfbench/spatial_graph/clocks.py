"""Clocks that a network's code reads: other times in each draw, as what it draws at random."""

import contextlib
import datetime
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.kept import LIBRARIES

Names = dict[str, Any]  # the global names of a file

SECONDS = ("time", "perf_counter", "monotonic", "process_time", "thread_time")
CLOCKS = (*SECONDS, *(f"{name}_ns" for name in SECONDS))
CALENDARS = ("localtime", "gmtime", "ctime")  # of now, where they are given no seconds
MOST = 1e5  # seconds by which a clock is late, more with every reading
UTC = datetime.timezone.utc
_NOT_ITS_OWN = {*LIBRARIES, *sys.stdlib_module_names}


@contextlib.contextmanager
def clocks(files: Sequence[Names], draw: int, told: Callable[[Draw], None]) -> Iterator[None]:
    """Let the code of a network, in this thread, read other times in other draws.

    The first draw, 0, has the real ones. files: where names may stand for clocks. told: is given
    that one was read. In the end modules and files have what they had.
    """
    late = _Late(random.Random(draw), MOST if draw else 0, told)
    own = [(f, name, v) for f in files if _root(f) not in LIBRARIES for name, v in f.items()]
    instead = late.times()
    if not _DATES.isdisjoint(id(v) for _, _, v in own):
        instead |= late.dates()
    places = [(vars(time), name, vars(time)[name]) for name in (*CLOCKS, *CALENDARS)]
    places += [place for place in own if id(place[2]) in instead]
    for names, name, real in places:
        names[name] = instead[id(real)]
    try:
        yield
    finally:
        late.over = True  # what was imported meanwhile may hold one
        for names, name, real in places:
            names[name] = real


class _Late:
    """Clocks that run late, more with every reading, until it is over."""

    def __init__(self, seeds: random.Random, most: float, told: Callable[[Draw], None]) -> None:
        self.seeds, self.most, self.told = seeds, most, told
        self.since, self.over, self.thread = 0.0, False, threading.get_ident()

    def read(self, above: int = 2) -> float:
        """By how many seconds; 0 for code that is not the network's: the frame so far above."""
        frame = sys._getframe(above)
        other = self.over or threading.get_ident() != self.thread
        if other or _root(frame.f_globals) in _NOT_ITS_OWN:
            return 0
        self.told(Draw("a clock"))
        self.since += self.seeds.uniform(0, self.most)
        return self.since

    def times(self) -> dict[int, Any]:
        """The functions of the module `time` that read a clock, by id(), as late ones."""

        def counter(real: Callable[[], Any], second: int) -> Callable[[], Any]:
            return lambda: real() + type(real())(self.read() * second)

        def calendar(real: Callable[..., Any], now: Callable[[], float]) -> Callable[..., Any]:
            return lambda *at: real(*at) if at and at[0] is not None else real(now() + self.read())

        reals = {name: vars(time)[name] for name in (*CLOCKS, *CALENDARS)}
        made = {n: counter(reals[n], 10**9 if n.endswith("_ns") else 1) for n in CLOCKS}
        made |= {n: calendar(reals[n], reals["time"]) for n in CALENDARS}
        return {id(reals[name]): made[name] for name in reals}

    def dates(self) -> dict[int, Any]:
        """The module `datetime` and its two classes, by id(), as ones whose now is late."""

        def days() -> datetime.timedelta:
            return datetime.timedelta(seconds=self.read(3))

        date: Any = datetime.date
        moment: Any = datetime.datetime

        class Date(date, metaclass=_Alike):
            today = staticmethod(lambda: date.today() + days())

        class Datetime(moment, metaclass=_Alike):
            now = staticmethod(lambda tz=None: moment.now(tz) + days())
            today = staticmethod(lambda: moment.now() + days())
            utcnow = staticmethod(lambda: moment.now(UTC).replace(tzinfo=None) + days())

        module = ModuleType("datetime")
        vars(module).update(vars(datetime) | {"date": Date, "datetime": Datetime})
        return {id(datetime): module, id(datetime.date): Date, id(datetime.datetime): Datetime}


class _Alike(type):
    """Of a class whose instances are those of the class that it stands for."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.__mro__[1])


def _root(names: Names) -> str:
    """The library, or module, that a file belongs to."""
    return str(names.get("__name__")).partition(".")[0]


_DATES = {id(datetime), id(datetime.date), id(datetime.datetime)}
