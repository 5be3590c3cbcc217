"""Public examples of task documents, for tests and for programs that embed FedIT; found in `testing` too."""

from collections.abc import Mapping

from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.encoding import digest_of
from fedit_protocol.ids import TaskId
from fedit_protocol.task import BaseModelSpec, RoundSpec, Task, TaskDocument
from fedit_protocol.task_tables import EncodingSpec, MethodName, MethodSpec


def small_task(members: int = 5, size: int = 8, **policy: object) -> TaskDocument:
    """Return a document for `members` devices and an adapter of `size` coordinates; `policy` fills `[round]`."""
    return _document(AdapterLayout(tensors=(TensorSpec(name="lora", shape=(size,)),)), members, policy)


def two_sum_task(members: int = 8, m: int = 6, n: int = 4, rank: int = 2, **policy: object) -> TaskDocument:
    """Return a document of the method fedit_rs: one adapted layer of m outputs and n inputs."""
    tensors = (
        TensorSpec(name="layer.lora_A.weight", shape=(rank, n)),
        TensorSpec(name="layer.lora_B.weight", shape=(m, rank)),
    )
    document = _document(AdapterLayout(tensors=tensors), members, policy)
    method = MethodSpec(name=MethodName.FEDIT_RS, sketch_rank=rank)
    return document.model_copy(update={"task": document.task.model_copy(update={"method": method})})


def _document(layout: AdapterLayout, members: int, policy: Mapping[str, object]) -> TaskDocument:
    task = Task(
        id=TaskId("test-task"),
        title="A task for tests",
        base=BaseModelSpec(model="none", digest=digest_of(b"base")),
        round=RoundSpec.model_validate({"cohort_size": members, **policy}),
        encoding=EncodingSpec(value_range=1.0, clip_norm=100.0),
    )
    return TaskDocument(task=task, layout=layout, linear_parameters=0, other_parameters=0, hidden_size=0, layers=0)
