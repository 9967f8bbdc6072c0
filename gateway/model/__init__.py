"""What a gateway is made of, as values and rules: servers, names, the catalogue, principals, ids, keys, the breaker.

Pure: no await, no clock but the caller's, no input or output. Must not know who stores or sends any of it. Start with
`server` and `catalogue`.
"""
