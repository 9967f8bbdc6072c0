"""The page for browsers: its files, signing in, and the stream that feeds it. Start reading in `files`.

It is a client like others: what it shows comes from the REST addresses, `/mcp` and `/page/events`, with a session in
place of a key. The scripts are in `static`, without a build step; what is not ours is in `static/vendored`.
"""
