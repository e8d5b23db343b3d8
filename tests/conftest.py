"""That this file is here puts tests/ on the path of imports, so that tests can import `doubles`."""
