"""Our own loop around growth (in the design papers, with ``growth``: Tolaria): tasks, runs, reports."""
