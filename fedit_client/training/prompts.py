"""The built-in prompt templates: texts that published models were trained with, so not a character of them may change.

Sources: Stanford Alpaca (Taori et al. 2023; its prompt ends right after the colon, which is `alpaca_legacy`),
Alpaca-LoRA and Shepherd (`alpaca`, `alpaca_short`), Vigogne, the French Alpaca (`vigogne`).
"""

from dataclasses import dataclass
from typing import Final

from fedit_protocol.task import Template


@dataclass(frozen=True)
class PromptTemplate:
    """The parts around instruction and context; the answer follows the last of them at once."""

    opening: str
    opening_with_input: str
    instruction: str
    input: str
    response: str

    def prompt(self, instruction: str, context: str = "") -> str:
        """Return the text that an answer starts from."""
        given = f"{self.input}{context}\n\n" if context else ""
        opening = self.opening_with_input if context else self.opening
        return f"{opening}{self.instruction}{instruction}\n\n{given}{self.response}"


_ALPACA: Final = PromptTemplate(
    opening=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    ),
    opening_with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
    ),
    instruction="### Instruction:\n",
    input="### Input:\n",
    response="### Response:\n",
)

PROMPTS: Final[dict[Template, PromptTemplate]] = {
    Template.ALPACA: _ALPACA,
    Template.ALPACA_SHORT: PromptTemplate("", "", _ALPACA.instruction, _ALPACA.input, _ALPACA.response),
    Template.ALPACA_LEGACY: PromptTemplate(
        _ALPACA.opening, _ALPACA.opening_with_input, _ALPACA.instruction, _ALPACA.input, "### Response:"
    ),
    Template.VIGOGNE: PromptTemplate(
        opening=(
            "Ci-dessous se trouve une instruction qui décrit une tâche. "
            "Écrivez une réponse qui complète correctement la demande.\n\n"
        ),
        opening_with_input=(
            "Ci-dessous se trouve une instruction qui décrit une tâche, associée à une entrée qui fournit un contexte "
            "supplémentaire. Écrivez une réponse qui complète correctement la demande.\n\n"
        ),
        instruction="### Instruction:\n",
        input="### Entrée:\n",
        response="### Réponse:\n",
    ),
}
"""Every template but the chat template, which is the base's own."""
