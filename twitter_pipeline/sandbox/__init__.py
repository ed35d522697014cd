"""A local server that behaves like the X API v2, on made-up data.

It does not import the client it serves: it stands on the API's public documentation and on recorded answers, so that
a test against it is a second opinion and not the client's own view of the API.
"""
