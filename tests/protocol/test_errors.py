"""The error tree: codes, exit statuses, and the closed list of problems on the wire."""

import inspect
import re

import pytest

from fedit_protocol import errors
from fedit_protocol.errors import EXIT_CODES, FeditError, ProblemType, ProtocolError, SecurityError

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FeditError)]


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_has_a_code_with_an_exit_status(cls: type[FeditError]) -> None:
    assert re.fullmatch(r"[A-Z]\d{3}", cls.default_code)
    error = cls(ProblemType.INTERNAL, "it broke") if issubclass(cls, ProtocolError) else cls("it broke")
    assert error.exit_code == EXIT_CODES[cls.default_code[0]] > 0
    assert (str(error), error.where, error.fix) == ("it broke", None, None)
    assert cls.__doc__


def test_an_error_may_say_where_and_how_to_fix_it() -> None:
    error = ProtocolError(ProblemType.CONFLICT, "twice", code="T042", where="here", fix="fedit-client status")
    assert (error.code, error.where, error.fix, error.exit_code) == ("T042", "here", "fedit-client status", 6)
    assert error.problem is ProblemType.CONFLICT


def test_the_letters_of_the_tree_are_the_ones_in_the_table() -> None:
    drawn = set(re.findall(r"── \w+ +([A-Z]) ", errors.__doc__ or ""))
    assert drawn == {cls.default_code[0] for cls in TREE if cls is not FeditError}
    assert drawn <= EXIT_CODES.keys()


def test_exit_statuses_stay_clear_of_the_shells_own() -> None:
    assert all(0 < status < 126 for status in EXIT_CODES.values())
    assert EXIT_CODES["U"] == 2


def test_what_only_time_can_cure_has_a_status_of_its_own() -> None:
    assert FeditError("busy", code="N009").exit_code == 75
    assert FeditError("nothing answers", code="N001").exit_code == 5


def test_problem_types_are_stable_urns() -> None:
    for problem in ProblemType:
        assert re.fullmatch(r"urn:fedit:error:[a-z]+(-[a-z]+)*", problem)
        assert problem.name.lower().replace("_", "-") == problem.removeprefix("urn:fedit:error:")
        assert ProblemType(str(problem)) is problem
        assert problem.title_text == problem.name.lower().replace("_", " ")


def test_a_security_error_is_a_protocol_error_of_its_own_code() -> None:
    assert issubclass(SecurityError, ProtocolError)
    assert SecurityError.default_code != ProtocolError.default_code
