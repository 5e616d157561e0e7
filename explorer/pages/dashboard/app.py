"""The dashboard's script: `explorer app` runs it, from a checkout or an installed package.

Streamlit takes its settings and theme from .streamlit/config.toml beside this file.
"""

from explorer.pages.dashboard import navigation

navigation.show_dashboard()
