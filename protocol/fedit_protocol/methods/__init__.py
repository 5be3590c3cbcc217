"""From aggregates to the next global adapter: one file per method, pure numpy, linear in the clients' messages.

Both sides pick a method by the name in the task: a device calls the client's half, the server its own.
"""

from typing import Final

from fedit_protocol.methods.contract import (
    AggregationMethod,
    Correction,
    RoundStart,
    SketchingMethod,
    State,
    Step,
    TwoSumMethod,
)
from fedit_protocol.methods.ditto import Ditto
from fedit_protocol.methods.fed_sb import FedSb
from fedit_protocol.methods.fedalt import FedAlt
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.fedex_lora import FedExLora
from fedit_protocol.methods.fedit_rs import FedItRs
from fedit_protocol.methods.fedit_rs1 import FedItRs1
from fedit_protocol.methods.fedkseed import FedKSeed
from fedit_protocol.methods.fedsa import FedSa
from fedit_protocol.methods.fedsvd import FedSvd
from fedit_protocol.methods.ffa_lora import FfaLora
from fedit_protocol.methods.flexlora import FlexLora
from fedit_protocol.methods.flora import Flora
from fedit_protocol.methods.nested import NestedRanks
from fedit_protocol.methods.ravan import Ravan
from fedit_protocol.methods.rolora import RoLora
from fedit_protocol.methods.scaffold import Scaffold
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName

__all__ = [
    "METHODS",
    "AggregationMethod",
    "Correction",
    "RoundStart",
    "SketchingMethod",
    "State",
    "Step",
    "TwoSumMethod",
    "method_of",
]

METHODS: Final[dict[MethodName, AggregationMethod]] = {
    MethodName.FEDAVG: FedAvg(),
    MethodName.FEDIT_RS: FedItRs(),
    MethodName.FEDIT_RS1: FedItRs1(),
    MethodName.SCAFFOLD: Scaffold(),
    MethodName.FFA_LORA: FfaLora(),
    MethodName.ROLORA: RoLora(),
    MethodName.FEDSVD: FedSvd(),
    MethodName.NESTED: NestedRanks(),
    MethodName.FEDSA: FedSa(),
    MethodName.DITTO: Ditto(),
    MethodName.FEDALT: FedAlt(),
    MethodName.FED_SB: FedSb(),
    MethodName.RAVAN: Ravan(),
    MethodName.FEDKSEED: FedKSeed(),
    MethodName.FLORA: Flora(),
    MethodName.FLEXLORA: FlexLora(),
    MethodName.FEDEX_LORA: FedExLora(),
}
"""The name in `[method]` of a task → the method."""


def method_of(document: TaskDocument) -> AggregationMethod:
    """Return the method that a task names."""
    return METHODS[document.task.method.name]
