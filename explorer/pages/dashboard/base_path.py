"""The path under which the dashboard answers, where it shares a host with others."""

from streamlit import config


def base_path() -> str:
    """Streamlit's `server.baseUrlPath` as addresses begin: `/tools`; empty for none."""
    base = config.get_option("server.baseUrlPath").strip("/")
    return f"/{base}" if base else ""
