"""Why there is nothing to show, in a sentence: the platforms do not send it, or there is none in the range. Pure."""

from __future__ import annotations

from collections.abc import Collection

from analytics.metric import sends, titles
from dashboard.view import View


def why(view: View, what: str, *, column: str | None, providers: Collection[str]) -> str:
    """The reason; `column` is what a platform would have to send, `providers` those that have calls in the selection.

    Where none has, those that are chosen are meant.
    """
    return not_sent(what, column, providers or view.filters.only.get("provider", ())) or none_in(view, what)


def not_sent(what: str, column: str | None, providers: Collection[str]) -> str:
    """That none of these platforms sends it; empty where one does."""
    if column is None or not providers or any(sends(provider, column) for provider in providers):
        return ""
    silent = sorted(titles().get(provider, provider) for provider in providers)
    return f"Not available from {' and '.join(silent)}: {'it does' if len(silent) == 1 else 'they do'} not send {what}."


def none_in(view: View, what: str, *, narrowed: bool = False) -> str:
    """That there is none in the range; `narrowed` by more than the view's own filters."""
    filtered = bool(view.filters.columns) or narrowed
    return f"No {what} in the range ({view.label})" + (" with these filters." if filtered else ".")
