"""The frame around the pages: settings, theme and navigation.

app.py         the script that `explorer app` hands to Streamlit
navigation.py  the pages in the order of the menu, with titles and icons
"""
