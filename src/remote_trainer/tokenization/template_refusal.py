"""Errors of a chat template that does not render a conversation."""

from traceback import walk_tb

from jinja2 import TemplateError, TemplateSyntaxError

_INSIDE = "<template>"  # what jinja2 calls the file of a template that was compiled from a string


class TemplateRefusal(ValueError):
    """A chat template did not render a conversation. Its text is one line for the user."""

    def __init__(
        self, reason: str, *, deliberate: bool, file: str = "", line: int | None = None
    ) -> None:
        self.reason = " ".join(reason.split())
        """The message of the template, or of the error in it."""
        self.deliberate = deliberate
        """The template raised the error itself (``raise_exception``)."""
        self.file = file
        """The file of the template; empty if unknown."""
        self.line = line
        """Line of the template, counted from 1; None if unknown."""
        super().__init__(self._sentence())

    @property
    def where(self) -> str:
        """File and line of the template, as far as known."""
        file = self.file or "chat template"
        return file if self.line is None else f"{file}:{self.line}"

    def _sentence(self) -> str:
        if self.deliberate:
            return f"the model's chat template refuses it: {self.reason!r}"
        return f"the model's chat template fails on it ({self.where}): {self.reason}"


class FaultyTemplate(TemplateRefusal):
    """A template that renders nothing at all: a syntax error, an unknown tag, filter or test."""

    def _sentence(self) -> str:
        return (
            f"the model's chat template is invalid: {self.reason}; fix it or choose another model"
        )


def refusal_of(error: Exception, file: str) -> TemplateRefusal | None:
    """The refusal for ``error``; None if the error did not come from the template."""
    if isinstance(error, TemplateSyntaxError):
        return FaultyTemplate(
            error.message or str(error), deliberate=False, file=file, line=error.lineno
        )
    line = _line_in_template(error)
    if line is None and isinstance(error, RecursionError | SyntaxError):  # nothing was rendered
        reason = "it is nested too deeply to be compiled"
        return FaultyTemplate(reason, deliberate=False, file=file)
    if type(error) is TemplateError:
        return TemplateRefusal(str(error), deliberate=True, file=file, line=line)
    if isinstance(error, MemoryError) or not (isinstance(error, TemplateError) or line):
        return None
    reason = f"{type(error).__name__}: {error}"
    return TemplateRefusal(reason, deliberate=False, file=file, line=line)


def _line_in_template(error: Exception) -> int | None:
    """The innermost line of the template that the error passed through."""
    lines = [
        line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == _INSIDE
    ]
    return lines[-1] if lines else None
