"""A judge behind an OpenAI-compatible address, by the library `openai` (extra `eval`), loaded when first used."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from fedit_client.membership.trust import system_tls
from fedit_protocol.errors import EvaluationError

_RETRIES: Final = 6
_TIMEOUT_S: Final = 180.0
_MOST_WAIT_S: Final = 8.0
_REFUSED: Final = (401, 403, 404)
_BY_NAME: Final = "localhost"


@dataclass(frozen=True)
class Reply:
    """What came back, and the tokens that it cost; an answer without text is an empty one."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def is_answer(self) -> bool:
        """Whether text came, or tokens were counted: anything else, such as a proxy's page, nobody has paid for."""
        return bool(self.text.strip() or self.prompt_tokens or self.completion_tokens)


class Endpoint(Protocol):
    """The seam to a judge."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its replies beside the question: address, model, temperature, longest reply."""
        ...

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """Return the reply to a conversation, one that is no answer if nothing else comes.

        Raises EvaluationError V003, V012, V013.
        """
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


@dataclass
class OpenAIEndpoint:
    """Asks `POST {url}/chat/completions`; rate limits and failures are waited out, as long as the server asks for.

    Some models take no temperature, or count their reply under another name; what an endpoint refuses for that reason
    is left out from then on.
    """

    url: str
    model: str
    key: str = field(repr=False)
    temperature: float = 0.0
    max_tokens: int = 1024
    retries: int = _RETRIES
    timeout_s: float = _TIMEOUT_S
    wait_s: float = 0.5
    """Before what is no answer is asked for again, doubled each time: as the library does for failures."""
    _client: Any = field(default=None, repr=False)
    _options: dict[str, Any] = field(default_factory=dict, repr=False)
    _has_answered: bool = False

    def __post_init__(self) -> None:
        self._options = {"temperature": self.temperature, "max_tokens": self.max_tokens}

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its replies beside the question."""
        return {"url": self.url.rstrip("/"), "model": self.model, "temperature": self.temperature,
                "max_tokens": self.max_tokens}  # fmt: skip

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """Return the reply; one that is no answer is asked for again, unless the address has never given any.

        Raises EvaluationError V003, V012 key or model are refused, V013 it went on failing.
        """
        reply = await self._reply(messages)
        for attempt in range(self.retries if self._has_answered else 0):
            if reply.is_answer:
                break
            await asyncio.sleep(min(self.wait_s * 2**attempt, _MOST_WAIT_S))
            reply = await self._reply(messages)
        self._has_answered = self._has_answered or reply.is_answer
        return reply

    async def _reply(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        client, openai = self._connected()
        while True:
            try:
                answer = await client.chat.completions.create(
                    model=self.model, messages=list(messages), **self._options
                )
            except openai.BadRequestError as error:
                if not self._without_what_it_refuses(str(error)):
                    raise _refused(self.url, error) from error
            except openai.APIStatusError as error:
                if error.status_code in _REFUSED:
                    raise _refused(self.url, error) from error
                raise went_on_failing(self.url, _brief(error)) from error
            except openai.APIConnectionError as error:
                raise went_on_failing(self.url, _brief(error)) from error
            except (openai.OpenAIError, ValueError):
                return Reply("")  # not even JSON
            else:
                return _reply_of(answer)

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()

    def _connected(self) -> tuple[Any, Any]:
        try:
            import openai
        except ImportError as error:
            raise EvaluationError("a judge needs the package openai", code="V003",
                                  fix='pip install "fedit[eval]"') from error  # fmt: skip
        if self._client is None:
            # A redirect could lead answers and key to somewhere that nobody has agreed to.
            loopback = is_loopback(urlsplit(self.url).hostname or "")
            http = openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=not loopback, verify=system_tls())
            self._client = openai.AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=self.retries,
                                              timeout=self.timeout_s, http_client=http)  # fmt: skip
        return self._client, openai

    def _without_what_it_refuses(self, reason: str) -> bool:
        """Change the options after a refusal that names one of them; False if none is named."""
        if "temperature" in reason and self._options.pop("temperature", None) is not None:
            return True
        if "max_tokens" in reason and (most := self._options.pop("max_tokens", None)) is not None:
            self._options["max_completion_tokens"] = most
            return True
        return False


def check_address(url: str) -> str:
    """Return the host of a judge's address.

    Raises EvaluationError V010 unless it is https, or plain http on this very machine, without a password in it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    plain = parts.scheme == "http" and is_loopback(host)
    if not host or parts.username or parts.password or not (parts.scheme == "https" or plain):
        raise EvaluationError(
            "a judge's address is https://, or http:// on this machine only, and holds no password",
            code="V010",
            where=f"{parts.scheme}://{host}" if host else url,
            fix="--url https://HOST/v1, or --url http://127.0.0.1:11434/v1 for a judge on this machine",
        )
    return host


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == _BY_NAME or host.endswith(f".{_BY_NAME}")


def _reply_of(answer: Any) -> Reply:
    """Whatever the far side has put into its JSON, it is not trusted to have the right shape."""
    try:
        text = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        text = None
    usage = getattr(answer, "usage", None)
    counts = [getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) and count >= 0 else 0 for count in counts)
    return Reply(text if isinstance(text, str) else "", prompt, completion)


def _refused(url: str, error: Exception) -> EvaluationError:
    return EvaluationError(f"the judge refuses to answer: {_brief(error)}", code="V012", where=url,
                           fix="check OPENAI_API_KEY, --judge and --url")  # fmt: skip


def went_on_failing(url: str, what: str) -> EvaluationError:
    """The error of a judge that gives no answers for now: the same command goes on later."""
    return EvaluationError(f"the judge went on failing: {what}", code="V013", where=url,
                           fix="run the same command later: what was judged is kept", again="")  # fmt: skip


def _brief(error: Exception) -> str:
    cause = f" {error.__cause__}" if error.__cause__ else ""
    lines = f"{error}{cause}".strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
