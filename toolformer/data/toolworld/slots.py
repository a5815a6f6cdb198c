"""In: the word lists of ``words/values.yaml`` and a random generator. Out: typed values with a way to say each.

A slot says one value twice: as JSON (``2026-03-05``) and as a person would (``march 5th 2026``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Said = tuple[Any, str]  # (JSON value, spoken text)

MONTHS = ("January February March April May June July August September October November December").split()
WEEKDAYS = ("Monday Tuesday Wednesday Thursday Friday Saturday Sunday").split()
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SYLLABLE_STARTS = "b d f g k l m n p r s t v z br dr kr pl st tr".split()
SYLLABLE_ENDS = "a e i o u an el in or us".split()


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of ``items``; a few times faster than ``rng.choice``."""
    return items[int(rng.random() * len(items))]


def whole(rng: Random, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


def in_words(number: int) -> str:
    """English words for 0..999, without "and": 240 -> "two hundred forty"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10] + (f" {SMALL[number % 10]}" if number % 10 else "")
    return f"{SMALL[number // 100]} hundred" + (f" {in_words(number % 100)}" if number % 100 else "")


def ordinal(day: int) -> str:
    """1 -> "1st", 22 -> "22nd", 13 -> "13th"."""
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def pseudo_word(rng: Random) -> str:
    """A pronounceable word of two or three syllables that is in no dictionary, e.g. "velmora"."""
    parts = [pick(rng, SYLLABLE_STARTS) + pick(rng, SYLLABLE_ENDS) for _ in range(2 if rng.random() < 0.6 else 3)]
    return "".join(parts)


def _integer(low: int, high: int, words: float) -> Callable[[Random], Said]:
    def say(rng: Random) -> Said:
        value = whole(rng, low, high)
        if high > 20 and rng.random() < 0.35:  # people like round numbers
            value = max(low, min(high, value // 10 * 10))
        return value, in_words(value) if rng.random() < words else str(value)

    return say


def _date(rng: Random) -> Said:
    year, month, day = whole(rng, 2025, 2028), whole(rng, 1, 12), whole(rng, 1, 28)
    value = f"{year}-{month:02d}-{day:02d}"
    name, form = MONTHS[month - 1], rng.random()
    if form < 0.3:
        return value, value
    if form < 0.5:
        return value, f"{name} {ordinal(day)} {year}"
    if form < 0.65:
        return value, f"{name.lower()} {ordinal(day)} {year}"
    return value, f"{day} {name} {year}" if form < 0.85 else f"{name} {day}, {year}"


def _time(rng: Random) -> Said:
    """Without "pm" or "in the evening" a spoken hour is before noon."""
    hour, minute = whole(rng, 6, 23), 5 * whole(rng, 0, 11)
    if rng.random() < 0.45:
        minute = pick(rng, (0, 0, 15, 30, 45))
    value, late, short = f"{hour:02d}:{minute:02d}", hour >= 12, (hour - 1) % 12 + 1
    form = rng.random()
    if form < 0.3:
        return value, value
    if hour == 12 and minute == 0:
        return value, "noon"
    if form < 0.6:
        half = "pm" if late else "am"
        return value, f"{short}:{minute:02d} {half}" if minute else f"{short} {half}"
    part = "" if not late else " in the evening" if hour > 17 else " in the afternoon"
    if hour == 12:
        return value, f"{short}:{minute:02d} pm"
    if not late and rng.random() < 0.4:
        part = " in the morning"
    if minute == 0:
        return value, f"{in_words(short)} o'clock{part}"
    if minute == 30:
        return value, f"half past {in_words(short)}{part}"
    if minute == 15:
        return value, f"a quarter past {in_words(short)}{part}"
    if minute < 30:
        return value, f"{in_words(minute)} past {in_words(short)}{part}"
    return value, f"{in_words(short)} {in_words(minute)}{part}"


def _decimal(rng: Random) -> Said:
    value = whole(rng, 1, 199) / 2 if rng.random() < 0.5 else whole(rng, 5, 995) / 10
    value = int(value) if value == int(value) else value
    return value, str(value)


def _money(rng: Random) -> Said:
    if rng.random() < 0.25:
        value = whole(rng, 100, 29999) / 100
        return (int(value), str(int(value))) if value == int(value) else (value, f"{value:.2f}")
    number, text = _integer(2, 900, 0.15)(rng)
    return number, text


def _minutes(rng: Random) -> Said:
    form = rng.random()
    if form < 0.3:
        return pick(
            rng,
            (
                (60, "an hour"),
                (30, "half an hour"),
                (90, "an hour and a half"),
                (120, "two hours"),
                (180, "three hours"),
                (15, "a quarter of an hour"),
                (45, "three quarters of an hour"),
                (240, "four hours"),
            ),
        )
    value = 5 * whole(rng, 1, 36) if form < 0.8 else whole(rng, 2, 99)
    return value, f"{in_words(value)} minutes" if form > 0.9 else f"{value} minutes"


def _identifier(rng: Random) -> Said:
    value = f"{pick(rng, 'ABCDEFGHJKLMNPQRSTUVWXYZ')}{whole(rng, 10, 9999 if rng.random() < 0.3 else 999)}"
    return value, value


def _phone(rng: Random) -> Said:
    value = f"555-{whole(rng, 0, 9999):04d}"
    return value, value


def _degrees(rng: Random) -> Said:
    value = whole(rng, 5, 35)
    return value, str(value) if rng.random() < 0.5 else f"{value} degrees"


def _percent(rng: Random) -> Said:
    value = whole(rng, 1, 100) if rng.random() < 0.5 else 5 * whole(rng, 1, 20)
    form = rng.random()
    return value, f"{value}%" if form < 0.5 else f"{value if form < 0.75 else in_words(value)} percent"


def _same(draw: Callable[[Random], str]) -> Callable[[Random], Said]:
    def say(rng: Random) -> Said:
        value = draw(rng)
        return value, value

    return say


def _quoted(draw: Callable[[Random], str], share: float) -> Callable[[Random], Said]:
    def say(rng: Random) -> Said:
        value = draw(rng)
        form = rng.random()
        return value, value if form > share else f'"{value}"' if form < share * 0.7 else f"'{value}'"

    return say


@dataclass(frozen=True)
class Slot:
    """A value type: its JSON type, how it is said alone and before a unit ("{} minutes"), a hint for descriptions."""

    type: str
    say: Callable[[Random], Said]
    bare: Callable[[Random], Said]
    hint: str = ""


def built_in_slots(words: Mapping[str, Any]) -> dict[str, Slot]:
    """The slots every domain may use, by name; ``words`` is ``words/values.yaml``."""
    w = words
    first, last, host, end = w["first_name"], w["last_name"], w["mail_host"], w["mail_end"]
    codes = [(code, names) for code, names in w["currency"].items()]

    def currency(rng: Random) -> Said:
        code, names = pick(rng, codes)
        return code, code if rng.random() < 0.5 else pick(rng, names)

    def email(rng: Random) -> str:
        return f"{pick(rng, first).lower()}.{pick(rng, last)[0].lower()}@{pick(rng, host)}.{pick(rng, end)}"

    def street(rng: Random) -> str:
        return f"{whole(rng, 1, 99)} {pick(rng, w['street_name'])} {pick(rng, w['street_kind'])}"

    def title(rng: Random) -> str:
        return f"{'The ' if rng.random() < 0.5 else ''}{pick(rng, w['title_first'])} {pick(rng, w['title_last'])}"

    def text(rng: Random) -> str:
        if rng.random() < 0.3:
            return f"{pick(rng, w['text_verb'])} {pick(rng, first)} about the {pick(rng, w['title_last']).lower()}"
        start = pick(rng, w["text_start"])
        return start if rng.random() < 0.4 else f"{start} {pick(rng, w['text_end'])}"

    def url(rng: Random) -> str:
        return f"{pseudo_word(rng)}.{pick(rng, end)}/{pick(rng, w['tag'])}"

    def one(type: str, say: Callable[[Random], Said], hint: str = "", bare: Any = None) -> Slot:
        return Slot(type, say, bare if bare is not None else say, hint)

    def word(name: str) -> Slot:
        return word_slot(w[name])

    return {
        "date": one("string", _date, "YYYY-MM-DD"),
        "time": one("string", _time, "HH:MM"),
        "weekday": one("string", _same(lambda rng: pick(rng, WEEKDAYS))),
        "month": one("string", _same(lambda rng: pick(rng, MONTHS))),
        "year": one("integer", _integer(1950, 2030, 0.0)),
        "count": one("integer", _integer(1, 12, 0.4)),
        "number": one("integer", _integer(2, 500, 0.25)),
        "decimal": one("number", _decimal),
        "money": one("number", _money),
        "percent": one("integer", _percent, "percent", _integer(1, 100, 0.2)),
        "duration_minutes": one("integer", _minutes, "minutes", _integer(2, 180, 0.15)),
        "person": one("string", _same(lambda rng: f"{pick(rng, first)} {pick(rng, last)}")),
        "first_name": word("first_name"),
        "city": word("city"),
        "country": word("country"),
        "street": one("string", _same(street)),
        "email": one("string", _same(email)),
        "phone": one("string", _phone),
        "identifier": one("string", _identifier),
        "title": one("string", _quoted(title, 0.5)),
        "text": one("string", _quoted(text, 0.75)),
        "language": word("language"),
        "currency": one("string", currency, "ISO code"),
        "color": word("color"),
        "temperature": one("integer", _degrees, "", _integer(5, 35, 0.15)),
        "url": one("string", _same(url)),
        "tag": word("tag"),
    }


def word_slot(values: Sequence[str]) -> Slot:
    """A slot over a domain's own word list; the value is what is said."""
    say = _same(lambda rng: pick(rng, values))
    return Slot("string", say, say)
