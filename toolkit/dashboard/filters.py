"""Filters that live in the page's address, so that a link shows what its sender saw.

What a filter lets choose is what the actor may see. An id in the address that is not among it is "not found", whether
it is somebody else's or nobody's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from toolkit.dashboard import shared


def choice(place: DeltaGenerator, name: str, label: str, options: Mapping[str, str], every: str) -> str | None:
    """Draw a choice of one thing or all; stop the page with "not found" if its address names another one.

    Args:
        place: where it is drawn, such as a column.
        name: of the parameter in the address, whose value is an option's id.
        label: what is chosen, as a screen reader says it.
        options: what the actor may choose: ids, and the names that are shown for them.
        every: shown for no choice.

    Returns:
        The id chosen; None for all.
    """
    widget, seen = f"filter_{name}", f"filter_{name}_seen"
    asked = st.query_params.get(name, "")
    if asked and asked not in options:
        _not_found()
    # Streamlit's own binding puts an option's text into the address, which names share and renaming changes.
    if widget not in st.session_state or st.session_state.get(seen) != asked:
        st.session_state[widget] = asked
    shown = distinct(options)
    chosen = str(
        place.selectbox(
            label,
            ["", *options],
            format_func=lambda each: shown[each] if each else every,
            key=widget,
            label_visibility="collapsed",
        )
    )
    if chosen != asked and chosen:
        st.query_params[name] = chosen
    elif chosen != asked:
        del st.query_params[name]
    st.session_state[seen] = chosen
    return chosen or None


def one_of(name: str, label: str, options: Sequence[str], default: str) -> str:
    """Draw a few words of which one is always chosen; return it. An unknown one in the address counts as none."""
    return str(
        st.segmented_control(
            label,
            options,
            default=default,
            required=True,
            key=name,
            bind="query-params",
            label_visibility="collapsed",
        )
    )


def distinct(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options' names, those that several share with the end of the id behind them."""
    times = Counter(options.values())
    return {each: name if times[name] == 1 else f"{name} · {each[-6:]}" for each, name in options.items()}


def _not_found() -> None:
    shared.empty("Not found.", "The address names something that does not exist, or that is not yours to see.")
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button("Show all", key="filter_clear", on_click=st.query_params.clear)
    st.stop()
