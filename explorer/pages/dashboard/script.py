"""The script that Streamlit runs for each visit: the menu and the page that the address names.

streamlit run app.py       from a checkout; `explorer app` from any folder
"""

from explorer.pages.dashboard import navigation

navigation.show_dashboard()
