"""A task of Windows' Task Scheduler, at log-on (Task Scheduler Schema 1.2). Parsed in the tests; not run there yet."""

import re
import subprocess
from typing import Final
from xml.etree import ElementTree

from fedit_client.service.plan import DESCRIPTION, ServicePlan

TASK: Final = "FedIT client"
NAMESPACE: Final = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_SETTINGS: Final = {
    "MultipleInstancesPolicy": "IgnoreNew",
    # Batteries are the client's own business: polite.on_battery.
    "DisallowStartIfOnBatteries": "false",
    "StopIfGoingOnBatteries": "false",
    "AllowHardTerminate": "true",
    "StartWhenAvailable": "true",
    "RunOnlyIfNetworkAvailable": "false",
    "Enabled": "true",
    "Hidden": "true",
    "ExecutionTimeLimit": "PT0S",
    "Priority": "7",  # below normal
}


def task_xml(plan: ServicePlan, user: str) -> bytes:
    """Return the task for `schtasks /Create /XML`, in the UTF-16 that it wants; `user` is DOMAIN\\name."""
    task = ElementTree.Element("Task", {"version": "1.2", "xmlns": NAMESPACE})
    _add(task, "RegistrationInfo", {"Description": DESCRIPTION})
    triggers = ElementTree.SubElement(task, "Triggers")
    _add(triggers, "LogonTrigger", {"Enabled": "true", "UserId": user})
    principals = ElementTree.SubElement(task, "Principals")
    principal = {"UserId": user, "LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege"}
    _add(principals, "Principal", principal).set("id", "Author")
    settings = _add(task, "Settings", _SETTINGS)
    _add(settings, "RestartOnFailure", {"Interval": "PT1M", "Count": "5"})
    actions = ElementTree.SubElement(task, "Actions", {"Context": "Author"})
    program, *words = plan.command
    _add(actions, "Exec", {"Command": program, "Arguments": subprocess.list2cmdline(words)})
    ElementTree.indent(task)
    content: bytes = ElementTree.tostring(task, encoding="utf-16", xml_declaration=True)
    return content


def words_of(content: bytes) -> list[str]:
    """Return the command line of a task; raises ValueError for another file."""
    try:
        action = ElementTree.fromstring(content).find(".//{*}Exec")  # noqa: S314 - our own file, in our own folder
    except ElementTree.ParseError as error:
        raise ValueError("this is no task of the Task Scheduler") from error
    if action is None:
        raise ValueError("this task runs nothing")
    return [action.findtext("{*}Command", ""), *_split(action.findtext("{*}Arguments", ""))]


def _split(line: str) -> list[str]:
    """Undo `subprocess.list2cmdline`."""
    words: list[str] = []
    word, begun, quoted = "", False, False
    for slashes, char in re.findall(r"(\\*)(.?)", line, re.DOTALL):
        if char == '"':
            word, begun = word + "\\" * (len(slashes) // 2), True
            if len(slashes) % 2:
                word += char
            else:
                quoted = not quoted
        elif char == " " and not quoted:
            words += [word + slashes] if word or slashes or begun else []
            word, begun = "", False
        else:
            word += slashes + char
    return [*words, word] if word or begun else words


def _add(parent: ElementTree.Element, name: str, texts: dict[str, str]) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    for child, text in texts.items():
        ElementTree.SubElement(element, child).text = text
    return element
