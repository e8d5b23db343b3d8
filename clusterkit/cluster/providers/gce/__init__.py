"""Google Compute Engine, begun: not a provider yet. Its SDK is imported when it is used.

client  the one door to the API: credentials, patience, errors, operations
words   what Google said, and what to do about it; pure
found   what Google answers, as clusterkit's nouns; pure
"""
