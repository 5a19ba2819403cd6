"""The dashboard: this one file is the ASGI app that the server imports and the script that each session runs.

Streamlit finds the app by parsing for the assignment below, so it must stay spelled out: were it hidden in a
function, the file would run as a plain script with no gate before it.
"""

import streamlit as st

if __name__ == "__main__":
    from toolkit.dashboard.router import main

    main()
else:
    from toolkit.dashboard import gate

    app = st.App(__file__, routes=gate.routes(), middleware=gate.middleware(), lifespan=gate.lifespan)
