"""What a service runs, whatever starts it."""

import sys
from dataclasses import dataclass
from pathlib import Path

NAME = "fedit-client"
DESCRIPTION = "FedIT client: takes part in federated instruction tuning; the rows stay on this machine"
NEEDS_A_PERSON = (2, 3, 4, 6, 7, 8, 9, 11)
"""Exit statuses that starting again does not cure: command line, settings, membership, trust, consent, hardware, data,
task (EXPERIENCE, section 2)."""
INTERRUPTED = 130


@dataclass(frozen=True)
class ServicePlan:
    """The program, the portable folder if its owner uses one, and where its words go."""

    home: Path | None
    log: Path
    interpreter: Path = Path(sys.executable)
    max_memory_gb: float | None = None
    settings_file: Path | None = None
    """The file of `--config`, absolute."""

    @property
    def command(self) -> tuple[str, ...]:
        """The command line, absolute, without a shell."""
        home = ("--home", str(self.home)) if self.home else ()
        config = ("--config", str(self.settings_file)) if self.settings_file else ()
        return str(self.interpreter), "-P", "-m", "fedit_client", *home, *config, "run", "--wait-for-consent"
