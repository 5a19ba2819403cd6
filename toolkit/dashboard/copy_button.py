"""A button that copies a text, always in sight: the one of `st.code` appears only under the mouse.

The text goes to the browser with the button and is gone with it; pressing it sends nothing back.
"""

import streamlit as st

_HTML = '<button type="button">Copy</button>'

_CSS = """
button { font: 550 0.88rem/1.5 var(--st-font); color: var(--st-primary-color); background: transparent; cursor: pointer;
  border: 1px solid var(--st-border-color); border-radius: 6px; padding: 1px 12px; min-width: 76px; }
button:hover, button:focus-visible { border-color: var(--st-primary-color); outline: none; }
"""

# A page that is served without TLS under a name other than localhost has no navigator.clipboard.
_JS = """
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  let reset;
  const copyFromField = () => {
    const field = document.createElement("textarea");
    field.value = data.text;
    (document.querySelector("[role=dialog]") ?? document.body).append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  };
  button.setAttribute("aria-label", data.label);
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(data.text); } catch { copyFromField(); }
    button.textContent = "Copied";
    clearTimeout(reset);
    reset = setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  return () => { clearTimeout(reset); button.onclick = null; };
}
"""


def copy_button(text: str, label: str, *, key: str) -> None:
    """Draw the button.

    Args:
        text: what it copies.
        label: what it is for, as a screen reader says it.
        key: of the widget.
    """
    component = st.components.v2.component("keydesk_copy_button", html=_HTML, css=_CSS, js=_JS)
    component(data={"text": text, "label": label}, key=key, width="content")
