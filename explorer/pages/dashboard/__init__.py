"""The frame around the pages: the server, who may use it, settings, theme and navigation.

app.py           the server that `explorer app` starts
web_guard.py     host names, origins, the token and the headers of every answer
access_token.py  whether visitors need a token, and which
base_path.py     the path under which the dashboard answers
address.py       prints the dashboard's address and opens it
back_button.py   the browser's Back button undoes the last change, or leaves the page
first_view.py    begins early what the first view waits for
plotly_scripts.py  Plotly for the browser, in two sizes
style.css        rules that Streamlit's theme has no setting for
plotly/          the small one, as npm's plotly.js-basic-dist-min has it, and its licence
script.py        the script that Streamlit runs for each visit
navigation.py    the pages in the order of the menu, with titles and icons
"""
