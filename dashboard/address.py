"""What the address bar holds: the one place where a page's state lives, so reload, Back and a shared link all work.

A value that is not among those offered is dropped from the address, and so is the first choice, unless it is the
viewer's own: then another viewer of the same address would have another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import streamlit as st

PAGE = "page"
"""Which page of a list; back to the first whenever anything else changes."""
PAGES_SHOWN = 5
PAGES_WIDTH = 300
"""Pixels that hold so many pages beside the arrows, also where their numbers have five digits."""
TEXT_MOST = 200
_HERE, _LEAD = "here", "lead"


def read(name: str) -> str:
    """The value of that name; empty where the address has none."""
    return st.query_params.get(name, "")


def write(**values: str) -> None:
    """Put values into the address, empty ones out of it, in one step of the browser's history."""
    before = st.query_params.to_dict()
    after = {name: value for name, value in {**before, **values}.items() if value}
    if after != before:
        st.query_params.from_dict(after)


def arrive(page: str) -> bool:
    """Note that this page is drawn; whether it was another one before."""
    before = st.session_state.get(_HERE, page)
    st.session_state[_HERE] = page
    if page != before:
        st.session_state.pop(_LEAD, None)
    return bool(page != before)


def lead(link: str) -> None:
    """Have the browser leave for that address with the next drawing.

    Streamlit's own way to another page does so behind the browser's back: for the time that the news takes, it speaks
    for the page it is leaving, and the server goes back to that.
    """
    st.session_state[_LEAD] = link


def leads_to() -> str:
    """Where the browser is to go, until it has gone there; empty when it stays."""
    return str(st.session_state.get(_LEAD, ""))


def link(place: str, **values: str) -> str:
    """The address of a page with these values, for a link."""
    return f"{place}?{urlencode({key: value for key, value in values.items() if value})}"


def one_of(name: str, options: Sequence[str], first: str, *, own: bool = False) -> str:
    """The value of that name if it is offered; else the first choice, and the address forgets the other.

    `own`: the first choice differs from viewer to viewer, so the address may hold it.
    """
    given = read(name)
    if given in options and (own or given != first):
        return given
    if name in st.query_params:
        write(**{name: ""})
    return first


def choose(
    label: str,
    name: str,
    options: Sequence[str],
    *,
    first: str = "",
    show: Callable[[str], str],
    width: int | None = None,
    own: bool = False,
) -> str:
    """A drop-down list that shows and changes the value of that name; `own` as of `one_of`."""
    value = one_of(name, options, first, own=own)
    key = _in_step(name, value)
    st.selectbox(
        label, options, index=list(options).index(value), key=key, format_func=show, on_change=_chosen,
        args=(key, name, "" if own else first), width=width or "stretch",
    )  # fmt: skip
    return value


def section(label: str, name: str, options: Sequence[str], *, show: Callable[[str], str]) -> str:
    """Like `choose`, as buttons beside each other."""
    value = one_of(name, options, options[0])
    key = _in_step(name, value)
    st.segmented_control(
        label, options, default=value, key=key, format_func=show, on_change=_chosen,
        args=(key, name, options[0]), label_visibility="collapsed", required=True,
    )  # fmt: skip
    return value


def type_in(label: str, name: str, *, placeholder: str) -> str:
    """A line of text that shows and changes the value of that name."""
    value = read(name).strip()[:TEXT_MOST]
    key = _in_step(name, value)
    st.text_input(
        label, value, key=key, placeholder=placeholder, on_change=_chosen, args=(key, name, ""),
        max_chars=TEXT_MOST,
    )  # fmt: skip
    return value


def page(pages: int) -> int:
    """Which of so many pages is asked for, the nearest where there is no such; draws nothing."""
    text = read(PAGE)
    wanted = min(max(int(text), 1), pages) if text.isascii() and text.isdigit() and len(text) < 10 else 1
    if text and text != str(wanted):
        write(**{PAGE: str(wanted) if wanted > 1 else ""})
    return wanted


def turn(pages: int) -> None:
    """Buttons that lead to the other pages."""
    wanted = page(pages)
    # Another page is another widget: a value set for it would be one too many beside its default.
    key = key_of(f"{PAGE}-{wanted}")
    # Without a width it takes that of its buttons, and leaves out pages, as if for want of room, where they are few.
    st.pagination(
        pages, default=wanted, key=key, on_change=_turned, args=(key,), max_visible_pages=PAGES_SHOWN, width=PAGES_WIDTH
    )


def key_of(name: str) -> str:
    """The key of the widget of that name: its own on every page, lest an answer be taken for another page's."""
    return f"in-{st.session_state.get(_HERE, '')}-{name}"


def _in_step(name: str, value: str) -> str:
    """The widget's key, its value that of the address; set only to change it, so that an open list stays open.

    A widget begins with its default, which has to be the same value: a browser that gets two drawings at once sees the
    second one only, where nothing is set any more, and would answer as if somebody had chosen the first of the list.
    """
    key = key_of(name)
    if st.session_state.get(key, value) != value:
        st.session_state[key] = value
    return key


def _chosen(key: str, name: str, first: str) -> None:
    value = st.session_state[key] or ""
    write(**{name: "" if value == first else value, PAGE: ""})


def _turned(key: str) -> None:
    wanted = st.session_state[key]
    write(**{PAGE: str(wanted) if wanted > 1 else ""})
