"""What a round of a task costs on the wire, for one device, without the few hundred bytes of keys and signatures."""

from fedit_protocol.methods import State
from fedit_protocol.round_plan import sealed_spec, sum_specs
from fedit_protocol.sealed.updates import sealed_length
from fedit_protocol.secagg.packing import packed_bytes
from fedit_protocol.secagg.ring import word_count, word_type
from fedit_protocol.task import Mode, TaskDocument


def bytes_up(document: TaskDocument, version: int) -> int:
    """Return the bytes of what a device uploads in a round from this version: masked vectors, or a sealed update."""
    if document.task.round.mode is Mode.TRUSTED:
        return sealed_length(sealed_spec(document, bytes(32), version))
    return sum(
        packed_bytes(word_count(spec.ring), spec.ring.packed_bits)
        if spec.ring.packed_bits
        else word_count(spec.ring) * word_type(spec.ring).itemsize
        for spec in sum_specs(document, version)
    )


def bytes_down(document: TaskDocument, public: State) -> int:
    """Return the bytes that a device downloads: the adapter in float32, and what every device is told beside it."""
    return 4 * document.layout.size + sum(array.nbytes for array in public.values())
