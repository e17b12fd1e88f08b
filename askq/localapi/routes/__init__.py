"""The endpoints, a module per resource. Each exports `ROUTES`."""
