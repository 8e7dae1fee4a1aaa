"""What a check of the machine found: one line with a remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from polarjax.core import ConfigError, PolarjaxError

OK, WARN, FAIL = "OK", "WARN", "FAIL"
COMMAND = (
    "make clean env (in a clone), or pip install -r requirements.txt into the environment that runs this"
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
      check: what was looked at.
      level: 'OK', 'WARN' (training works, but not as it should) or 'FAIL'.
      message: what was found.
      remedy: what to do about it; '' where all is well or the message says it.
      exit_code: that of the class of the failure, as a run would end with it; 0 without one.
    """

    check: str
    level: str
    message: str
    remedy: str = ""
    exit_code: int = 0

    def __str__(self) -> str:
        remedy = f"; remedy: {self.remedy}" if self.remedy else ""
        return f"{self.level:<5} {self.check:<12} {self.message}{remedy}"


def failure(check: str, kind: type[PolarjaxError], message: str, remedy: str = "") -> Finding:
    """Words a failure whose exit code is that of `kind`."""
    return Finding(check, FAIL, message, remedy, kind.exit_code)


def run_check(check: str, find: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yields what a check finds; whatever it raises is a failure too, and the checks after it still run."""
    try:
        yield from find()
    except PolarjaxError as error:
        yield Finding(check, FAIL, str(error), exit_code=error.exit_code)
    except ImportError as error:
        yield failure(check, ConfigError, f"cannot be checked, {one_line(error)}", COMMAND)
    except Exception as error:  # a broken driver or library may raise anything, and each is an answer
        yield failure(check, ConfigError, f"{type(error).__name__}: {one_line(error)}", COMMAND)


def one_line(error: Exception) -> str:
    """Returns the message of an error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
