"""The dashboard's server: `explorer app` starts it, from a checkout or an installed package.

Streamlit takes its settings and theme from .streamlit/config.toml beside this file.
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
