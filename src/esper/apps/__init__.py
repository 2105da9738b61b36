"""Every process that can be started; the only place for terminals and servers."""
