"""The server: requests join one running batch (`scheduler`), HTTP around it, and the page."""
