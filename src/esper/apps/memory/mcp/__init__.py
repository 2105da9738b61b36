"""The memory behind the Model Context Protocol: what an agent can ask for, and how it is served."""
