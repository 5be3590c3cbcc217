"""Which survivors are passed over, and that a change of what the code does is not among them."""

import tomllib

import pytest

from .explained import ONE_BY_ONE, why_harmless
from .stage import SECAGG

HARMLESS = {
    "an error's words": '- raise ValueError("too long")\n+ raise ValueError("XXtoo longXX")',
    "no words": '- raise SecurityError(problem, "odd")\n+ raise SecurityError(problem, None)',
    "zip": "- return dict(zip(labels, parts, strict=True))\n+ return dict(zip(labels, parts, strict=False))",
    "zip without": "- return dict(zip(labels, parts, strict=True))\n+ return dict(zip(labels, parts, ))",
    "a default": '- value = int.from_bytes(secret, "big")\n+ value = int.from_bytes(secret, )',
}
HARMFUL = {
    "a label": '- return hash_parts("ctx", ctx0)\n+ return hash_parts("CTX", ctx0)',
    "an error's code": '- raise ConfigError("odd", code="C020")\n+ raise ConfigError("odd", code="C021")',
    "another problem": '- raise ProtocolError(ProblemType.MALFORMED, "odd")\n+ raise ProtocolError(None, "odd")',
    "a comparison": "- if threads <= 1:\n+ if threads < 1:",
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_nothing_is_passed_over(change: str) -> None:
    assert why_harmless("any", change)


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_what_changes_something_is_shown(change: str) -> None:
    assert not why_harmless("any", change)


def test_every_explanation_is_of_a_module_that_is_there() -> None:
    for module, entries in tomllib.loads(ONE_BY_ONE.read_text("utf-8")).items():
        assert (SECAGG / f"{module}.py").exists()
        for entry in entries:
            assert entry["reason"]
            assert all(why_harmless(module, f"- ours\n+ {line}") == entry["reason"] for line in entry["lines"])
