"""The script that Streamlit runs; apart from `pages/`, which Streamlit would take for its own kind of pages."""

from dashboard.app import main

main()
