"""The dashboard's server in a checkout: `streamlit run app.py`.

`explorer app` starts the same server from any folder.
"""

import streamlit as st

from explorer.pages.dashboard import address, plotly_scripts, web_guard

# Streamlit finds the server by this assignment, without running the file.
app = st.App(
    web_guard.SCRIPT,
    routes=plotly_scripts.routes(),
    middleware=web_guard.middleware(),
    lifespan=address.announced,
)
