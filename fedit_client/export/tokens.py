"""A base's tokenizer as llama.cpp wants it: pieces, merges, special tokens, from `tokenizer.json` alone.

llama.cpp cuts text into words by rules of its own that have names. A rule that is not known here is refused: a wrong
one would change tokens, and with them answers, without a word.
"""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fedit_client.export.merging import Base
from fedit_client.home.durable import translating
from fedit_protocol.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""The kinds of token in GGUF."""

_SPACE: Final = "\u2581"
_LETTERS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2: Final = rf"{_LETTERS}|\p{{N}}|{_REST}"
LLAMA3: Final = rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
"""The words of Qwen 2 and 3, and of Llama 3, as their tokenizers state them."""

_WORD_RULES: Final[dict[tuple[str, ...], str]] = {
    ("bytes by words",): "gpt-2",
    ("digits", "bytes by words"): "smollm",
    (QWEN2, "bytes"): "qwen2",
    (LLAMA3, "bytes"): "llama-bpe",
}


@dataclass(frozen=True)
class Tokens:
    """The tokenizer's part of a GGUF file."""

    model: str
    """`gpt2` for pieces of bytes, `llama` for pieces of characters as SentencePiece has them."""
    pre: str
    pieces: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False
    special: tuple[tuple[str, int], ...] = ()
    """`bos`, `eos`, `unk`, `pad` → id."""
    adds_bos: bool = False
    template: str = ""

    @property
    def stops(self) -> tuple[str, ...]:
        """The pieces that end an answer."""
        return tuple(self.pieces[place] for name, place in self.special if name == "eos")


