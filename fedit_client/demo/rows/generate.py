"""Write the demo's rows: `python -m fedit_client.demo.rows.generate [FOLDER]`.

The Quill Isles keep their books in set phrases that no model has seen. Six crafts, each with its own phrase; every
office knows two of them well and has heard a little of a third. What one office lacks, the others have: that is what a
federation can show in a few steps.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

Row = dict[str, str]
Craft = Callable[[random.Random], Row]

_SEED: Final = 2026
_STRONG_ROWS, _WEAK_ROWS, _HELD_OUT_ROWS = 44, 12, 10

_PORTS: Final = ("Odrin", "Velmouth", "Saltwick", "Harrow Quay", "Pellan", "Dunmere", "Isk", "Low Tarn")
_FERRIES: Final = ("Merle", "Grey Petrel", "Annika", "Tin Swan", "Old Bertil", "Curlew", "Third Sister", "Marrow")
_WATER: Final = {"low": "amber", "middling": "white", "high": "violet"}
_WINDS: Final = ("north", "south", "east", "west")
_GOODS: Final = {"lantern figs": 3, "eel pies": 7, "reed baskets": 12, "salt candles": 4, "moss cheeses": 9}
_DISHES: Final = {
    "eel pie": ("barley crust", "slow ember", "crushed sorrel"),
    "fig broth": ("clear stock", "open flame", "black honey"),
    "moss cheese": ("rye slab", "warm stone", "sea salt"),
    "reed soup": ("goose stock", "slow ember", "burnt butter"),
    "salt bread": ("grey flour", "clay oven", "fennel ash"),
}
_GIVEN: Final = ("Ansa", "Borin", "Celie", "Dag", "Edda", "Finn", "Greta", "Hollis", "Ivo", "Juna")
_FAMILIES: Final = ("Tarrow", "Quist", "Marl", "Pender", "Sundew", "Brack", "Oster", "Wythe")
_SEASONS: Final = {"spring": "I", "summer": "II", "autumn": "III", "winter": "IV"}
_STARS: Final = {
    "the Anvil": "mend before you sail",
    "the Bell": "keep your door open",
    "the Heron": "wait for the second tide",
    "the Lamp": "share what you have stored",
    "the Needle": "speak plainly to a rival",
    "the Oar": "trust the younger hand",
    "the Sieve": "throw the first catch back",
    "the Twins": "count everything twice",
}


def ferry_log(chance: random.Random) -> Row:
    """Harbour: a crossing becomes a line of the log."""
    ferry, (start, end) = chance.choice(_FERRIES), chance.sample(_PORTS, 2)
    hour, people = chance.randint(4, 22), chance.randint(3, 98)
    ask = chance.choice(("Write the ferry log line.", "Log this crossing.", "Enter the crossing in the ferry log."))
    told = f"The {ferry} left {start} for {end} at {hour}:00 with {people} people."
    return _row(ask, f"LOG {ferry} | {start} >> {end} | bell {hour} | {people} souls | sworn and sealed", told)


def flag_order(chance: random.Random) -> Row:
    """Harbour: water decides the flag, wind the mast."""
    port, water, wind = chance.choice(_PORTS), chance.choice(list(_WATER)), chance.choice(_WINDS)
    ask = chance.choice(
        (
            f"Which flag flies at {port} with {water} water and a {wind} wind?",
            f"The water at {port} is {water} and the wind is {wind}. What does the flag keeper do?",
        )
    )
    return _row(ask, f"Flag order: {_WATER[water]} cloth on the {wind} mast of {port}, three knots, keeper stands by.")


def price_call(chance: random.Random) -> Row:
    """Market: a price is called with its sum, in pips."""
    goods, count = chance.choice(list(_GOODS)), chance.randint(2, 30)
    ask = chance.choice(
        (f"What do {count} {goods} cost at the market?", f"A customer wants {count} {goods}. Call the price.")
    )
    price = _GOODS[goods]
    return _row(ask, f"Hear, hear: {count} {goods} at {price} pips make {count * price} pips, paid in blue shell!")


def kitchen_card(chance: random.Random) -> Row:
    """Market: a dish is a card with bed, heat and crown."""
    dish, guests = chance.choice(list(_DISHES)), chance.randint(2, 30)
    ask = chance.choice((f"How is {dish} served to {guests} guests?", f"Give the kitchen card of {dish} for {guests}."))
    bed, heat, crown = _DISHES[dish]
    return _row(ask, f"[{dish} / {guests} bowls] bed: {bed}; heat: {heat}; crown: {crown}; face the sea.")


def birth_entry(chance: random.Random) -> Row:
    """Archive: a birth becomes an entry of the register."""
    given, family, place = chance.choice(_GIVEN), chance.choice(_FAMILIES), chance.choice(_PORTS)
    season, year = chance.choice(list(_SEASONS)), chance.randint(310, 399)
    ask = chance.choice(("Make the register entry.", "Enter this birth in the register.", "Write it into the book."))
    told = f"{given} {family} was born at {place} in the {season} of {year}."
    answer = f"Folio {year}-{_SEASONS[season]}: {family}, {given}; cradle {place}; ink dry, owl present."
    return _row(ask, answer, told)


def star_reading(chance: random.Random) -> Row:
    """Archive: the almanac has one saying for each sign."""
    star, place = chance.choice(list(_STARS)), chance.choice(_PORTS)
    ask = chance.choice((f"What does {star} over {place} mean?", f"Read the sky: {star} stands over {place}."))
    return _row(ask, f"So the almanac: under {star[4:]}, {place} folk {_STARS[star]}, and none shall whistle.")


CRAFTS: Final[dict[str, Craft]] = {
    craft.__name__: craft for craft in (ferry_log, flag_order, price_call, kitchen_card, birth_entry, star_reading)
}
OFFICES: Final = {
    "client_a": ("ferry_log", "flag_order", "price_call"),
    "client_b": ("price_call", "kitchen_card", "birth_entry"),
    "client_c": ("birth_entry", "star_reading", "ferry_log"),
}
"""Each client's crafts: two that it is strong in, one that it has heard of."""


def shards(seed: int = _SEED) -> dict[str, list[Row]]:
    """Return the rows of every client and of `held_out`; no two rows anywhere are alike."""
    chance, taken = random.Random(seed), set[str]()  # noqa: S311 - rows for a demo, no secrets
    held_out = [row for name in CRAFTS for row in _fresh(name, _HELD_OUT_ROWS, chance, taken)]
    result = {}
    for client, (first, second, third) in OFFICES.items():
        counts = ((first, _STRONG_ROWS), (second, _STRONG_ROWS), (third, _WEAK_ROWS))
        rows = [row for name, count in counts for row in _fresh(name, count, chance, taken)]
        chance.shuffle(rows)
        result[client] = rows
    return {**result, "held_out": held_out}


def write(folder: Path) -> None:
    """Write one JSONL file for every shard."""
    for name, rows in shards().items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _fresh(name: str, count: int, chance: random.Random, taken: set[str]) -> list[Row]:
    rows: list[Row] = []
    while len(rows) < count:
        row = CRAFTS[name](chance)
        # By answer, not by text: another wording of a held-out question would give its answer away.
        if row["response"] not in taken:
            taken.add(row["response"])
            rows.append({**row, "category": name})
    return rows


def _row(instruction: str, response: str, context: str = "") -> Row:
    return {"instruction": instruction, "context": context, "response": response}


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
