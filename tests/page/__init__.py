"""The page in a real Chromium, against the whole stack: `make test-page`."""
