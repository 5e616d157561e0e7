"""One Streamlit script a page, and the few modules that the pages share."""
