"""The dashboard of a checkout: `streamlit run app.py`. `explorer app` works from any folder."""

from explorer.pages.dashboard import navigation

navigation.show_dashboard()
