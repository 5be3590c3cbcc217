"""A chat program that learns from its thumbs-up: only answers that its user liked are trained on, and none leaves.

    python examples/thumbs_up_chat/thumbs_up_chat.py "fedit://host:8443/j/CODE#sha256:PIN"

Type a question; type + to like the answer; type /learn to take part in one round; an empty line ends it. The chat lies
in a small database; `LikedAnswers` gives FedIT a view of it, which is read when training starts and never copied.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fedit_client import ConsentSummary, FeditError, SyncClient, Trainer

Answer = Callable[[str, Path | None], str]
"""A question and the newest adapter's folder, if there is one → what the program says. Put your model here."""


class Chat:
    """Questions and answers, and which of them were liked."""

    def __init__(self, file: Path, answer: Answer) -> None:
        self.file, self._answer = file, answer
        self.adapter: Path | None = None
        with self.open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS turns (question TEXT, answer TEXT, liked INTEGER DEFAULT 0)")

    def open(self) -> sqlite3.Connection:
        """Return a connection of the caller's own: training reads in another thread."""
        return sqlite3.connect(self.file)

    def say(self, question: str) -> str:
        """Answer with the newest adapter, and remember both."""
        answer = self._answer(question, self.adapter)
        with self.open() as database:
            database.execute("INSERT INTO turns (question, answer) VALUES (?, ?)", (question, answer))
        return answer

    def thumbs_up(self) -> None:
        """Like the last answer."""
        with self.open() as database:
            database.execute("UPDATE turns SET liked = 1 WHERE rowid = (SELECT max(rowid) FROM turns)")


class LikedAnswers:
    """The seam to FedIT: a DataSource is anything with `rows`. It is asked anew each time that training starts."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def rows(self) -> Iterator[Mapping[str, str]]:
        """Yield what was liked, in the form of prompt and completion."""
        for question, answer in self._chat.open().execute("SELECT question, answer FROM turns WHERE liked"):
            yield {"prompt": question, "completion": answer}


def learn(
    chat: Chat, invite: str, folder: Path, agree: Callable[[ConsentSummary], bool], trainer: Trainer | None = None
) -> Path | None:
    """Take part in one round with the liked answers; from then on the chat answers with what came of it."""
    with SyncClient.open(invite, app="thumbs-up-chat", data_dir=folder, trainer=trainer) as client:
        client.add_source(LikedAnswers(chat))
        if client.membership is None:
            offer = client.fetch_offer()
            if not agree(offer.summary):
                return None
            client.join(consent=offer.accept())
        for event in client.run(max_rounds=1):
            print(event.text)
        chat.adapter = client.latest_adapter()
    return chat.adapter


def parrot(question: str, adapter: Path | None) -> str:
    """Stand in for a model; yours would load its base once, and put the PEFT folder `adapter` on it."""
    return f"({adapter.name if adapter else 'base'}) I heard: {question}"


def ask(summary: ConsentSummary) -> bool:
    """Show what the user agrees to, and wait for an answer."""
    print(*summary.lines(), sep="\n")
    return input("Take part? [y/N] ").strip().lower() == "y"


def main() -> None:
    """Chat on the terminal."""
    folder = Path("fedit-thumbs-up-chat")
    folder.mkdir(exist_ok=True)
    chat = Chat(folder / "chat.db", parrot)
    while line := input("> ").strip():
        if line == "+":
            chat.thumbs_up()
        elif line == "/learn":
            try:
                print(learn(chat, sys.argv[1], folder, ask) or "declined; nothing was sent")
            except FeditError as error:
                print(f"FEDIT-{error.code}: {error}\n  fix: {error.fix}")
        else:
            print(chat.say(line))


if __name__ == "__main__":
    main()
