"""What the system tests share: a real gate, a name server and origins that count, clients that speak raw bytes.

Everything runs in a network namespace of the test's own (netns), so nothing here can reach a network, and every process is
ended by its id.
"""
