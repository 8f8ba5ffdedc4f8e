"""Who may reach in, and by which door: keys and scopes, TLS, a second port, other origins.

Nothing here is loaded into the path of a request unless a setting asks for it.
"""