def tokens_of(base: Base) -> Tokens:
    """Return the tokenizer of a base; raises ModelError M012 for one that llama.cpp would cut text differently with."""
    tokenizer = base.text("tokenizer.json")
    if tokenizer is None:
        _unknown(base, "no tokenizer.json")
    model, settings = tokenizer["model"], base.text("tokenizer_config.json") or {}
    if model.get("type") != "BPE":
        _unknown(base, f"a tokenizer of the kind {model.get('type')}")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        _unknown(base, "a tokenizer that marks parts of words")
    pieces, kinds = _pieces(base, tokenizer)
    merges = tuple(tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"])
    special = _special(base, settings, {piece: place for place, piece in enumerate(pieces)})
    shared: dict[str, Any] = {"pieces": pieces, "special": special, "template": _template(base, settings)}
    shared["adds_bos"] = _adds_bos(tokenizer, settings, dict(special), pieces)
    if model.get("byte_fallback"):
        return Tokens(
            model="llama",
            pre="default",
            kinds=tuple(_character_kind(kind, piece, model) for kind, piece in zip(kinds, pieces, strict=True)),
            scores=_scores(pieces, merges),
            space_prefix=_prefixes_space(base, tokenizer),
            **shared,
        )
    if any(" " in part for pair in merges for part in pair):
        _unknown(base, "merges with spaces")
    return Tokens(
        model="gpt2",
        pre=_word_rule(base, tokenizer),
        kinds=kinds,
        merges=tuple(" ".join(pair) for pair in merges),
        **shared,
    )


def end_piece(base: Base) -> str:
    """Return the text of the token that ends an answer, or ""."""
    return _piece((base.text("tokenizer_config.json") or {}).get("eos_token"))


def _piece(token: Any) -> str:
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


def _pieces(base: Base, tokenizer: dict[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Every piece by its id, up to the number that the model has rows for, and its kind."""
    known = {place: (piece, NORMAL) for piece, place in tokenizer["model"]["vocab"].items()}
    for added in tokenizer.get("added_tokens", ()):
        known[added["id"]] = (added["content"], CONTROL if added.get("special") else USER_DEFINED)
    size = int(base.config["vocab_size"])
    if max(known) >= size:
        _unknown(base, f"{max(known) + 1} tokens and {size} rows for them")
    filled = [known.get(place, (f"[PAD{place}]", UNUSED)) for place in range(size)]
    return tuple(piece for piece, _ in filled), tuple(kind for _, kind in filled)


def _word_rule(base: Base, tokenizer: dict[str, Any]) -> str:
    """The name that llama.cpp has for the way this tokenizer cuts text into words."""
    normalizer = tokenizer.get("normalizer") or {"type": "NFC"}
    steps = tuple(_step(base, step) for step in _sequence(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    rule = _WORD_RULES.get(steps)
    if rule is None or normalizer["type"] != "NFC":
        _unknown(base, "a way of its own to cut text into words")
    # In llama.cpp a word that is a piece as a whole is taken unmerged under Llama 3's rule, and under no other here.
    if bool(tokenizer["model"].get("ignore_merges")) != (rule == "llama-bpe"):
        _unknown(base, "another rule for words that are pieces as a whole")
    return rule


def _sequence(steps: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if steps is None:
        return []
    return list(steps[key]) if steps["type"] == "Sequence" else [steps]


def _step(base: Base, step: dict[str, Any]) -> str:
    match step["type"]:
        case "ByteLevel" if not step.get("add_prefix_space"):
            return "bytes by words" if step.get("use_regex", True) else "bytes"
        case "Digits" if step.get("individual_digits"):
            return "digits"
        case "Split" if step.get("behavior") == "Isolated" and not step.get("invert"):
            return str(step["pattern"].get("Regex", step["pattern"]))
        case kind:
            return _unknown(base, f"a way of its own to cut text into words ({kind})")


def _scores(pieces: tuple[str, ...], merges: tuple[tuple[str, ...], ...]) -> tuple[float, ...]:
    """SentencePiece's scores, as far as they matter: a piece that merges earlier has the higher one."""
    first = {"".join(pair): rank for rank, pair in reversed(list(enumerate(merges)))}
    return tuple(-float(first[piece]) if piece in first else -1e6 for piece in pieces)


def _character_kind(kind: int, piece: str, model: dict[str, Any]) -> int:
    if piece == model.get("unk_token"):
        return UNKNOWN
    is_byte = len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")
    return BYTE if is_byte and kind in (NORMAL, USER_DEFINED) else kind


def _prefixes_space(base: Base, tokenizer: dict[str, Any]) -> bool:
    """Whether a text gets a space before its first word; anything else but spaces made visible is refused."""
    steps = _sequence(tokenizer.get("normalizer"), "normalizers")
    words = _sequence(tokenizer.get("pre_tokenizer"), "pretokenizers")
    prefixed = False
    for step in steps:
        match step["type"]:
            case "Prepend" if step.get("prepend") == _SPACE:
                prefixed = True
            case "Replace" if step.get("pattern") == {"String": " "} and step.get("content") == _SPACE:
                pass
            case kind:
                _unknown(base, f"a tokenizer that changes text ({kind})")
    for step in words:
        match step["type"]:
            case "Metaspace" if not step.get("split", True):
                prefixed = step.get("prepend_scheme", "always") != "never"
            case "Split" if step.get("pattern") == {"String": " "}:
                pass  # no space is left by then
            case kind:
                _unknown(base, f"a way of its own to cut text into words ({kind})")
    return prefixed


def _special(base: Base, settings: dict[str, Any], places: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """The tokenizer's own word comes before the configuration's."""
    found: dict[str, int] = {}
    for name in ("bos", "eos", "unk", "pad"):
        configured = base.config.get(f"{name}_token_id")
        first = configured[0] if isinstance(configured, list) and configured else configured
        place = places.get(_piece(settings.get(f"{name}_token")), first)
        if isinstance(place, int):
            found[name] = place
    return tuple(found.items())


def _adds_bos(
    tokenizer: dict[str, Any], settings: dict[str, Any], special: dict[str, int], pieces: tuple[str, ...]
) -> bool:
    stated = settings.get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing" and step.get("single") and "bos" in special:
            return bool(step["single"][0].get("SpecialToken", {}).get("id") == pieces[special["bos"]])
    return False


def _template(base: Base, settings: dict[str, Any]) -> str:
    if "chat_template.jinja" in base.files:
        with translating(base.folder):
            return (base.folder / "chat_template.jinja").read_text("utf-8")
    stated = settings.get("chat_template")
    return stated if isinstance(stated, str) else ""


def _unknown(base: Base, what: str) -> NoReturn:
    raise ModelError(f"the base has {what}, which this exporter does not know for GGUF", code="M012",
                     where=str(base.folder),
                     fix="fedit-client export --to merged, then convert with the tools of llama.cpp")  # fmt: skip
