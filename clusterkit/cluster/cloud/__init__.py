"""What the clouds share: candidates, launches, the door, tags as the truth. No cloud's SDK is here.

`api` has the nouns and the interface that each cloud implements in `providers/<cloud>/`;
`provider.CloudProvider` is the cluster's life in those terms.
"""
