"""Conformance suites for Esper's interfaces, for us and for strangers. Knows no implementation, and no test runner."""
